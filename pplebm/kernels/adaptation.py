r"""Step size and diagonal metric of mala and hmc, adapted during warm-up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from pplebm.kernels.batch import zeros
from pplebm.kernels.kernel import Info, Kernel, State, Target
from pplebm.kernels.metropolis import MetropolisState
from pplebm.ppl.language import PPL, Array, Latents, Tree

SHRINKAGE, DECAY, DELAY = 0.05, 0.75, 10.0  # γ, κ, t0 of dual averaging, as Hoffman and Gelman chose them
BASE_WINDOW = 25  # steps; windows are multiples of it, the names are Stan's
INIT_BUFFER, TERM_BUFFER = 75, 50  # steps of warm-up before and after the metric is learned, of a thousand or more


class Averages(NamedTuple):
    """Dual averaging of the log step size, per row."""

    log_step: Array
    log_step_mean: Array
    error: Array  # running mean of target minus acceptance
    center: Array  # what the log step size is pulled to
    t: Array


class Moments(NamedTuple):
    """Mean and sum of squared deviations of the latents since the window began, per row."""

    count: Array
    mean: Latents
    squares: Latents


class AdaptingState(NamedTuple):
    """State of a kernel while it is adapted."""

    inner: State  # of the kernel that is adapted
    averages: Averages
    moments: Moments

    @property
    def z(self) -> Latents:
        """Latents of the kernel that is adapted."""
        z: Latents = self.inner.z
        return z


def tuned(state: State) -> MetropolisState:
    """The part of a state that holds step size and metric."""
    return state if isinstance(state, MetropolisState) else tuned(state.inner)


def with_tuning(state: State, step_size: Array, scale: Latents | None = None) -> State:
    """The state with another step size and, if given, metric."""
    if not isinstance(state, MetropolisState):
        return state._replace(inner=with_tuning(state.inner, step_size, scale))
    return state._replace(step_size=step_size, scale=state.scale if scale is None else scale)


Shape = tuple[int, int, int]  # replicas, chains, data; rows in this order


def adapting(kernel: Kernel, shape: Shape) -> Kernel:
    r"""The same kernel while it learns its step size, one for all chains of a datum.

    .. math::
        \bar h_t = \Big(1 - \tfrac{1}{t + t_0}\Big) \bar h_{t-1} + \tfrac{1}{t + t_0} (\delta - \alpha_t), \quad
        \log s_{t+1} = \mu - \tfrac{\sqrt t}{\gamma} \bar h_t

    with :math:`\alpha_t` the mean acceptance over the chains, and :math:`\log \bar s` the average of log s with weights
    :math:`t^{-\kappa}`. The moments of the latents are gathered beside it; `next_window` turns them into a metric.

    Source: Hoffman, Gelman (JMLR 2014), section 3.2; the windows are those of Stan's reference manual.
    """
    assert kernel.tuning is not None, kernel.settings
    start, target = kernel.tuning

    def init(ppl: PPL, z: Latents, log_density: Target) -> AdaptingState:
        return _new_window(ppl, kernel.init(ppl, z, log_density), zeros(z) + _log(ppl, start))

    def move(ppl: PPL, noise: Tree, state: AdaptingState, log_density: Target) -> tuple[AdaptingState, Info]:
        a, m = state.averages, state.moments
        inner, info = kernel.move(ppl, noise, with_tuning(state.inner, ppl.exp(a.log_step)), log_density)
        t = a.t + 1.0
        error = (1.0 - 1.0 / (t + DELAY)) * a.error + (target - _over_chains(info.accept_prob, shape)) / (t + DELAY)
        log_step = a.center - t**0.5 / SHRINKAGE * error
        weight = t**-DECAY
        averages = Averages(log_step, weight * log_step + (1.0 - weight) * a.log_step_mean, error, a.center, t)
        count = m.count + 1.0
        off = {k: z - m.mean[k] for k, z in inner.z.items()}
        mean = {k: m.mean[k] + o / count for k, o in off.items()}
        squares = {k: m.squares[k] + o * (inner.z[k] - mean[k]) for k, o in off.items()}
        return AdaptingState(inner, averages, Moments(count, mean, squares)), info

    return replace(kernel, settings=("adapting", kernel.settings, shape), init=init, move=move)


def next_window(ppl: PPL, state: AdaptingState, shape: Shape, metric: bool) -> AdaptingState:
    """Begin a new window, with a new metric if wanted.

    Args:
        state: at the end of a window.
        shape: as in `adapting`.
        metric: set the scale to the standard deviations of the window, over draws and by the median over chains,
            shrunk towards 0.001 in variance as Stan does.
    """
    log_step, inner = state.averages.log_step_mean, state.inner
    if metric:
        inner = with_tuning(inner, tuned(inner).step_size, _scale(ppl, state.moments, shape))
    return _new_window(ppl, inner, log_step)


def adapted(ppl: PPL, state: AdaptingState) -> State:
    """State of the kernel itself, with the step size found."""
    return with_tuning(state.inner, ppl.exp(state.averages.log_step_mean))


def windows(n_warmup: int) -> list[tuple[int, bool]]:
    """Lengths of the windows of a warm-up, and whether a metric is set at the end of each.

    >>> windows(1000)
    [(75, False), (25, True), (50, True), (100, True), (200, True), (500, True), (50, False)]
    >>> windows(100)
    [(25, False), (50, True), (25, False)]
    >>> windows(10)
    [(10, False)]
    """
    if n_warmup < 4 * BASE_WINDOW:
        return [(n_warmup, False)] if n_warmup else []
    short = n_warmup < 2 * (INIT_BUFFER + TERM_BUFFER)
    first, last = (
        (BASE_WINDOW, BASE_WINDOW + n_warmup % BASE_WINDOW)
        if short
        else (INIT_BUFFER, TERM_BUFFER + n_warmup % BASE_WINDOW)
    )
    left, length, found = n_warmup - first - last, BASE_WINDOW, [(first, False)]
    if short:
        return [*found, (left, True), (last, False)]
    while left >= 3 * length:
        found.append((length, True))
        left, length = left - length, 2 * length
    return [*found, (left, True), (last, False)]


def _log(ppl: PPL, step_size: Array) -> Array:
    """Its logarithm; of a traced number as that of a 1 x 1 determinant, for which backends have a name."""
    return math.log(step_size) if isinstance(step_size, float) else ppl.log_abs_det(step_size.reshape(1, 1))


def _new_window(ppl: PPL, inner: State, log_step: Array) -> AdaptingState:
    zero = 0.0 * log_step
    averages = Averages(log_step, log_step, zero, log_step + math.log(10.0), zero)
    empty = {k: 0.0 * z for k, z in inner.z.items()}
    return AdaptingState(inner, averages, Moments(ppl.asarray(0.0), empty, dict(empty)))


def _over_chains(per_row: Array, shape: Shape) -> Array:
    """Mean over the chains of a datum, for every row."""
    grid = per_row.reshape(shape)
    return (grid.mean(1)[:, None] + 0.0 * grid).reshape(-1)


def _scale(ppl: PPL, moments: Moments, shape: Shape) -> Latents:
    """Standard deviations around the middle chain, of the middle chain: a chain that is still under way has no say."""
    count, n = moments.count, moments.count * shape[1]
    found = {}
    for site, mean in moments.mean.items():
        means, squares = (a.reshape(*shape, *mean.shape[1:]) for a in (mean, moments.squares[site]))
        off = means - ppl.median(means, 1)[:, None]
        variance = ppl.median(squares / count + off**2, 1)[:, None] * n / (n - 1.0)
        variance = (n / (n + 5.0)) * variance + 1e-3 * (5.0 / (n + 5.0))
        found[site] = (variance**0.5 + 0.0 * means).reshape(mean.shape)
    return found
