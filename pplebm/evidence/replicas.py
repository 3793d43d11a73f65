r"""Replicas of chains at all strengths between base and target that swap places: thermodynamic integration."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from pplebm.evidence.annealing import VARIANCE, Pilot, Schedule, cut, sequential, steps
from pplebm.evidence.bridge import bridge
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.path import Particles, Path, Tuning
from pplebm.kernels.metric import Metric
from pplebm.ppl.language import Data, Params
from pplebm.program import Program
from pplebm.sampling.blocks import block_seed

N_CHAINS = 16  # tempering systems of a datum: independent, so that their spread is the error
WARM_UP = 30  # rounds of moves and swaps before the first that counts
BETWEEN = 0.06  # nats squared: a step of strength changes the log density by about this variance
LEAST_RUNGS, LEAST_DRAWS = 6, 320
LEAST_SWAPS = 0.05  # mean probability of a swap of neighbours
MOST_APART = 5.0  # standard errors between the two integrals of the same replicas
NEAR = 1e-3  # nats, beyond these


def thermodynamic_integration(
    program: Program,
    params: Params,
    data: Data | None,
    observed: bool,
    *,
    n_particles: int = 1600,
    tilted: bool = True,
    seed: int = 0,
    bar: tqdm | None = None,
) -> Evidence:
    r"""Log normalising constant relative to the base, by thermodynamic integration over replicas that swap places.

    .. math::
        \log Z = \int_0^1 E_\beta[U]\, d\beta \approx
        \sum_k \Delta_k \frac{E_k[U] + E_{k+1}[U]}{2} - \frac{\Delta_k^2}{12} (V_{k+1}[U] - V_k[U])

    A pilot chooses the strengths. Sixteen systems of replicas, one replica at every strength, move by adapted
    trajectories and swap neighbours; that at strength 0 is drawn anew. The error is the spread of the systems. The
    same replicas give the integral by bridges between neighbours: where the two differ, the strengths lie too far
    apart for a sum in the place of the integral, and the estimate is refused.

    Args:
        program, params, data, observed, tilted, seed, bar: as in `annealed_importance`.
        n_particles: draws at every strength, by 16 systems.

    Source: Friel, Hurn, Wyse (Statistics and Computing 2014), equation 15; Geyer (1991), for the swaps.
    """
    pilot = sequential(Path(program, params, data, observed, 2 * N_CHAINS, tilted), block_seed(seed, 0), bar=bar)
    n_steps = np.ceil(steps(pilot.schedule).max() * (VARIANCE / BETWEEN) ** 0.5)
    ladder = cut(pilot.schedule, max(LEAST_RUNGS - 1, int(n_steps)))
    path = Path(program, params, data, observed, N_CHAINS * len(ladder.strengths), tilted)
    start = path.at_flat(_on_rungs(pilot, ladder))
    base = Path(program, params, data, observed, N_CHAINS, tilted)
    potential, swaps = replicas(path, base, ladder, start, block_seed(seed, 1), -(-n_particles // N_CHAINS), bar)
    potential = np.where([not reason for reason in pilot.reasons], potential, 0.0)  # the others are refused in any case
    n_data = ladder.strengths.shape[1]
    by_system = integrals(potential, ladder.strengths)
    value, error = by_system.mean(0), by_system.std(0, ddof=1) / N_CHAINS**0.5
    bridges = np.array([_bridged(potential[..., i], ladder.strengths[:, i]) for i in range(n_data)])
    reasons = [_reason(*row) for row in zip(value, error, *bridges.T, swaps.min(0), strict=True)]
    if n_particles < LEAST_DRAWS:
        reasons = [reason or f"{n_particles} draws are few; take {LEAST_DRAWS} or more." for reason in reasons]
    ess = np.minimum(n_particles, 1.0 / np.maximum(error, 1e-12) ** 2)
    found = Evidence.of("thermodynamic integration", value, error, ess, np.nan, N_CHAINS - 1, reasons)
    return found.doubted(pilot.reasons)


def replicas(
    path: Path, base: Path, ladder: Schedule, start: Particles, seed: int, n_rounds: int, bar: tqdm | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Potentials of replicas, (rounds, strengths, systems, data), and mean swap probabilities, (strengths - 1, data).

    Args:
        path: with systems x strengths particles, strength by strength.
        base: the same with a particle for every system, from which the replicas at strength 0 are drawn.
        ladder: strengths from 0 to 1.
        start: where replicas begin.
        seed: of all random numbers.
        n_rounds: that count; those of warm-up come before.
        bar: of progress.
    """
    n_rungs, n_data = ladder.strengths.shape
    n = path.n // n_rungs
    strength = np.repeat(ladder.strengths, n, 0)
    tuning = _of_rungs(ladder, n)
    keys = path.ppl.split(path.ppl.key(seed), 2 * (WARM_UP + n_rounds))
    at, rng = start, np.random.default_rng(seed)
    kept, swapped = [], np.zeros((n_rungs - 1, n_data))
    for t in range(WARM_UP + n_rounds):
        at, _ = path.move(keys[2 * t], at, np.maximum(strength, 1e-30), tuning, 1)
        at = path.led_by(base.draw_base(keys[2 * t + 1]), at)
        if t >= WARM_UP:
            kept.append(at.potential.reshape(n_rungs, n, n_data))
        index, probability = _swaps(at.potential.reshape(n_rungs, n, n_data), ladder.strengths, t % 2, rng)
        swapped += probability if t >= WARM_UP else 0.0
        at = path.chosen(at, index)
        if bar is not None:
            bar.update()
    tries = np.bincount((np.arange(WARM_UP, WARM_UP + n_rounds) % 2), minlength=2)[np.arange(n_rungs - 1) % 2]
    return np.array(kept), swapped / np.maximum(tries, 1)[:, None]


def _on_rungs(pilot: Pilot, ladder: Schedule) -> np.ndarray:
    """Latents of the pilot's particles at the strengths nearest to the ladder's, (strengths x systems, data, d)."""
    nearest = np.abs(pilot.schedule.strengths[None] - ladder.strengths[:, None]).argmin(1)
    trail, data = np.array(pilot.trail), np.arange(nearest.shape[1])  # (steps, particles, data, d)
    found = trail[nearest, :, data][:, :, ::2]  # of copies that resampling made side by side, one of two
    return np.asarray(np.moveaxis(found, 2, 1).reshape(len(nearest) * N_CHAINS, *trail.shape[2:]))


def integrals(potential: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    r"""The corrected trapezoid of every system, (systems, data).

    >>> z = np.random.default_rng(0).normal(size=(4000, 5, 2, 1)) + np.linspace(0, 1, 5)[:, None, None]
    >>> found = integrals(z, np.linspace(0, 1, 5)[:, None])  # N(0, 1) tilted by z: log Z = 1/2
    >>> bool(abs(found - 0.5).max() < 0.03)
    True
    """
    step = np.diff(strengths, axis=0)[:, None]
    with np.errstate(invalid="ignore"):  # of a potential that is infinite at draws of the base
        mean, variance = potential.mean(0), potential.var(0, ddof=1)
        parts = 0.5 * step * (mean[1:] + mean[:-1]) - step**2 / 12.0 * (variance[1:] - variance[:-1])
    return np.asarray(parts.sum(0))


def _bridged(potential: np.ndarray, strengths: np.ndarray) -> tuple[float, float]:
    """The sum of bridges between neighbours, and its error; `potential` is (rounds, strengths, systems)."""
    found = [
        bridge(step * potential[:, k + 1], (step * potential[:, k]).reshape(-1))
        for k, step in enumerate(np.diff(strengths))
        if step > 0
    ]
    return sum(one.log_ratio for one in found), float(np.sqrt(sum(one.error**2 for one in found)))


def _swaps(
    potential: np.ndarray, strengths: np.ndarray, first: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which particle stands in every place after swaps of pairs, (n, data), and mean probabilities by pair."""
    n_rungs, n, n_data = potential.shape
    index = np.arange(n_rungs * n).reshape(n_rungs, n, 1) + np.zeros((1, 1, n_data), int)
    mean = np.zeros((n_rungs - 1, n_data))
    for k in range(first, n_rungs - 1, 2):
        with np.errstate(invalid="ignore", over="ignore"):
            ratio = (strengths[k + 1] - strengths[k]) * (potential[k] - potential[k + 1])
        probability = np.exp(np.minimum(np.nan_to_num(ratio, nan=-np.inf, posinf=0.0, neginf=-np.inf), 0.0))
        goes = rng.uniform(size=(n, n_data)) < probability
        low, high = index[k].copy(), index[k + 1].copy()
        index[k], index[k + 1] = np.where(goes, high, low), np.where(goes, low, high)
        mean[k] = probability.mean(0)
    return index.reshape(n_rungs * n, n_data), mean


def _of_rungs(ladder: Schedule, n: int) -> Tuning:
    """Settings of the kernel by particle and datum; those of strength 0 are not used."""
    tunings = [ladder.tunings[0], *ladder.tunings]
    repeated = lambda arrays: np.repeat(np.array(arrays), n, 0)
    metric = Metric(*(repeated([tuning.metric[i] for tuning in tunings]) for i in range(3)))
    return Tuning(repeated([tuning.step_size for tuning in tunings]), metric)


def _reason(value: float, error: float, bridged: float, bridged_error: float, swaps: float) -> str:
    if not np.isfinite(value):
        return "the potential is infinite at draws of the base, and so is its mean; anneal."
    if swaps < LEAST_SWAPS:
        return f"neighbouring replicas swap with probability {swaps:.3f}: they do not overlap; anneal."
    if not abs(value - bridged) < MOST_APART * np.hypot(error, bridged_error) + NEAR:
        return f"the integral differs by {abs(value - bridged):.2f} nats from bridges between its replicas; anneal."
    return ""
