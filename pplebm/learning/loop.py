"""The learning loop: batches, updates, roll-back, as a generator that can be stopped and continued anywhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pplebm.data import batches
from pplebm.errors import PplebmError
from pplebm.learning import safeguards
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.language import PPL
from pplebm.ppl.parallel import Alone, Parallel
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves, tree_map

GOOD_EVERY = 50  # updates between the states kept for roll-back
WATCH_EVERY = 100  # updates between comparisons of prior chains with resampled base draws
NOT_FINITE = "it was not finite; new noise"
MAX_ROLLBACKS = 10  # in one run; more means that the settings, not bad luck, are to blame


class Progress(NamedTuple):
    """Progress of a run: all that is needed to go on, bit for bit."""

    update: int  # updates done
    state: Any  # of the algorithm page
    good: Any  # an earlier state, known to be finite
    good_update: int
    n_rollbacks: int
    n_back_offs: int  # interventions that changed the hyperparameters, see pplebm.learning.safeguards
    average: Any  # of the parameters over updates, or ()


class Event(NamedTuple):
    """Metrics of one update, and what became of it."""

    metrics: dict[str, float]
    rolled_back_to: int | None  # update whose state was restored, if this one ended badly
    reason: str = ""  # for it, and what was done, in words


def begin(algorithm: Algorithm, x: Any, seed: int, n_data: int | None = None, averages: bool = False) -> Progress:
    """Progress before the first update.

    Args:
        algorithm: a page on a program.
        x: a batch.
        seed: of where chains start.
        n_data: training data, for algorithms that keep a chain for each.
        averages: keep a running average of the parameters.
    """
    state = algorithm.init(algorithm.ppl.key(seed), x, n_data)
    return Progress(0, state, state, 0, 0, 0, state.params if averages else ())


def updates(
    algorithm: Algorithm,
    train: Any,
    seed: int,
    progress: Progress,
    group: Parallel | None = None,
    ema: float = 0.0,
) -> Iterator[tuple[Progress, Event]]:
    """Yield progress after every update, without end.

    Batch and noise of an update depend on the seed, its number and the number of roll-backs alone, so that a run
    continued from any progress equals one that was never stopped. An update that ends non-finite is undone: the last
    good state returns, and the next update draws new noise. One after which the tilt runs away
    (`pplebm.learning.safeguards`) is undone as well, and from then on the tilt learns more slowly and prior chains are
    longer. Of a batch this process takes its rows.

    Args:
        ema: decay of the running average of the parameters, if progress keeps one.

    Raises:
        PplebmError: after ten roll-backs, when the batch size exceeds the data, or when processes drift apart.
    """
    ppl, by_row = algorithm.ppl, algorithm.keeps_rows
    group = group or Alone(lambda a: ppl.asarray(a, keep=True))
    if by_row and group.size > 1:
        raise PplebmError(f"{algorithm.name} keeps something per datum, on one device; drop --devices.")
    stream = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    batch, is_first, made_for = _rows(n_rows(train), algorithm.hyper.batch_size, seed), True, -1
    while True:
        if progress.n_back_offs != made_for:
            now, made_for = algorithm.back_off(progress.n_back_offs), progress.n_back_offs
            step, watch = ppl.compiled(now.step), safeguards.watch(now)
        rows = batch(progress.update)
        x, index = group.share(take_rows(train, rows)), ppl.asarray(rows) if by_row else None
        key = ppl.key((stream + 1000003 * progress.update + progress.n_rollbacks) % 2**63)
        state, info = step(group.key(key), progress.state, x, index)
        if is_first:
            group.check_same(state)
            is_first = False
        metrics = {name: float(value) for name, value in info.items()}
        update = progress.update + 1
        is_finite = all(map(math.isfinite, metrics.values())) and _is_finite(ppl, state)
        if is_finite and now.learns_tilt and update % WATCH_EVERY == 0:
            with group.alone():
                metrics |= watch(key, group.local(state.params), x)
        reason = safeguards.fault(metrics) if is_finite else NOT_FINITE
        if not reason:
            progress = _kept(progress, update, state, ema)
            yield progress, Event(metrics, None)
            continue
        progress = _roll_back(progress, update, metrics)
        if is_finite:
            progress = progress._replace(n_back_offs=progress.n_back_offs + 1)
            reason += f"; {now.differences(algorithm.back_off(progress.n_back_offs)) or 'new noise'}"
        yield progress, Event(metrics, progress.good_update, reason)


def _rows(n: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """Numbers of the data of an update's batch: every epoch goes through all of them once."""
    per_epoch = n // batch_size
    order = functools.lru_cache(maxsize=1)(lambda epoch: batches(n, batch_size, seed, epoch))
    return lambda update: order(update // per_epoch)[update % per_epoch]


def _kept(progress: Progress, update: int, state: Any, ema: float) -> Progress:
    """Progress after an update that went well."""
    keep = update % GOOD_EVERY == 0
    decay = min(ema, (1 + update) / (10 + update))  # early averages forget the start
    average = tree_map(lambda a, b: decay * a + (1.0 - decay) * b, progress.average, state.params) if ema else ()
    return progress._replace(
        update=update,
        state=state,
        good=state if keep else progress.good,
        good_update=update if keep else progress.good_update,
        average=average,
    )


def _roll_back(progress: Progress, update: int, metrics: dict[str, float]) -> Progress:
    if progress.n_rollbacks >= MAX_ROLLBACKS:
        bad = ", ".join(n for n, v in metrics.items() if not math.isfinite(v)) or "a parameter"
        what = safeguards.fault(metrics) or f"non-finite: {bad}"
        raise PplebmError(
            f"learning failed ({what}) more than {MAX_ROLLBACKS} times, last at update {update}; lower "
            f"step sizes or learning rates, or bound the tilt (tilt(..., bound=8.0))."
        )
    return progress._replace(update=update, state=progress.good, n_rollbacks=progress.n_rollbacks + 1)


def _is_finite(ppl: PPL, state: Any) -> bool:
    return all(bool(ppl.isfinite(leaf).all()) for _, leaf in tree_leaves(state) if hasattr(leaf, "shape"))
