"""What happens between the windows of a warm-up: a new metric for trajectories, and chains that never moved."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from pplebm.kernels.adaptation import AdaptingState, placed
from pplebm.kernels.dual_averaging import Shape
from pplebm.kernels.fisher import fisher_metric, widest
from pplebm.kernels.metric import Metric
from pplebm.kernels.trajectory import TrajectoryState
from pplebm.kernels.warming import Seen, WarmingState, next_window
from pplebm.ppl.language import PPL, Array, Latents
from pplebm.program import Program

MOST_NUMBERS = 20_000_000  # in the draws and gradients that a window keeps
WIDEST = 10.0  # standard deviations in units of the metric that the length's floor takes seriously
LAG = 5.0  # standard deviations of a log density, and two nats, by which a chain lags that does not count
LOST, LOST_PER_LATENT = 10.0, 2.0  # nats beyond these by which a chain lags that is moved: no mode there has any mass
MOVES = 0.2  # part of the steps that a chain accepts which others are measured by

CUTS = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.45, 0.65, 0.9)  # ends of windows, as parts of a warm-up
LEAST_WARMUP = 20  # steps; shorter ones learn step sizes alone


def warmup_windows(n_warmup: int) -> list[tuple[int, bool]]:
    """Lengths of the windows of a warm-up along trajectories, and whether a metric is set at the end of each.

    Early windows are short: gradients tell the shape of a target long before the draws do.

    >>> warmup_windows(1000)[:4], warmup_windows(1000)[-2:], sum(n for n, _ in warmup_windows(1000))
    ([(25, True), (25, True), (25, True), (25, True)], [(250, True), (100, False)], 1000)
    >>> warmup_windows(10)
    [(10, False)]
    """
    if n_warmup < LEAST_WARMUP:
        return [(n_warmup, False)] if n_warmup else []
    unit = max(5, n_warmup // 40)
    ends = sorted({max(1, round(cut * n_warmup / unit)) * unit for cut in CUTS} - {n_warmup})
    lengths = np.diff([0, *[end for end in ends if end < n_warmup], n_warmup])
    return [(int(n), i + 1 < len(lengths)) for i, n in enumerate(lengths)]


def first_scale(ppl: PPL, state: WarmingState, shape: Shape) -> WarmingState:
    """The state with a first diagonal from the places where chains start, and the gradients there."""
    inner = state.inner
    z, gradient = (_by_datum(_flat(ppl, tree), shape) for tree in (inner.z, inner.gradient))
    old = _of_data(ppl, inner.metric, shape)
    if len(z) < 2:
        return state
    found = fisher_metric(z, gradient, np.ones(z.shape[:2]), old._replace(directions=old.directions[:, :, :0],
                                                                         factors=old.factors[:, :0]))  # fmt: skip
    scale = np.clip(found.scale, 1e-4, 1e4)
    return state._replace(inner=inner._replace(metric=_of_rows(ppl, old._replace(scale=scale), inner, shape)))


class Gathering(NamedTuple):
    """State of a warm-up along trajectories, and what its window has shown so far."""

    inner: WarmingState
    seen: dict[str, Array]  # (steps, rows, ...) by field of Seen

    @property
    def z(self) -> Latents:
        """Latents of the kernel that is adapted."""
        return self.inner.z


def empty(ppl: PPL, state: WarmingState) -> dict[str, Array]:
    """What a window has shown before its first step."""
    rows, width = state.center.shape
    dtype = ppl.to_numpy(state.inner.log_density[:1]).dtype
    value, place = (ppl.asarray(np.zeros(shape, dtype), keep=True) for shape in ((0, rows), (0, rows, width)))
    return {"z": place, "gradient": place, "log_density": value, "is_accepted": value}


def gathered(ppl: PPL, state: Gathering, seen: Seen, work: int) -> Gathering:
    """The state with what a block of steps has shown: every step of it, or fewer where memory would not do.

    Args:
        work: rows times steps of all of warm-up.
    """
    every = max(1, min(work * state.inner.center.shape[1] // MOST_NUMBERS, seen.num_steps.shape[0]))
    new = {name: ppl.to_numpy(getattr(seen, name)) for name in state.seen}
    accepted = new["is_accepted"].astype(new["log_density"].dtype)
    new["is_accepted"] = accepted if every == 1 else 0.0 * accepted + accepted.mean(0)  # of steps that are left out too
    old = {name: ppl.to_numpy(a) for name, a in state.seen.items()}
    kept = {name: np.concatenate([old[name], a[every - 1 :: every]]) for name, a in new.items()}
    return state._replace(seen={name: ppl.asarray(a, keep=True) for name, a in kept.items()})


def end_of_window(
    program: Program, gathering: Gathering, shape: Shape, start: float, redraws: bool, seed: int
) -> tuple[WarmingState, int]:
    """The state with the metric that a window asks for, and how many chains were moved to where another one is.

    A chain that accepted nothing in the window, or whose log density lags behind that of the best chain of its datum,
    does not count for the metric. With `redraws`, one that accepted nothing, or that lags by so many nats that its mode
    can have no mass beside the other, is put where another chain of its datum is.

    Args:
        program: whose chains these are.
        gathering: at the end of the window.
        shape: replicas, chains and data.
        start: step size to begin with where this is the first metric.
        redraws: whether there is warm-up left for chains to part again.
        seed: of the choice of the other chain.
    """
    ppl, state = program.ppl, gathering.inner
    seen = {name: ppl.to_numpy(a) for name, a in gathering.seen.items()}
    z, gradient = (_by_datum(seen[name], shape) for name in ("z", "gradient"))
    moved = (seen["is_accepted"] > 0.0).any(0).reshape(shape[1:])
    moves = seen["is_accepted"].mean(0).reshape(shape[1:]) >= MOVES
    value = seen["log_density"].reshape(-1, *shape[1:])
    typical = np.median(np.nan_to_num(value, nan=-np.inf), 0)
    behind, spread = _behind(typical, np.nan_to_num(value).std(0), moves)
    counts = moved & (behind <= LAG * spread)
    is_first = not bool(ppl.to_numpy(state.is_pooled).any())
    is_lost = ~moved | (behind > LAG * spread + LOST + LOST_PER_LATENT * z.shape[2])
    weight = np.tile(counts, (len(seen["z"]), 1))
    weight = weight * np.isfinite(gradient).all(2) * np.isfinite(z).all(2)
    z, gradient = np.nan_to_num(z), np.nan_to_num(gradient)
    metric = fisher_metric(z, gradient, weight, _of_data(ppl, state.inner.metric, shape))
    center = (weight[:, :, None] * z).sum(0) / np.maximum(weight.sum(0), 1)[:, None]
    floor = 0.5 * math.pi * float(np.clip(np.median(widest(z, weight, metric)), 1.0, WIDEST))
    inner = state.inner
    rows = np.tile(center, (shape[1], 1))
    is_pooled = _like(ppl, (counts | (~counts.any(0)) | (is_lost if redraws else False)).reshape(-1), inner)
    begun = partial(next_window, ppl, shape=shape, start=start if is_first else None)
    state = program.compiled(("next window", begun.keywords["start"], shape), begun)(
        state, _of_rows(ppl, metric, inner, shape), _like(ppl, rows, inner), ppl.asarray(math.log(floor)), is_pooled
    )
    return _redrawn(ppl, state, is_lost, counts, seed) if redraws else (state, 0)


def moved_on(ppl: PPL, state: AdaptingState, shape: Shape, seed: int) -> tuple[AdaptingState, int]:
    """The state at the end of a window of mala or hmc, and how many chains were moved to where another one is.

    Moved is a chain that accepted nothing in the window, or that lags as those do that `end_of_window` moves. The step
    size of a datum is adapted to the mean of its chains' acceptance, which does not see one whose place is too steep.

    Args:
        state: with the moments of the window.
        shape: replicas, chains and data.
        seed: of the choice of the other chain.
    """
    m = state.moments
    count, width = float(m.count), sum(int(np.prod(a.shape[1:])) for a in state.z.values())
    if count < LEAST_WARMUP:
        return state, 0
    of_window = (ppl.to_numpy(a).reshape(shape) for a in (m.n_accepted, m.log_density, m.log_density_squares))
    accepted, value, squares = (np.swapaxes(a, 0, 1).reshape(shape[1], -1) for a in of_window)  # replicas are as data
    accepted = accepted / count
    behind, spread = _behind(value, (squares / count) ** 0.5, accepted >= MOVES)
    is_lost = (accepted == 0.0) | (behind > LAG * spread + LOST + LOST_PER_LATENT * width)
    counts = (accepted > 0.0) & (behind <= LAG * spread)
    chain = _others(is_lost, counts, seed).reshape(shape[1], shape[0], shape[2])
    rows = np.arange(math.prod(shape)).reshape(shape)
    index = np.take_along_axis(rows, np.swapaxes(chain, 0, 1), 1).reshape(-1)
    n = int((index != np.arange(len(index))).sum())
    return (state._replace(inner=placed(state.inner, ppl.asarray(index))) if n else state), n


def _redrawn(
    ppl: PPL, state: WarmingState, is_lost: np.ndarray, counts: np.ndarray, seed: int
) -> tuple[WarmingState, int]:
    index = (_others(is_lost, counts, seed) * is_lost.shape[1] + np.arange(is_lost.shape[1])).reshape(-1)
    n = int((index != np.arange(is_lost.size)).sum())
    return (state._replace(inner=placed(state.inner, ppl.asarray(index))) if n else state), n


def _others(is_lost: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """For every chain of a datum, (chains, data), itself; or for one that is lost one that counts, if there is any.

    >>> _others(np.array([[True, False], [False, False]]), np.array([[False, True], [True, True]]), 0).tolist()
    [[1, 0], [1, 1]]
    """
    rng, found = np.random.default_rng(seed), np.arange(len(is_lost))[:, None] + 0 * is_lost
    for chain, datum in np.argwhere(is_lost):
        others = np.flatnonzero(counts[:, datum])
        if len(others):
            found[chain, datum] = rng.choice(others)
    return np.asarray(found)


def _behind(typical: np.ndarray, by_chain: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far every chain, (chains, data), is below the best that moves, in log density, and how much that varies.

    Args:
        typical: log density of every chain.
        by_chain: standard deviation of it in the window.
        moves: chains that accept enough to be compared with.
    """
    spread = np.median(by_chain, 0) + math.sqrt(0.5)
    best = np.where(moves.any(0), np.where(moves, typical, -np.inf).max(0), np.median(typical, 0))
    return np.asarray(np.nan_to_num(best - typical, nan=0.0)), np.asarray(spread)


def _by_datum(rows: np.ndarray, shape: Shape) -> np.ndarray:
    """(..., rows, d) to (steps and chains, data, d)."""
    return rows.reshape(-1, shape[2], rows.shape[-1])


def _of_data(ppl: PPL, metric: Metric, shape: Shape) -> Metric:
    """A row for every datum in the place of one for every row; those of its chains are the same."""
    return Metric(*(ppl.to_numpy(a[: shape[2]]).astype(float) for a in metric))


def _of_rows(ppl: PPL, metric: Metric, inner: TrajectoryState, shape: Shape) -> Metric:
    return Metric(*(_like(ppl, np.tile(a, (shape[1], *[1] * (a.ndim - 1))), inner) for a in metric))


def _like(ppl: PPL, a: np.ndarray, inner: TrajectoryState) -> Array:
    dtype = ppl.to_numpy(inner.metric.scale[:1]).dtype
    return ppl.asarray(np.ascontiguousarray(a.astype(dtype)), keep=True)


def _flat(ppl: PPL, tree: Latents) -> np.ndarray:
    rows = [ppl.to_numpy(tree[site]) for site in sorted(tree)]
    return np.concatenate([a.reshape(len(a), -1) for a in rows], 1)
