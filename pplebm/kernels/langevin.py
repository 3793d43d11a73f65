r"""Unadjusted Langevin: z ← z + ½ s² ∇log p(z) + s √T ξ, ξ ~ N(0, I).  `step_size` is s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import (
    Schedule,
    at_step,
    by_site,
    choose,
    lowest,
    of_site,
    schedule,
    within_limit,
    zeros,
)
from pplebm.kernels.kernel import Kernel, Target, normal_noise, value_and_gradient
from pplebm.ppl.language import PPL, Array, Latents


class LangevinState(NamedTuple):
    """State of a chain between steps."""

    z: Latents
    step: Array
    n_divergent: Array  # (B,) steps at which this datum's proposal was rejected as non-finite


class LangevinInfo(NamedTuple):
    """Figures of one step, (B,) each."""

    log_density: Array  # at the state the step started from
    is_divergent: Array


def from_h(h: float) -> float:
    """Step size s of the convention z + (h/2) ∇log p + √h ξ.

    >>> from_h(0.16)
    0.4
    """
    return math.sqrt(h)


def from_tau(tau: float) -> float:
    """Step size s of the convention z + τ ∇log p + √(2τ) ξ.

    >>> round(from_tau(0.08), 12)
    0.4
    """
    return math.sqrt(2.0 * tau)


def init(ppl: PPL, z: Latents, log_density: Target | None = None) -> LangevinState:
    """State at the start of a chain; the density is not needed yet."""
    return LangevinState(z, ppl.asarray(0), zeros(z))


def end_step(
    ppl: PPL, state: LangevinState, proposal: Latents, log_density: Array
) -> tuple[LangevinState, LangevinInfo]:
    """The state after every row has gone to its proposal, or stayed where that or its log density is not finite."""
    is_finite = within_limit(ppl, log_density, proposal)
    new = LangevinState(choose(ppl, is_finite, proposal, state.z), state.step + 1, state.n_divergent + ~is_finite)
    return new, LangevinInfo(log_density, ~is_finite)


def langevin(
    step_size: Schedule | Mapping[str, Schedule],
    temperature: Schedule = 1.0,
) -> Kernel:
    r"""Make an unadjusted Langevin kernel.

    .. math:: z' = z + \tfrac12 s^2 \nabla \log p(z) + s \sqrt{T}\, \xi

    Its stationary law differs from :math:`p^{1/T}` by a bias that grows with s: on N(0, 1/λ) the variance is
    :math:`\lambda^{-1} / (1 - s^2 \lambda / 4)`, and the chain diverges from :math:`s^2 \lambda = 4` on. T = 0 is
    gradient ascent. A datum whose proposal is not finite keeps its place and is counted; the others go on.

    Args:
        step_size: s > 0; a number, one number per step, or a dict of these by site.
        temperature: T >= 0; a number or one number per step.

    Raises:
        PplebmError: for a step size that is not positive, or a negative temperature.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = langevin(step_size=0.5, temperature=0.), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init(ppl, {"z": torch.tensor([4., -2.])}, log_density)
        >>> state, info = kernel(ppl, 0, state, log_density)
        >>> state.z["z"].tolist()
        [3.5, -1.75]
    """
    given: dict[str, Schedule] = by_site(step_size)
    sizes = {k: schedule(v, f"step_size of '{k}'" if k else "step_size") for k, v in given.items()}
    if not all(lowest(s) > 0 for s in sizes.values()):
        raise PplebmError(f"step_size must be positive, got {step_size}.")
    temperatures = schedule(temperature, "temperature")
    if lowest(temperatures) < 0:
        raise PplebmError(f"temperature must not be negative, got {temperature}.")

    def move(ppl: PPL, noise: Latents, state: LangevinState, log_density: Target) -> tuple[LangevinState, LangevinInfo]:
        value, gradient = value_and_gradient(ppl, log_density, state.z)
        root_temperature = at_step(ppl, temperatures, state.step) ** 0.5
        size = {site: at_step(ppl, of_site(sizes, site, "step_size"), state.step) for site in state.z}
        drift = {site: 0.5 * size[site] ** 2 * g for site, g in gradient.items()}
        proposal = {
            site: z + drift[site] + (size[site] * root_temperature) * noise[site] for site, z in state.z.items()
        }
        return end_step(ppl, state, proposal, value)

    return Kernel(("langevin", tuple(sorted(sizes.items())), temperatures), init, normal_noise, move)
