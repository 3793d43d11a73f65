"""The learning loop: batches, updates, roll-back, as a generator that can be stopped and continued anywhere."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pplebm import holding
from pplebm.data import batches
from pplebm.errors import PplebmError
from pplebm.parallel import Alone, Parallel
from pplebm.program import Program
from pplebm.tree import tree_leaves, tree_map

GOOD_EVERY = 50  # updates between the states kept for roll-back
MAX_ROLLBACKS = 10  # in one run; more means that the settings, not bad luck, are to blame


class Progress(NamedTuple):
    """Where a run stands: all that is needed to go on, bit for bit."""

    update: int  # updates done
    state: Any  # of the algorithm page
    good: Any  # an earlier state, known to be finite
    good_update: int
    n_rollbacks: int
    n_gentler: int  # interventions that changed the hyperparameters, see pplebm.holding
    average: Any  # of the parameters over updates, or ()


class Event(NamedTuple):
    """What one update showed."""

    metrics: dict[str, float]
    rolled_back_to: int | None  # update whose state was restored, if this one ended badly
    reason: str = ""  # for it, and what was done, in words


def begin(
    page: ModuleType,
    program: Program,
    x: Any,
    hyper: Any,
    seed: int,
    n_data: int | None = None,
    averages: bool = False,
) -> Progress:
    """Progress before the first update.

    Args:
        n_data: training data, for pages that keep a chain for each.
        averages: keep a running average of the parameters.
    """
    more = {"n_data": n_data} if keeps_rows(page) else {}
    state = page.init(program.ppl, program.ppl.key(seed), program, x, hyper, **more)
    return Progress(0, state, state, 0, 0, 0, state.params if averages else ())


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
    ema: float = 0.0,
) -> Iterator[tuple[Progress, Event]]:
    """Yield progress after every update, without end.

    Batch and noise of an update depend on the seed, its number and the number of roll-backs alone, so that a run
    continued from any progress equals one that was never stopped. An update that ends non-finite is undone: the last
    good state returns, and the next update draws new noise. One after which the tilt runs away (`pplebm.holding`) is
    undone as well, and from then on the tilt learns more slowly and prior chains are longer. Of a batch this process
    takes its rows.

    Args:
        ema: decay of the running average of the parameters, if progress keeps one.

    Raises:
        PplebmError: after ten roll-backs, when the batch size exceeds the data, or when processes drift apart.
    """
    ppl, per_epoch, epoch = program.ppl, len(train) // hyper.batch_size, -1
    stream = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    by_row, group, first = keeps_rows(page), group or Alone(ppl.asarray), True
    if by_row and group.size > 1:
        raise PplebmError(f"{page.__name__.rsplit('.', 1)[-1]} keeps a chain per datum, on one device; drop --devices.")
    step, made_for = None, -1
    order: list[np.ndarray] = batches(len(train), hyper.batch_size, seed, 0)
    while True:
        if progress.update // per_epoch != epoch:
            epoch = progress.update // per_epoch
            order = batches(len(train), hyper.batch_size, seed, epoch)
        rows = order[progress.update % per_epoch]
        x, more = group.share(train[rows]), {"rows": ppl.asarray(rows)} if by_row else {}
        if progress.n_gentler != made_for:
            step, made_for = _step(page, program, holding.gentler(hyper, progress.n_gentler)), progress.n_gentler
        assert step is not None
        key = ppl.key((stream + 1000003 * progress.update + progress.n_rollbacks) % 2**63)
        state, info = step(group.key(key), progress.state, x, more)
        if first:
            group.check_same(state)
            first = False
        metrics = {name: float(value) for name, value in info._asdict().items()}
        update = progress.update + 1
        finite = all(map(math.isfinite, metrics.values())) and _finite(ppl, state)
        if finite and not (reason := holding.trouble(metrics)):
            keep = update % GOOD_EVERY == 0
            good, good_update = (state, update) if keep else (progress.good, progress.good_update)
            decay = min(ema, (1 + update) / (10 + update))  # early averages forget the start
            new = lambda a, b, decay=decay: decay * a + (1.0 - decay) * b
            average = tree_map(new, progress.average, state.params) if ema else ()
            progress = progress._replace(update=update, state=state, good=good, good_update=good_update)
            progress = progress._replace(average=average)
            yield progress, Event(metrics, None)
            continue
        progress = _roll_back(progress, update, metrics)
        if finite:
            before = holding.gentler(hyper, progress.n_gentler)
            progress = progress._replace(n_gentler=progress.n_gentler + 1)
            reason += f"; {holding.told(before, holding.gentler(hyper, progress.n_gentler))}"
        else:
            reason = "it was not finite; new noise"
        yield progress, Event(metrics, progress.good_update, reason)


def _step(page: ModuleType, program: Program, hyper: Any) -> Callable[..., Any]:
    ppl = program.ppl
    return ppl.compiled(lambda key, state, x, more: page.step(ppl, key, state, program, x, hyper, **more))


def _roll_back(progress: Progress, update: int, metrics: dict[str, float]) -> Progress:
    if progress.n_rollbacks >= MAX_ROLLBACKS:
        bad = ", ".join(n for n, v in metrics.items() if not math.isfinite(v)) or "a parameter"
        what = holding.trouble(metrics) or f"non-finite: {bad}"
        raise PplebmError(
            f"learning failed ({what}) more than {MAX_ROLLBACKS} times, last at update {update}; lower "
            f"step sizes or learning rates, or bound the tilt (tilt(..., bound=8.0))."
        )
    return progress._replace(update=update, state=progress.good, n_rollbacks=progress.n_rollbacks + 1)


def _finite(ppl: Any, state: Any) -> bool:
    return all(bool(ppl.isfinite(leaf).all()) for _, leaf in tree_leaves(state) if hasattr(leaf, "shape"))
