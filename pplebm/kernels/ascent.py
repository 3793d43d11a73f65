r"""Ascent by Adam: no sampler, but a start for one."""

from __future__ import annotations

from typing import Any, NamedTuple

from pplebm.kernels.batch import Schedule, choose, lowest, positive, schedule, squares, zeros
from pplebm.kernels.kernel import Kernel, LogDensity, value_and_gradient
from pplebm.ppl.language import Array, Latents


class AscentState(NamedTuple):
    """What the next step needs."""

    z: Latents
    last: Latents  # the newest at which log density and gradient were finite; a row turns back to it where they are not
    adam: Any
    step: Any
    n_divergent: Array


class AscentInfo(NamedTuple):
    """What a person wants to see of one step; (B,) each."""

    log_density: Array  # at the state the step started from
    is_divergent: Array


def ascent(ppl: Any, learning_rate: Schedule = 0.05) -> Kernel:
    r"""Make a kernel that climbs :math:`\log p(z)` by Adam; every coordinate for itself, nothing random.

    It leads to a mode, or near one, so that a chain need not walk there; see `pplebm.sampling.chains.warm_start`.

    Args:
        ppl: the backend.
        learning_rate: > 0, about the length of a step in every coordinate; a number or one number per step.

    Raises:
        PplebmError: for a rate that is not positive.

    Source: Kingma, Ba (ICLR 2015), algorithm 1; as a start of chains Purohit et al. (2024, arXiv:2410.02078).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = ascent(ppl, 0.1), lambda z: -0.5 * (z["z"] - 3.) ** 2
        >>> state = kernel.init({"z": torch.zeros(1)}, log_density)
        >>> for _ in range(200):
        ...     state, info = kernel(0, state, log_density)
        >>> round(state.z["z"].item(), 2)
        3.0
    """
    rates = schedule(ppl, learning_rate, "learning_rate")
    positive("learning_rate", lowest(rates))

    def move(noise: Any, state: AscentState, log_density: LogDensity) -> tuple[AscentState, AscentInfo]:
        value, gradient = value_and_gradient(ppl, log_density, state.z)
        t, rate = state.step + 1, ppl.take(rates, state.step)
        fine = ppl.isfinite(value) & ppl.isfinite(squares(gradient))
        (mean, square), nought = state.adam, {k: 0.0 * a for k, a in state.last.items()}
        g, last = choose(ppl, fine, gradient, nought), choose(ppl, fine, state.z, state.last)
        mean = choose(ppl, fine, {k: 0.9 * m + 0.1 * g[k] for k, m in mean.items()}, nought)
        square = {k: 0.999 * v + 0.001 * g[k] ** 2 for k, v in square.items()}
        m_scale, v_scale = 1.0 / (1.0 - 0.9**t), 1.0 / (1.0 - 0.999**t)
        z = {k: a + rate * m_scale * mean[k] / ((v_scale * square[k]) ** 0.5 + 1e-8) for k, a in last.items()}
        new = AscentState(z, last, (mean, square), t, state.n_divergent + ~fine)
        return new, AscentInfo(value, ~fine)

    def init(z: Latents, log_density: LogDensity) -> AscentState:
        nought = {k: 0.0 * a for k, a in z.items()}
        return AscentState(z, z, (nought, dict(nought)), ppl.asarray(0), zeros(z))

    def noise(key: Any, z: Latents) -> dict[str, Array]:
        return {}

    settings = rates if isinstance(rates, float) else tuple(float(r) for r in rates)
    return Kernel(("ascent", settings), init, noise, move)
