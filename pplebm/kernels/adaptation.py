r"""Step size and diagonal metric of mala and hmc, adapted during warm-up."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pplebm.kernels.batch import log, zeros
from pplebm.kernels.dual_averaging import Averages, Shape, followed, middle, restarted
from pplebm.kernels.kernel import Info, Kernel, State, Target
from pplebm.kernels.metropolis import MetropolisState
from pplebm.ppl.language import PPL, Array, Latents, Tree

BASE_WINDOW = 25  # steps; windows are multiples of it, the names are Stan's
INIT_BUFFER, TERM_BUFFER = 75, 50  # steps of warm-up before and after the metric is learned, of a thousand or more


class Moments(NamedTuple):
    """Means and sums of squared deviations since the window began, per row, and steps that were accepted."""

    count: Array
    mean: Latents
    squares: Latents
    n_accepted: Array
    log_density: Array
    log_density_squares: Array


class AdaptingState(NamedTuple):
    """State of a kernel while it is adapted."""

    inner: State  # of the kernel that is adapted
    averages: Averages
    moments: Moments
    is_pooled: Array  # 1 once the chains of a datum share a step size; every chain finds its own before, 0

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


def placed(state: State, rows: Array) -> State:
    """The state with every row where another one is, all else its own.

    Args:
        rows: (B,) whose place each row takes.
    """
    at = {"z": {site: a[rows] for site, a in state.z.items()}}
    if hasattr(state, "inner"):
        return state._replace(inner=placed(state.inner, rows), **at)
    at["gradient"] = {site: a[rows] for site, a in state.gradient.items()}
    return state._replace(log_density=state.log_density[rows], **at)


def adapting(kernel: Kernel, shape: Shape) -> Kernel:
    r"""The same kernel while it learns its step size, in the first window one for each chain, then one for a datum.

    The acceptance of dual averaging is its mean over the chains of a datum. The moments of the latents are gathered
    beside it; `next_window` turns them into a metric.

    Source: Hoffman, Gelman (JMLR 2014), section 3.2; the windows are those of Stan's reference manual.
    """
    assert kernel.tuning is not None, kernel.settings
    start, target = kernel.tuning

    def init(ppl: PPL, z: Latents, log_density: Target) -> AdaptingState:
        return _new_window(ppl, kernel.init(ppl, z, log_density), zeros(z) + log(ppl, start), 0.0)

    def move(ppl: PPL, noise: Tree, state: AdaptingState, log_density: Target) -> tuple[AdaptingState, Info]:
        a = state.averages
        inner, info = kernel.move(ppl, noise, with_tuning(state.inner, ppl.exp(a.log_step)), log_density)
        of_datum = _over_chains(info.accept_prob, shape)
        averages = followed(a, ppl.where(state.is_pooled > 0.5, of_datum, info.accept_prob), target)
        return AdaptingState(inner, averages, _followed(state.moments, inner.z, info), state.is_pooled), info

    return replace(kernel, settings=("adapting", kernel.settings, shape), init=init, move=move)


def next_window(ppl: PPL, state: AdaptingState, shape: Shape, metric: bool) -> AdaptingState:
    """Begin a new window, with a new metric if wanted.

    Args:
        state: at the end of a window.
        shape: as in `adapting`.
        metric: set the scale to the standard deviations of the window, over draws and by the median over chains,
            shrunk towards 0.001 in variance as Stan does.
    """
    log_step, inner = middle(ppl, state.averages.log_step_mean, shape), state.inner
    if metric:
        inner = with_tuning(inner, tuned(inner).step_size, _scale(ppl, state.moments, shape))
    return _new_window(ppl, inner, log_step, 1.0)


def adapted(ppl: PPL, state: AdaptingState, shape: Shape) -> State:
    """State of the kernel itself, with the step size found."""
    return with_tuning(state.inner, ppl.exp(middle(ppl, state.averages.log_step_mean, shape)))


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


def _new_window(ppl: PPL, inner: State, log_step: Array, pooled: float) -> AdaptingState:
    empty = {k: 0.0 * z for k, z in inner.z.items()}
    zero = 0.0 * log_step
    moments = Moments(ppl.asarray(0.0), empty, dict(empty), zero, zero, zero)
    return AdaptingState(inner, restarted(log_step), moments, ppl.asarray(pooled))


def _followed(m: Moments, z: Latents, info: Info) -> Moments:
    """The moments after one more step."""
    count = m.count + 1.0
    off = {k: a - m.mean[k] for k, a in z.items()}
    mean = {k: m.mean[k] + o / count for k, o in off.items()}
    squares = {k: m.squares[k] + o * (z[k] - mean[k]) for k, o in off.items()}
    above = info.log_density - m.log_density
    value = m.log_density + above / count
    value_squares = m.log_density_squares + above * (info.log_density - value)
    return Moments(count, mean, squares, m.n_accepted + info.is_accepted, value, value_squares)


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
