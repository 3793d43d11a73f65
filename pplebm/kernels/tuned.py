r"""Short chains of an adjusted kernel, each of which finds its own step size on its way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pplebm.kernels.kernel import Kernel, Target
from pplebm.ppl.language import PPL, Tree

GAIN, DELAY, DECAY = 2.0, 3.0, 0.75


def tuned(inner: Kernel, n: int) -> Kernel:
    r"""Make a kernel whose rows adapt their step sizes for their first n steps, and keep them from then on.

    .. math:: \log s \leftarrow \log s + 2 (t + 3)^{-3/4} (\alpha_t - \alpha^*), \qquad t < n

    so that a chain is that of `inner` once it has begun: what depends on where it was ends after n steps.

    Args:
        inner: made by `mala` or `hmc`.
        n: steps of adaptation.

    Source: Andrieu, Thoms (Statistics and Computing 2008), section 4.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> from pplebm.kernels.mala import mala
        >>> kernel, log_density = tuned(mala(5.0), 30), lambda z: -0.5 * z["z"] ** 2 / 0.01
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)
        >>> for key in range(60):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.008 < state.z["z"].var() < 0.012, 0.4 < info.accept_prob.mean() < 0.75
        (tensor(True), tensor(True))
    """
    assert inner.tuning is not None, inner.settings
    target = inner.tuning.target_accept

    def move(ppl: PPL, noise: Tree, state: Any, log_density: Target) -> tuple[Any, Any]:
        new, info = inner.move(ppl, noise, state, log_density)
        gain = GAIN * (state.step + DELAY) ** -DECAY
        gain = ppl.where(state.step < n, gain, 0.0 * gain)
        return new._replace(step_size=new.step_size * ppl.exp(gain * (info.accept_prob - target))), info

    return replace(inner, settings=("tuned", inner.settings, n), move=move, tuning=None)
