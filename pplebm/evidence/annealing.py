r"""Particles that go from the base to a target by small steps of strength, and what they weigh at the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from tqdm import tqdm

from pplebm.evidence.path import Particles, Path, Tuning
from pplebm.kernels.fisher import fisher_metric
from pplebm.kernels.metric import Metric
from pplebm.ppl.language import Latents

KEPT = 0.9  # effective share of the particles that a step of strength leaves
VARIANCE = 1.0 / KEPT - 1.0  # of log weights that such a step adds, nats squared
MOST = 1000  # steps of strength that a pilot may take
MOST_FINE = 4000  # steps of a schedule that is cut finer
TARGET_ACCEPT, GAIN = 0.8, 2.0  # of the pilot's step size
FIRST_STEP = 0.5  # in units of the metric
RESAMPLED = 0.5  # effective share of the particles below which they are drawn anew


class Schedule(NamedTuple):
    """Strengths from 0 to 1 by datum, and how the kernel is set at each but the first."""

    strengths: np.ndarray  # (k + 1, data)
    tunings: list[Tuning]  # k


class Pilot(NamedTuple):
    """What sequential Monte Carlo finds on its way: a schedule, the target's constant, and particles of the target."""

    schedule: Schedule
    trail: list[np.ndarray]  # latents side by side at every strength of the schedule, (n, data, d) each
    reasons: tuple[str, ...]  # by datum, why nothing is known of its target; "" where it was reached
    log_constants: np.ndarray  # (groups, data), log Z of the target relative to the base, by group of particles
    particles: Particles


def sequential(path: Path, seed: int, n_groups: int = 1, n_steps: int = 2, bar: tqdm | None = None) -> Pilot:
    r"""Run sequential Monte Carlo with strengths, step sizes and metrics that the particles themselves choose.

    .. math:: \log \hat Z_g = \sum_t \log \sum_i W_{t-1, i}\, e^{(\beta_t - \beta_{t-1}) U(z_{t-1, i})}

    The next strength of a datum leaves nine tenths of its particles in effect; a group whose particles fall below a
    half of their number is drawn anew, by systematic resampling. Groups share what is chosen, and nothing else.

    Args:
        path: with the particles of all groups.
        seed: of all random numbers.
        n_groups: groups of equally many particles.
        n_steps: trajectories at every strength.
        bar: of progress, moved a step at every strength.

    A target without mass at any draw of the base, or that is not reached, spoils no other datum: its reason says so.

    Source: Del Moral, Doucet, Jasra (JRSS B 2006); Zhou, Johansen, Aston (JCGS 2016), for the choice of strengths.
    """
    k_base, key = path.ppl.split(path.ppl.key(seed))
    at, rng = path.draw_base(k_base), np.random.default_rng(seed)
    lost = ~np.isfinite(at.potential).any(0)
    log_weight, won = np.zeros((path.n, path.n_data)), np.zeros((n_groups, path.n_data))
    strengths, tunings, trail = [np.zeros(path.n_data)], list[Tuning](), [path.flat(at)]
    step_size, metric = np.full(path.n_data, FIRST_STEP), path.unit_metric()
    while (strengths[-1] < 1.0).any() and len(strengths) <= MOST:
        potential = np.where(lost, 0.0, at.potential)
        strength = next_strength(potential, log_weight, strengths[-1])
        log_weight = log_weight + _gain(strength - strengths[-1], potential)
        index, log_weight, more = _resampled(log_weight, n_groups, rng)
        at, won = path.chosen(at, index), won + more
        metric = _metric(path, at, log_weight, strength, metric)
        tunings.append(Tuning(step_size, metric))
        key, k_move = path.ppl.split(key)
        at, accept = path.move(k_move, at, strength, tunings[-1], n_steps)
        step_size = step_size * np.exp(np.clip(GAIN * (accept.mean(0) - TARGET_ACCEPT), -0.7, 0.7))
        strengths.append(strength)
        trail.append(path.flat(at))
        if bar is not None:
            bar.update()
    reasons = _reasons(lost, strengths[-1], path.n)
    strengths[-1] = np.ones(path.n_data)
    last = log_mean(log_weight.reshape(n_groups, -1, path.n_data), 1)
    return Pilot(Schedule(np.array(strengths), tunings), trail, reasons, won + last, at)


def importance_sampled(
    path: Path, seed: int, schedule: Schedule, bar: tqdm | None = None
) -> tuple[np.ndarray, Particles]:
    r"""Log weights of independent particles that are annealed from the base along a fixed schedule, (n, data).

    .. math:: \log w = \sum_t (\beta_t - \beta_{t-1})\, U(z_{t-1}), \qquad E\, w = Z

    Source: Neal (Statistics and Computing 2001).
    """
    k_base, key = path.ppl.split(path.ppl.key(seed))
    at = path.draw_base(k_base)
    log_weight = np.zeros((path.n, path.n_data))
    last = len(schedule.tunings)
    for t in range(1, last + 1):
        before, strength = schedule.strengths[t - 1 : t + 1]
        log_weight = log_weight + _gain(strength - before, at.potential)
        key, k_move = path.ppl.split(key)
        at, _ = path.move(k_move, at, strength, schedule.tunings[t - 1], 1)
        if bar is not None:
            bar.update()
    return log_weight, at


def reverse_sampled(path: Path, seed: int, schedule: Schedule, z: Latents, bar: tqdm | None = None) -> np.ndarray:
    r"""Log weights of draws of the target that are annealed back to the base, (n, data).

    .. math:: \log w = \sum_t (\beta_{t-1} - \beta_t)\, U(z_t), \qquad E\, w = 1 / Z

    so that the mean of -log w is at least log Z.

    Args:
        z: exact draws of the target in the coordinates of the path, (n * data, *event).

    Source: Grosse, Ghahramani, Adams (2015, arXiv:1511.02543), section 4.
    """
    at, key = path.at(z), path.ppl.key(seed)
    log_weight = np.zeros((path.n, path.n_data))
    for t in range(len(schedule.tunings), 0, -1):
        before, strength = schedule.strengths[t - 1 : t + 1]
        key, k_move = path.ppl.split(key)
        at, _ = path.move(k_move, at, strength, schedule.tunings[t - 1], 1)
        log_weight = log_weight - _gain(strength - before, at.potential)
        if bar is not None:
            bar.update()
    return log_weight


def refined(schedule: Schedule, variance: float) -> Schedule:
    r"""A schedule of smaller steps, by which the log weights of independent particles have about that variance.

    The variance of log w is that of the steps together; a step m times smaller adds :math:`1 / m^2` of it, and there
    are m times as many. There are never more than 4000: of data that are further away the weights vary more.

    Args:
        schedule: of a pilot.
        variance: of log w, nats squared, that is wanted.
    """
    most = steps(schedule).max()
    return cut(schedule, int(max(most, min(MOST_FINE, np.ceil(VARIANCE * most**2 / variance)))))


def steps(schedule: Schedule) -> np.ndarray:
    """Steps of every datum before its strength is 1."""
    return np.asarray((np.diff(schedule.strengths, axis=0) > 0).sum(0))


def cut(schedule: Schedule, n: int) -> Schedule:
    """The schedule in n steps; a datum that had fewer steps than others has its own cut more often."""
    strengths, needed = schedule.strengths, steps(schedule)
    place = np.linspace(0.0, 1.0, n + 1)[:, None] * needed
    low = np.minimum(np.floor(place).astype(int), needed - 1)
    ends = [np.take_along_axis(strengths, low + k, 0) for k in (0, 1)]
    fine = ends[0] + (place - low) * (ends[1] - ends[0])
    fine[-1] = 1.0
    of_pilot = np.minimum(np.ceil(place[1:] - 1e-9).astype(int), needed) - 1  # as at the end of a pilot's step
    data = np.arange(strengths.shape[1])
    pick = lambda arrays, rows: np.array(arrays)[rows, data]
    step_sizes = [tuning.step_size for tuning in schedule.tunings]
    metrics = [[tuning.metric[k] for tuning in schedule.tunings] for k in range(3)]
    tunings = [Tuning(pick(step_sizes, rows), Metric(*(pick(a, rows) for a in metrics))) for rows in of_pilot]
    return Schedule(fine, tunings)


def log_mean(log_weight: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of the mean of weights along an axis."""
    return np.asarray(logsumexp(log_weight, axis) - np.log(log_weight.shape[axis]))


def next_strength(potential: np.ndarray, log_weight: np.ndarray, strength: np.ndarray) -> np.ndarray:
    r"""Strength of every datum, (data,), that leaves nine tenths of its weighted particles in effect, or 1.

    .. math:: \frac{(\sum_i W_i v_i)^2}{\sum_i W_i v_i^2} = 0.9, \qquad v_i = e^{(\beta' - \beta) U_i}

    Particles where the target has no mass are lost at any step, and do not count.

    >>> u = np.random.default_rng(0).normal(size=(100_000, 1))  # log v is then N(0, b^2), and the share exp(-b^2)
    >>> next_strength(u, 0.0 * u, np.zeros(1)).round(2).tolist()
    [0.32]
    """
    there = np.isfinite(potential)
    u = np.where(there, potential, 0.0)
    log_w = np.where(there, log_weight, -np.inf)
    log_w = log_w - logsumexp(log_w, 0)

    def share(step: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.exp(2 * logsumexp(log_w + step * u, 0) - logsumexp(log_w + 2 * step * u, 0)))

    low, high = np.zeros_like(strength), 1.0 - strength
    whole = share(high) >= KEPT
    for _ in range(60):
        middle = 0.5 * (low + high)
        enough = share(middle) >= KEPT
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return np.where(whole | ~(strength < 1.0), 1.0, np.minimum(strength + np.maximum(low, 1e-12), 1.0))


def _gain(step: np.ndarray, potential: np.ndarray) -> np.ndarray:
    """What a step of strength, (data,), adds to log weights, also where there is no step and no mass."""
    with np.errstate(invalid="ignore"):
        return np.where(step > 0.0, step * potential, 0.0)


def _resampled(
    log_weight: np.ndarray, n_groups: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of few effective particles drawn anew.

    Returns:
        Which particle stands in every place, (n, data); log weights, 0 of those drawn anew; and the log of the mean
        weight of these groups, (groups, data), 0 of others.
    """
    by_group = log_weight.reshape(n_groups, -1, log_weight.shape[1]).copy()
    n = by_group.shape[1]
    index = np.tile(np.arange(len(log_weight))[:, None], (1, log_weight.shape[1])).reshape(by_group.shape)
    total, won = logsumexp(by_group, 1), np.zeros((n_groups, log_weight.shape[1]))
    share = np.exp(2 * total - logsumexp(2 * by_group, 1)) / n
    for group, datum in np.argwhere(share < RESAMPLED):
        edges = np.cumsum(np.exp(by_group[group, :, datum] - total[group, datum]))
        places = (np.arange(n) + rng.uniform()) / n * edges[-1]
        index[group, :, datum] = n * group + np.searchsorted(edges, places)
        won[group, datum] = total[group, datum] - np.log(n)
        by_group[group, :, datum] = 0.0
    return index.reshape(log_weight.shape), by_group.reshape(log_weight.shape), won


def _metric(path: Path, at: Particles, log_weight: np.ndarray, strength: np.ndarray, old: Metric) -> Metric:
    weight = np.exp(log_weight - logsumexp(log_weight, 0))
    counts = weight / (weight**2).sum(0)  # they sum to the effective number
    with np.errstate(invalid="ignore"):
        gradient = at.base_gradient + strength[:, None] * at.potential_gradient
    good = np.isfinite(gradient).all(2)
    return fisher_metric(path.flat(at), np.where(good[:, :, None], gradient, 0.0), counts * good, old)


def _reasons(lost: np.ndarray, strength: np.ndarray, n: int) -> tuple[str, ...]:
    """By datum, why its target was not reached."""
    none = f"tilts and likelihood have no mass at any of {n} draws of the base; check the datum."
    far = f"the target is too far from the base: {MOST} steps of strength came to {{:.2g}} of it."
    return tuple(
        none if is_lost else far.format(s) if s < 1.0 else "" for is_lost, s in zip(lost, strength, strict=True)
    )
