r"""Unadjusted Langevin: z ← z + ½ s² ∇log p(z) + s √T ξ, ξ ~ N(0, I).  `step_size` is s."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import (
    LIMIT,
    Schedule,
    by_site,
    choose,
    lowest,
    of_site,
    plain,
    schedule,
    spread,
    squares,
    zeros,
)  # fmt: skip
from pplebm.kernels.kernel import Kernel, LogDensity, value_and_gradient
from pplebm.ppl.language import Array, Latents


class LangevinState(NamedTuple):
    """What the next step needs."""

    z: Latents
    step: Any
    n_divergent: Array  # (B,) steps at which this datum's proposal was rejected as non-finite


class LangevinInfo(NamedTuple):
    """What a person wants to see of one step."""

    log_density: Array  # (B,) at the state the step started from
    is_divergent: Array  # (B,)
    is_tamed: Array  # (B,) the drift was shortened to max_drift


def from_h(h: float) -> float:
    """Step size s of the convention z + (h/2) ∇log p + √h ξ.

    >>> from_h(0.16)
    0.4
    """
    return h**0.5


def from_tau(tau: float) -> float:
    """Step size s of the convention z + τ ∇log p + √(2τ) ξ.

    >>> round(from_tau(0.08), 12)
    0.4
    """
    return (2.0 * tau) ** 0.5


def init(ppl: Any, z: Latents, log_density: Any = None) -> LangevinState:
    """State at the start of a chain; the density is not needed yet."""
    return LangevinState(z, ppl.asarray(0), zeros(z))


def langevin(
    ppl: Any,
    step_size: Schedule | Mapping[str, Schedule],
    temperature: Schedule = 1.0,
    max_drift: float | None = None,
) -> Kernel:
    r"""Make an unadjusted Langevin kernel.

    .. math:: z' = z + \tfrac12 s^2 \nabla \log p(z) + s \sqrt{T}\, \xi

    Its stationary law differs from :math:`p^{1/T}` by a bias that grows with s: on N(0, 1/λ) the variance is
    :math:`\lambda^{-1} / (1 - s^2 \lambda / 4)`, and the chain diverges from :math:`s^2 \lambda = 4` on. T = 0 is
    gradient ascent. A datum whose proposal is not finite keeps its place and is counted; the others go on.

    Args:
        ppl: the backend.
        step_size: s > 0; a number, one number per step, or a dict of these by site.
        temperature: T >= 0; a number or one number per step.
        max_drift: greatest length of a datum's drift ½ s² ∇log p over all its sites; longer ones are shortened to
            it, which keeps chains in steep places from exploding and biases them only there ("taming", after
            Brosse, Durmus, Moulines, Sabanis, SPA 2019). None: no limit.

    Raises:
        PplebmError: for a step size or max_drift that is not positive, or a negative temperature.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel = langevin(ppl, step_size=0.5, temperature=0.)
        >>> state = init(ppl, {"z": torch.tensor([4., -2.])})
        >>> state, info = kernel(0, state, lambda z: -0.5 * z["z"] ** 2)
        >>> state.z["z"].tolist()
        [3.5, -1.75]
    """
    sizes = {k: schedule(ppl, v, f"step_size of '{k}'") for k, v in by_site(step_size).items()}
    if not all(lowest(s) > 0 for s in sizes.values()):
        raise PplebmError(f"step_size must be positive, got {step_size}.")
    heat = schedule(ppl, temperature, "temperature")
    if max_drift is not None and not max_drift > 0:
        raise PplebmError(f"max_drift must be positive or None, got {max_drift}.")
    if lowest(heat) < 0:
        raise PplebmError(f"temperature must not be negative, got {temperature}.")

    def move(noise: Latents, state: LangevinState, log_density: LogDensity) -> tuple[LangevinState, LangevinInfo]:
        value, gradient = value_and_gradient(ppl, log_density, state.z)
        root_heat = ppl.take(heat, state.step) ** 0.5
        size = {site: ppl.take(of_site(sizes, site, "step_size"), state.step) for site in state.z}
        drift = {site: 0.5 * size[site] ** 2 * g for site, g in gradient.items()}
        if max_drift is None:
            tamed = value != value
        else:
            tamed, drift = _tame(ppl, drift, max_drift)
        proposal = {site: z + drift[site] + (size[site] * root_heat) * noise[site] for site, z in state.z.items()}
        fine = ppl.isfinite(value) & (squares(proposal) < LIMIT**2)  # false for nan as well
        new = LangevinState(choose(ppl, fine, proposal, state.z), state.step + 1, state.n_divergent + ~fine)
        return new, LangevinInfo(value, ~fine, tamed)

    settings = ("langevin", tuple(sorted((k, plain(v)) for k, v in sizes.items())), plain(heat), max_drift)
    return Kernel(settings, partial(init, ppl), ppl.normal_like, move)


def _tame(ppl: Any, drift: Latents, max_drift: float) -> tuple[Array, Latents]:
    """Which data's drifts are too long, (B,), and all drifts with these shortened."""
    length = squares(drift) ** 0.5
    tamed = length > max_drift
    shrink = ppl.where(tamed, max_drift / length, 1.0 + 0.0 * length)
    return tamed, {site: spread(shrink, d) * d for site, d in drift.items()}
