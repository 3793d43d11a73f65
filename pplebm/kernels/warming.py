r"""Warm-up of kernels that go along trajectories: step size per datum, and one length by the ChEES criterion."""

from __future__ import annotations

import math
from typing import NamedTuple

from pplebm.kernels.batch import log, zeros
from pplebm.kernels.dual_averaging import Averages, Shape, followed, over_chains, restarted, shared
from pplebm.kernels.kernel import Kernel, Target
from pplebm.kernels.metric import Metric, flat, relax
from pplebm.kernels.trajectory import (
    Leap,
    Trajectory,
    TrajectoryInfo,
    TrajectoryState,
    assembled,
    clipped,
    halton,
)
from pplebm.ppl.language import PPL, Array, Latents, Tree

RATE, RATE_DECAY = 0.1, 0.5  # of the log length; the rate of step t of a window is RATE * t ** -RATE_DECAY
LONGEST = math.log(4.0)  # of a length, as a multiple of its floor: the criterion of longer ones is all noise
LATER_FACTOR = 2.0  # times the step size of the last window is what that of the next is pulled to
MEMORY = 0.95  # of the running means of the criterion and of its derivative
COST = 0.25  # power of the length that the criterion is divided by


class Lengths(NamedTuple):
    """Ascent in the log of the longest trajectory's length, one number each."""

    log_length: Array
    log_length_mean: Array
    criterion: Array  # running mean
    derivative: Array  # of it in the log length, running mean
    floor: Array  # of the log length
    t: Array


class WarmingState(NamedTuple):
    """State of a kernel of trajectories during warm-up."""

    inner: TrajectoryState
    averages: Averages
    is_pooled: Array  # (B,) 1 of chains that share the step size of their datum, 0 of those that find their own
    center: Array  # (B, d) mean of the latents of the last window
    lengths: Lengths

    @property
    def z(self) -> Latents:
        """Latents of the kernel that is adapted."""
        return self.inner.z


class Seen(NamedTuple):
    """What warm-up keeps of a step: places and gradients, (B, d), and figures, (B,)."""

    z: Array
    gradient: Array
    log_density: Array
    is_accepted: Array
    num_steps: Array


def warming(kernel: Kernel, shape: Shape) -> Kernel:
    r"""The same kernel while it learns its step size and length; the metric is learned between windows.

    .. math::
        C(T) = E\big[\tfrac14 \alpha\, (\|u'\|^2 - \|u\|^2)^2\big], \qquad
        \frac{\partial C}{\partial \log T} = E\big[\alpha\, h T\, (\|u'\|^2 - \|u\|^2)\, u' \cdot v'\big]

    with u the latents in coordinates of the metric around their mean, u' and v' place and velocity at the end of the
    trajectory, :math:`\alpha` its acceptance probability and h the Halton number. The change in squared distance, C, is
    large where trajectories neither stop early nor turn back. T climbs :math:`\log C - \tfrac14 \log T`: C alone is
    flat beyond its first maximum, where few chains would drift to ever longer trajectories. The means are over all
    rows: trajectories of all data are equally long in units of their own metric.

    Source: Hoffman, Radul, Sountsov (AISTATS 2021), equation 10 and algorithm 1; the cost: Sountsov, Hoffman (2021,
    arXiv:2110.11576), section 3.
    """
    assert kernel.tuning is not None and kernel.trajectory is not None, kernel.settings
    parts: Trajectory = kernel.trajectory
    start, target = kernel.tuning

    def init(ppl: PPL, z: Latents, log_density: Target) -> WarmingState:
        inner, number = kernel.init(ppl, z, log_density), ppl.asarray(0.0)
        lengths = Lengths(number, number, number, number, number, number)
        return WarmingState(inner, restarted(zeros(z) + log(ppl, start)), zeros(z), 0.0 * flat(ppl, z), lengths)

    def tuned(ppl: PPL, state: WarmingState) -> TrajectoryState:
        length = ppl.where(state.is_pooled > 0.5, ppl.exp(state.lengths.log_length), 0.0 * state.is_pooled)
        return state.inner._replace(step_size=ppl.exp(state.averages.log_step), length=length)

    def begin(ppl: PPL, noise: Tree, state: WarmingState) -> Leap:
        leap: Leap = parts.begin(ppl, noise, tuned(ppl, state))
        return leap

    def end(ppl: PPL, noise: Tree, state: WarmingState, at: Leap) -> tuple[WarmingState, Seen]:
        before = tuned(ppl, state)
        inner, info = parts.end(ppl, noise, before, at)
        pooled = state.is_pooled > 0.5
        together = over_chains(ppl, info.accept_prob, state.is_pooled, shape)
        averages = followed(state.averages, ppl.where(pooled, together, info.accept_prob), target)
        new = state._replace(
            inner=inner._replace(length=state.inner.length),
            averages=averages,
            lengths=_followed(ppl, state.lengths, _criterion(ppl, state, before, info)),
        )
        place, slope = flat(ppl, inner.z), flat(ppl, inner.gradient)
        return new, Seen(place, slope, info.log_density, info.is_accepted, info.num_steps)

    changed = parts._replace(begin=begin, end=end)
    return assembled(("warming", kernel.settings, shape), init, kernel.noise, changed, kernel.tuning)


def next_window(
    ppl: PPL, state: WarmingState, metric: Metric, center: Array, log_floor: Array, is_pooled: Array, shape: Shape,
    start: float | None,
) -> WarmingState:  # fmt: skip
    """The state at the start of a window with a new metric.

    Args:
        state: at the end of the last window.
        metric: new, with a row for every row.
        center: (B, d) mean of the latents.
        log_floor: logarithm of the least length of the longest trajectory.
        is_pooled: (B,) 1 of the chains that are to share a step size, 0 of those that find their own.
        shape: replicas, chains and data.
        start: step size, if this is the first metric.
    """
    old, zero = state.lengths, 0.0 * log_floor
    log_step = shared(ppl, state.averages.log_step_mean, state.is_pooled, shape)
    log_step = log_step if start is None else 0.0 * log_step + math.log(start)
    log_length = log_floor if start is not None else ppl.where(old.log_length > log_floor, old.log_length, log_floor)
    log_length = ppl.where(log_length < log_floor + LONGEST, log_length, log_floor + LONGEST)
    lengths = Lengths(log_length, log_length, zero, zero, log_floor, zero)
    inner = state.inner._replace(metric=metric)
    return WarmingState(inner, restarted(log_step, LATER_FACTOR), is_pooled, center, lengths)


def warmed(ppl: PPL, state: WarmingState, shape: Shape) -> TrajectoryState:
    """State of the kernel itself, with step size and length found."""
    step = ppl.exp(shared(ppl, state.averages.log_step_mean, state.is_pooled, shape))
    found = ppl.exp(state.lengths.log_length_mean)
    length = ppl.where(state.is_pooled.max() > 0.5, found, 0.0 * found)
    return state.inner._replace(step_size=step, length=length + 0.0 * step)


def _criterion(ppl: PPL, state: WarmingState, before: TrajectoryState, info: TrajectoryInfo) -> tuple[Array, Array]:
    """The ChEES criterion and its derivative in log T; rows without a finite trajectory are left out."""
    u = relax(before.metric, flat(ppl, before.z) - state.center)
    v = relax(before.metric, flat(ppl, info.proposal) - state.center)
    change = (v**2).sum(1) - (u**2).sum(1)
    slope = halton(ppl, before.step) * before.length * change * (v * info.velocity).sum(1)
    is_good = ppl.isfinite(slope) & ~info.is_divergent
    weight = state.is_pooled * ppl.where(is_good, info.accept_prob, 0.0 * info.accept_prob)
    total = weight.sum() + 1e-6
    found = [(weight * ppl.where(is_good, a, 0.0 * weight)).sum() / total for a in (0.25 * change**2, slope)]
    return found[0], found[1]


def _followed(ppl: PPL, a: Lengths, now: tuple[Array, Array]) -> Lengths:
    """A step uphill, between the floor and a multiple of it."""
    t = a.t + 1.0
    criterion = MEMORY * a.criterion + (1.0 - MEMORY) * now[0]
    derivative = MEMORY * a.derivative + (1.0 - MEMORY) * now[1]
    rise = clipped(ppl, derivative / (criterion + 1e-30) - COST, -1.0, 1.0)
    log_length = a.log_length + RATE * t**-RATE_DECAY * rise
    log_length = ppl.where(log_length > a.floor, log_length, a.floor)
    log_length = ppl.where(log_length < a.floor + LONGEST, log_length, a.floor + LONGEST)
    weight = t**-0.75
    average = weight * log_length + (1.0 - weight) * a.log_length_mean
    return Lengths(log_length, average, criterion, derivative, a.floor, t)
