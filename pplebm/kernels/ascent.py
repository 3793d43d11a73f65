r"""Ascent by Adam: no sampler, but a start for one."""

from __future__ import annotations

from typing import NamedTuple

from pplebm.kernels.batch import Schedule, at_step, choose, lowest, positive, schedule, squares, zeros
from pplebm.kernels.kernel import Kernel, Target, value_and_gradient
from pplebm.ppl.language import PPL, Array, Key, Latents


class AscentState(NamedTuple):
    """State of an ascent between steps."""

    z: Latents
    last: Latents  # the newest at which log density and gradient were finite; a row turns back to it where they are not
    mean: Latents  # of the gradients, running
    square: Latents  # of their squares
    step: Array
    n_divergent: Array


class AscentInfo(NamedTuple):
    """Figures of one step, (B,) each."""

    log_density: Array  # at the state the step started from
    is_divergent: Array


def ascent(learning_rate: Schedule = 0.05) -> Kernel:
    r"""Make a kernel that climbs :math:`\log p(z)` by Adam; every coordinate for itself, nothing random.

    It leads to a mode, or near one, so that a chain need not walk there; see `pplebm.sampling.chains.warm_start`.

    Args:
        learning_rate: > 0, about the length of a step in every coordinate; a number or one number per step.

    Raises:
        PplebmError: for a rate that is not positive.

    Source: Kingma, Ba (ICLR 2015), algorithm 1; as a start of chains Purohit et al. (2024, arXiv:2410.02078).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = ascent(0.1), lambda z: -0.5 * (z["z"] - 3.) ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1)}, log_density)
        >>> for _ in range(200):
        ...     state, info = kernel(ppl, 0, state, log_density)
        >>> round(state.z["z"].item(), 2)
        3.0
    """
    rates = schedule(learning_rate, "learning_rate")
    positive("learning_rate", lowest(rates))

    def init(ppl: PPL, z: Latents, log_density: Target) -> AscentState:
        return AscentState(z, z, _nothing(z), _nothing(z), ppl.asarray(0), zeros(z))

    def noise(ppl: PPL, key: Key, z: Latents) -> Latents:
        return {}

    def move(ppl: PPL, noise: Latents, state: AscentState, log_density: Target) -> tuple[AscentState, AscentInfo]:
        value, gradient = value_and_gradient(ppl, log_density, state.z)
        t, rate = state.step + 1, at_step(ppl, rates, state.step)
        is_finite = ppl.isfinite(value) & ppl.isfinite(squares(gradient))
        g, last = choose(ppl, is_finite, gradient, _nothing(state.last)), choose(ppl, is_finite, state.z, state.last)
        mean = {k: 0.9 * m + 0.1 * g[k] for k, m in state.mean.items()}
        mean = choose(ppl, is_finite, mean, _nothing(mean))
        square = {k: 0.999 * v + 0.001 * g[k] ** 2 for k, v in state.square.items()}
        m_scale, v_scale = 1.0 / (1.0 - 0.9**t), 1.0 / (1.0 - 0.999**t)
        z = {k: a + rate * m_scale * mean[k] / ((v_scale * square[k]) ** 0.5 + 1e-8) for k, a in last.items()}
        return AscentState(z, last, mean, square, t, state.n_divergent + ~is_finite), AscentInfo(value, ~is_finite)

    return Kernel(("ascent", rates), init, noise, move)


def _nothing(like: Latents) -> Latents:
    return {k: 0.0 * a for k, a in like.items()}
