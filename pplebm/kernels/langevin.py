r"""Unadjusted Langevin: z ← z + ½ s² ∇log p(z) + s √T ξ, ξ ~ N(0, I).  `step_size` is s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.kernel import Kernel, LogDensity
from pplebm.ppl import Array, Latents

Schedule = float | Sequence[float]
LIMIT = 1e6  # latents further from the origin than this have diverged, whatever the density says


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


def init(ppl: Any, z: Latents) -> LangevinState:
    """State at the start of a chain."""
    first = next(iter(z.values()))
    zeros = (first.reshape(len(first), -1) * 0.0).sum(1)
    return LangevinState(z, ppl.asarray(0), zeros)


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
    sizes = {k: _schedule(ppl, v, f"step_size of '{k}'") for k, v in _by_site(step_size).items()}
    if not all(_lowest(s) > 0 for s in sizes.values()):
        raise PplebmError(f"step_size must be positive, got {step_size}.")
    heat = _schedule(ppl, temperature, "temperature")
    if max_drift is not None and not max_drift > 0:
        raise PplebmError(f"max_drift must be positive or None, got {max_drift}.")
    if _lowest(heat) < 0:
        raise PplebmError(f"temperature must not be negative, got {temperature}.")

    def move(noise: Latents, state: LangevinState, log_density: LogDensity) -> tuple[LangevinState, LangevinInfo]:
        value, gradient = ppl.value_and_grad(log_density, state.z)
        root_heat = ppl.take(heat, state.step) ** 0.5
        size = {site: ppl.take(_of_site(sizes, site), state.step) for site in state.z}
        drift = {site: 0.5 * size[site] ** 2 * g for site, g in gradient.items()}
        if max_drift is None:
            tamed = value != value
        else:
            tamed, drift = _tame(ppl, drift, max_drift)
        proposal = {site: z + drift[site] + (size[site] * root_heat) * noise[site] for site, z in state.z.items()}
        fine = ppl.isfinite(value) & (_squares(proposal) < LIMIT**2)  # false for nan as well
        z = {k: ppl.where(_spread(fine, p), p, state.z[k]) for k, p in proposal.items()}
        new = LangevinState(z, state.step + 1, state.n_divergent + ~fine)
        return new, LangevinInfo(value, ~fine, tamed)

    settings = ("langevin", tuple(sorted((k, _plain(v)) for k, v in sizes.items())), _plain(heat), max_drift)
    return Kernel(settings, lambda z: init(ppl, z), ppl.normal_like, move)


def _squares(tree: Latents) -> Array:
    """Squared length of each datum's latents over all sites, (B,)."""
    parts = [a.reshape(len(a), -1) for a in tree.values()]
    return sum((p * p).sum(1) for p in parts[1:]) + (parts[0] * parts[0]).sum(1)


def _spread(per_datum: Array, like: Array) -> Array:
    """(B,) to (B, 1, ..., 1) as `like` needs it."""
    return per_datum.reshape(-1, *[1] * (like.ndim - 1))


def _tame(ppl: Any, drift: Latents, max_drift: float) -> tuple[Array, Latents]:
    """Which data's drifts are too long, (B,), and all drifts with these shortened."""
    length = _squares(drift) ** 0.5
    tamed = length > max_drift
    shrink = ppl.where(tamed, max_drift / length, 1.0 + 0.0 * length)
    return tamed, {site: _spread(shrink, d) * d for site, d in drift.items()}


def _of_site(sizes: dict[str, Any], site: str) -> Any:
    if site not in sizes and "" not in sizes:
        raise PplebmError(f"step_size lacks site '{site}'; got sizes for {', '.join(sizes)}.")
    return sizes.get(site, sizes.get(""))


def _by_site(step_size: Any) -> dict[str, Any]:
    return dict(step_size) if isinstance(step_size, Mapping) else {"": step_size}


def _schedule(ppl: Any, schedule: Any, what: str) -> Any:
    if isinstance(schedule, (int, float)):
        return float(schedule)
    try:
        numbers = [float(s) for s in schedule]
    except (TypeError, ValueError):
        numbers = []
    if not numbers:
        raise PplebmError(f"{what} must be a number or a sequence of numbers, one per step; got {schedule!r}.")
    return ppl.asarray(numbers)


def _plain(schedule: Any) -> tuple[float, ...]:
    return (schedule,) if isinstance(schedule, float) else tuple(float(s) for s in schedule)


def _lowest(schedule: Any) -> float:
    return schedule if isinstance(schedule, float) else float(min(schedule))
