r"""Gradient ascent by steps that are taken only where they lead up."""

from __future__ import annotations

from pplebm.kernels.batch import positive, spread
from pplebm.kernels.kernel import Kernel, Target, value_and_gradient
from pplebm.kernels.metropolis import (
    MetropolisInfo,
    MetropolisState,
    Proposal,
    accept,
    frozen,
    init_state,
    uniform_noise,
)
from pplebm.ppl.language import PPL, Key, Latents, Tree

LONGER, SHORTER = 1.2, 0.5  # factors of a row's step size after a step that led up, and after one that did not
NEVER = -1e9


def uphill(step_size: float = 0.1) -> Kernel:
    r"""Make a kernel that climbs :math:`\log p(z)`: `mala` at temperature 0.

    .. math:: z' = z + \tfrac12 s^2 \nabla \log p(z), \quad \text{taken if } \log p(z') > \log p(z)

    A row's step is longer after one that led up, and half as long after one that did not. So it ends where the
    gradient is 0, as plain ascent does, and no place is too steep for it.

    Args:
        step_size: s > 0, of the first step.

    Raises:
        PplebmError: for a step size that is not positive.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = uphill(1.0), lambda z: -0.5 * (z["z"] - 3.) ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1)}, log_density)
        >>> for key in range(40):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> round(state.z["z"].item(), 3)
        3.0
    """
    s, scale = positive("step_size", step_size), frozen(1.0)

    def init(ppl: PPL, z: Latents, log_density: Target) -> MetropolisState:
        return init_state(ppl, z, log_density, s, scale, "uphill")

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        return ppl.normal_like(key, {"accept": uniform_noise(z)})

    def move(
        ppl: PPL, noise: Tree, state: MetropolisState, log_density: Target
    ) -> tuple[MetropolisState, MetropolisInfo]:
        drift = {k: 0.5 * spread(state.step_size, g) ** 2 * g for k, g in state.gradient.items()}
        z = {k: a + drift[k] for k, a in state.z.items()}
        proposal = Proposal(z, *value_and_gradient(ppl, log_density, z))
        rise = proposal.log_density - state.log_density
        none = 0.0 * state.log_density
        ratio = ppl.where(rise >= 0.0, none, NEVER + none)  # a step to where the density overflows is too long, no more
        new, info = accept(ppl, noise["accept"], state, proposal, ratio, (-state.log_density, -proposal.log_density))
        return new._replace(step_size=new.step_size * ppl.where(info.is_accepted, LONGER, SHORTER)), info

    return Kernel(("uphill", s), init, noise, move)
