r"""Underdamped Langevin: position and momentum, with friction, unadjusted."""

from __future__ import annotations

import math
from typing import NamedTuple

from pplebm.kernels.batch import Schedule, at_step, choose, lowest, positive, schedule, squares, within_limit, zeros
from pplebm.kernels.kernel import Kernel, Target, normal_noise, value_and_gradient
from pplebm.ppl.language import PPL, Array, Latents


class UnderdampedState(NamedTuple):
    """State of a chain between steps."""

    z: Latents
    momentum: Latents
    gradient: Latents  # at z
    step: Array
    n_divergent: Array  # (B,)


class UnderdampedInfo(NamedTuple):
    """Figures of one step, (B,) each."""

    log_density: Array  # at the state after the step; 0 for a score
    is_divergent: Array
    energy: Array  # -log density plus the kinetic energy


def underdamped(step_size: float = 0.3, friction: float = 1.0, temperature: Schedule = 1.0) -> Kernel:
    r"""Make an underdamped Langevin kernel in the splitting BAOAB, one gradient per step.

    .. math::
        dz = p\,dt, \qquad dp = \nabla \log p(z)\,dt - \gamma p\,dt + \sqrt{2 \gamma T}\,dW

    by half a kick, half a drift, :math:`p \leftarrow e^{-\gamma h} p + \sqrt{(1 - e^{-2 \gamma h}) T}\, \xi`, half a
    drift, half a kick, with h the `step_size`. It is unadjusted: the law of z differs from :math:`p^{1/T}` by a bias
    of order h², which vanishes for Gaussian targets, and it is stable on N(0, 1/λ) for h²λ < 4. Chains start at rest.

    Args:
        step_size: h > 0. The same number takes longer steps than in `langevin`.
        friction: γ >= 0; small for long straight paths, large for `langevin`-like ones.
        temperature: T >= 0; a number or one number per step.

    Raises:
        PplebmError: for settings outside their range.

    Source: Leimkuhler, Matthews (Applied Mathematics Research eXpress 2013), method BAOAB.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = underdamped(0.5), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)
        >>> for key in range(20):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.8 < state.z["z"].var() < 1.2
        tensor(True)
    """
    h, gamma = positive("step_size", step_size), positive("friction", friction, zero=True)
    temperatures = schedule(temperature, "temperature")
    positive("temperature", lowest(temperatures), zero=True)
    friction_of_step = gamma * h

    def init(ppl: PPL, z: Latents, log_density: Target) -> UnderdampedState:
        gradient = value_and_gradient(ppl, log_density, z)[1]
        return UnderdampedState(z, {k: 0.0 * a for k, a in z.items()}, gradient, ppl.asarray(0), zeros(z))

    def move(
        ppl: PPL, noise: Latents, state: UnderdampedState, log_density: Target
    ) -> tuple[UnderdampedState, UnderdampedInfo]:
        root_temperature = at_step(ppl, temperatures, state.step) ** 0.5
        keep, renew = _shares(ppl, friction_of_step)
        p = {k: a + 0.5 * h * state.gradient[k] for k, a in state.momentum.items()}
        z = {k: a + 0.5 * h * p[k] for k, a in state.z.items()}
        p = {k: keep * a + renew * root_temperature * noise[k] for k, a in p.items()}
        z = {k: a + 0.5 * h * p[k] for k, a in z.items()}
        value, gradient = value_and_gradient(ppl, log_density, z)
        p = {k: a + 0.5 * h * gradient[k] for k, a in p.items()}
        is_finite = within_limit(ppl, value, z, p)
        at_rest = {k: 0.0 * a for k, a in state.z.items()}
        new = UnderdampedState(
            choose(ppl, is_finite, z, state.z),
            choose(ppl, is_finite, p, at_rest),  # a chain that exploded goes on from where it was, at rest
            choose(ppl, is_finite, gradient, state.gradient),
            state.step + 1,
            state.n_divergent + ~is_finite,
        )
        return new, UnderdampedInfo(value, ~is_finite, 0.5 * squares(new.momentum) - value)

    return Kernel(("underdamped", h, gamma, temperatures), init, normal_noise, move)


def _shares(ppl: PPL, friction: Array) -> tuple[Array, Array]:
    """Factors of the old momentum and of the noise in the new one, for the friction times the length of a step."""
    if isinstance(friction, float):
        return math.exp(-friction), math.sqrt(-math.expm1(-2.0 * friction))
    keep = ppl.exp(-friction)
    return keep, (1.0 - keep**2) ** 0.5
