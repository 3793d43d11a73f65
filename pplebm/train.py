"""The learning loop: batches, updates, roll-back, as a generator that can be stopped and continued anywhere."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pplebm.data import batches
from pplebm.errors import PplebmError
from pplebm.parallel import Alone, Parallel
from pplebm.program import Program
from pplebm.tree import tree_leaves

GOOD_EVERY = 50  # updates between the states kept for roll-back
MAX_ROLLBACKS = 10  # in one run; more means that the settings, not bad luck, are to blame


class Progress(NamedTuple):
    """Where a run stands: all that is needed to go on, bit for bit."""

    update: int  # updates done
    state: Any  # of the algorithm page
    good: Any  # an earlier state, known to be finite
    good_update: int
    n_rollbacks: int


class Event(NamedTuple):
    """What one update showed."""

    metrics: dict[str, float]
    rolled_back_to: int | None  # update whose state was restored, if this one ended non-finite


def begin(page: ModuleType, program: Program, x: Any, hyper: Any, seed: int, n_data: int | None = None) -> Progress:
    """Progress before the first update; n_data training data for pages that keep a chain for each."""
    more = {"n_data": n_data} if keeps_rows(page) else {}
    state = page.init(program.ppl, program.ppl.key(seed), program, x, hyper, **more)
    return Progress(0, state, state, 0, 0)


def keeps_rows(page: ModuleType) -> bool:
    """Whether a page keeps something for every training datum: its `step` then takes `rows`, numbers of data."""
    return "rows" in inspect.signature(page.step).parameters


def updates(
    page: ModuleType,
    program: Program,
    train: np.ndarray,
    hyper: Any,
    seed: int,
    progress: Progress,
    group: Parallel | None = None,
) -> Iterator[tuple[Progress, Event]]:
    """Yield progress after every update, without end.

    Batch and noise of an update depend on the seed, its number and the number of roll-backs alone, so that a run
    continued from any progress equals one that was never stopped. An update that ends non-finite is undone:
    the last good state returns, and the next update draws new noise. Of a batch this process takes its rows.

    Raises:
        PplebmError: after ten roll-backs, when the batch size exceeds the data, or when processes drift apart.
    """
    ppl, per_epoch, epoch = program.ppl, len(train) // hyper.batch_size, -1
    stream = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    by_row, group, first = keeps_rows(page), group or Alone(ppl.asarray), True
    if by_row and group.size > 1:
        raise PplebmError(f"{page.__name__.rsplit('.', 1)[-1]} keeps a chain per datum, on one device; drop --devices.")
    step = ppl.compiled(lambda key, state, x, more: page.step(ppl, key, state, program, x, hyper, **more))
    order: list[np.ndarray] = batches(len(train), hyper.batch_size, seed, 0)
    while True:
        if progress.update // per_epoch != epoch:
            epoch = progress.update // per_epoch
            order = batches(len(train), hyper.batch_size, seed, epoch)
        rows = order[progress.update % per_epoch]
        x, more = group.share(train[rows]), {"rows": ppl.asarray(rows)} if by_row else {}
        key = ppl.key((stream + 1000003 * progress.update + progress.n_rollbacks) % 2**63)
        state, info = step(group.key(key), progress.state, x, more)
        if first:
            group.check_same(state)
            first = False
        metrics = {name: float(value) for name, value in info._asdict().items()}
        update = progress.update + 1
        if all(map(math.isfinite, metrics.values())) and _finite(ppl, state):
            keep = update % GOOD_EVERY == 0
            good, good_update = (state, update) if keep else (progress.good, progress.good_update)
            progress = Progress(update, state, good, good_update, progress.n_rollbacks)
            yield progress, Event(metrics, None)
        else:
            progress = _roll_back(progress, update, metrics)
            yield progress, Event(metrics, progress.good_update)


def _roll_back(progress: Progress, update: int, metrics: dict[str, float]) -> Progress:
    if progress.n_rollbacks >= MAX_ROLLBACKS:
        bad = ", ".join(n for n, v in metrics.items() if not math.isfinite(v)) or "a parameter"
        raise PplebmError(
            f"learning became non-finite ({bad}) more than {MAX_ROLLBACKS} times, last at update {update}; lower "
            f"step sizes or learning rates, or bound the tilt (tilt(..., bound=8.0))."
        )
    return progress._replace(update=update, state=progress.good, n_rollbacks=progress.n_rollbacks + 1)


def _finite(ppl: Any, state: Any) -> bool:
    return all(bool(ppl.isfinite(leaf).all()) for _, leaf in tree_leaves(state) if hasattr(leaf, "shape"))
