"""The learning loop: batches, updates, roll-back, as a generator that can be stopped and continued anywhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.learning import safeguards
from pplebm.learning.algorithm import Algorithm
from pplebm.learning.batches import BLOCK, Reader
from pplebm.ppl.language import PPL
from pplebm.ppl.parallel import Alone, Parallel
from pplebm.ppl.trees import n_rows, tree_map, tree_values

GOOD_EVERY = 50  # updates between the states kept for roll-back; ends of blocks
WATCH_EVERY = 100  # updates between comparisons of prior chains with resampled base draws
NOT_FINITE = "it was not finite; new noise"
AT_ONCE = 0.5  # seconds of updates in a block, about, after which Ctrl-C is heard
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

    update: int
    metrics: dict[str, float]
    rolled_back_to: int | None = None  # update whose state was restored, if this one ended badly
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
    return Progress(0, state, state, 0, 0, 0, state.params if averages or algorithm.averaging else ())


def updates(
    algorithm: Algorithm,
    train: Any,
    seed: int,
    progress: Progress,
    group: Parallel | None = None,
    ema: float = 0.0,
    total: int | None = None,
    at_most: int = BLOCK,
) -> Iterator[tuple[Progress, list[Event]]]:
    """Yield progress and events after every block of updates, to the end or without one.

    A block ends at every fiftieth update at the latest, and holds about half a second of work. Batch and noise of an
    update depend on the seed, its number and the number of roll-backs alone, and k updates in one block are k blocks of
    one, so that a run continued from any progress equals one that was never stopped. An update that ends non-finite is
    undone: the last good state returns, and the next update draws new noise. One after which the tilt runs away
    (`pplebm.learning.safeguards`) is undone as well, and from then on the tilt learns more slowly and prior chains are
    longer. Of a batch this process takes its rows.

    Args:
        ema: decay of the running average of the parameters, if progress keeps one.
        total: updates in all, where the iterator ends.
        at_most: updates in a block, which ends at every multiple of it.

    Raises:
        PplebmError: after ten roll-backs, when the batch size exceeds the data, or when processes drift apart.
    """
    group = group or Alone(lambda a: algorithm.ppl.asarray(a, keep=True))
    if algorithm.keeps_rows and group.size > 1:
        raise PplebmError(
            f"{algorithm.name} keeps something per datum, on one device; drop --devices, or take "
            "another --inference, short_run_mle or one with a guide."
        )
    reader, pace = Reader(algorithm, train, seed, group, ema), _Pace(group)
    blocks = _Blocks(algorithm, progress.n_back_offs, group, n_rows(train))
    try:
        while total is None or progress.update < total:
            if progress.n_back_offs != blocks.n_back_offs:
                blocks = _Blocks(algorithm, progress.n_back_offs, group, n_rows(train))
            left = math.inf if total is None else total - progress.update
            to_end = min(size - progress.update % size for size in (BLOCK, at_most))
            n = int(min(to_end, left, pace.updates, reader.size))
            inputs = reader.read(progress.update, progress.n_rollbacks)
            reader.read_ahead(progress.update + n, progress.n_rollbacks)
            with pace.timed(n):
                found = blocks.run(progress, inputs, n)
            progress, events = blocks.judged(progress, found)
            yield progress, events
    finally:
        reader.close()


class _Found(NamedTuple):
    """State and running average after a block, what its updates told, and whether the last one was finite."""

    state: Any
    average: Any
    events: list[Event]
    is_finite: bool


class _Blocks:
    """Blocks of updates of an algorithm after so many interventions, and what is made of their ends."""

    def __init__(self, algorithm: Algorithm, n_back_offs: int, group: Parallel, n_data: int) -> None:
        self.n_back_offs, self._algorithm, self._group = n_back_offs, algorithm, group
        self._now = algorithm.back_off(n_back_offs)
        self._repeated, self._watch = algorithm.ppl.repeat(_one(self._now, n_data)), safeguards.watch(self._now)
        of_batch = lambda state, index: _is_finite(algorithm.ppl, _of_batch(self._now, state, index, n_data), {})
        self._is_good = algorithm.ppl.compiled(of_batch)
        self._is_checked = False

    def run(self, progress: Progress, inputs: Any, n: int) -> _Found:
        """Run n updates, fewer where one ends non-finite; look at prior chains after every hundredth."""
        ppl, group = self._algorithm.ppl, self._group
        (state, average), outs, n_done = self._repeated((progress.state, progress.average), inputs, n)
        if not self._is_checked:
            group.check_same(state)
            self._is_checked = True
        found = outs["metrics"]  # in any order; the algorithm's is kept
        names = [*(name for name in self._now.reports if name in found), *sorted(set(found) - set(self._now.reports))]
        columns = {name: ppl.to_numpy(found[name])[:n_done].astype(float).tolist() for name in names}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        events = [Event(progress.update + i, row) for i, row in enumerate(rows, 1)]
        is_finite, last = bool(ppl.to_numpy(outs["is_finite"])[n_done - 1]), events[-1]
        if is_finite and last.update % GOOD_EVERY == 0:  # one may go back to this state
            index = None if inputs["index"] is None else inputs["index"][n_done - 1]
            is_finite = bool(ppl.to_numpy(self._is_good(state, index)))
        if is_finite and self._now.follows_chains and last.update % WATCH_EVERY == 0:
            key, x = (_at(inputs[name], n_done - 1) for name in ("key", "x"))
            with group.alone():
                last.metrics.update(self._watch(key, state._replace(params=group.local(state.params)), x))
        return _Found(state, average, events, is_finite)

    def judged(self, progress: Progress, found: _Found) -> tuple[Progress, list[Event]]:
        """Progress after a block, and what is told of it; the first update that was bad undoes the block."""
        events, faults = found.events, [safeguards.fault(event.metrics) for event in found.events]
        bad = next((i for i, fault in enumerate(faults) if fault), None)
        if bad is None and found.is_finite:
            return _kept(progress, events[-1].update, found.state, found.average), events
        at = len(events) - 1 if bad is None else bad
        progress, reason = _roll_back(progress, events[at].update, events[at].metrics), faults[at] or NOT_FINITE
        if bad is not None:
            progress = progress._replace(n_back_offs=progress.n_back_offs + 1)
            after = self._algorithm.back_off(progress.n_back_offs)
            reason += f"; {self._now.differences(after) or 'new noise'}"
        undone = events[at]._replace(rolled_back_to=progress.good_update, reason=reason)
        return progress, [*events[:at], undone]


def _at(inputs: Any, i: int) -> Any:
    return tree_map(lambda a: a[i], inputs)


class _Pace:
    """How many updates are about half a second of work, by what they took; one, where processes have to agree."""

    def __init__(self, group: Parallel) -> None:
        self.updates, self._is_alone = 1, group.size == 1

    @contextlib.contextmanager
    def timed(self, n: int) -> Iterator[None]:
        """Note how long n updates take."""
        began = time.perf_counter()
        yield
        if self._is_alone:
            self.updates = max(1, int(AT_ONCE * n / max(time.perf_counter() - began, 1e-9)))


def _one(algorithm: Algorithm, n_data: int) -> Callable[[Any, Any], Any]:
    """An update of state and running average, whether all is finite after it, and whether another may follow."""
    ppl, has_end = algorithm.ppl, hasattr(algorithm.page, "arrived")

    def one(carry: Any, given: Any) -> tuple[Any, Any, Any]:
        state, average = carry
        state, info = algorithm.step(given["key"], state, given["x"], given["index"])
        blend = lambda a, b: given["decay"] * a + (1.0 - given["decay"]) * b
        average = tree_map(blend, average, state.params) if average else average
        is_finite = _is_finite(ppl, _of_batch(algorithm, _without_optimizer(state), given["index"], n_data), info)
        goes_on = is_finite & (1.0 * algorithm.page.arrived(algorithm, state) < 0.5) if has_end else is_finite
        return (state, average), {"metrics": info, "is_finite": is_finite}, goes_on

    return one


def _without_optimizer(state: Any) -> Any:
    """A state but for its optimizer's, twice as much as what it learns.

    That overflows only where the norm of the gradient does, which is looked at; `_Blocks.run` looks at it now and then.
    """
    return state._replace(optimizer=()) if hasattr(state, "optimizer") else state


def _of_batch(algorithm: Algorithm, state: Any, index: Any, n_data: int) -> Any:
    """A state; of arrays with a row for every datum, the rows of a batch."""
    if not algorithm.keeps_rows:
        return state
    rows = lambda tree: tree_map(lambda a: a[index] if getattr(a, "ndim", 0) and len(a) == n_data else a, tree)
    state = state._replace(optimizer=rows(state.optimizer), positive=rows(state.positive))
    return state._replace(negative=rows(state.negative)) if algorithm.program.prior_reads else state


def _kept(progress: Progress, update: int, state: Any, average: Any) -> Progress:
    """Progress after updates that went well."""
    progress = progress._replace(update=update, state=state, average=average)
    return progress._replace(good=state, good_update=update) if update % GOOD_EVERY == 0 else progress


def _roll_back(progress: Progress, update: int, metrics: dict[str, float]) -> Progress:
    if progress.n_rollbacks >= MAX_ROLLBACKS:
        bad = ", ".join(n for n, v in metrics.items() if not math.isfinite(v)) or "a parameter"
        what = safeguards.fault(metrics) or f"non-finite: {bad}"
        raise PplebmError(
            f"learning failed ({what}) more than {MAX_ROLLBACKS} times, last at update {update}; lower "
            f"step sizes or learning rates, or bound the tilt (tilt(..., bound=8.0))."
        )
    return progress._replace(update=update, state=progress.good, n_rollbacks=progress.n_rollbacks + 1)


def _is_finite(ppl: PPL, state: Any, info: Any) -> Any:
    """Whether parameters, whatever arrays are kept beside them, and metrics are finite."""
    kept = [leaf for leaf in tree_values(state) if getattr(leaf, "ndim", 0)]  # counters may be on another device
    leaves = [*kept, *(p for p in state.params.values() if p.ndim == 0), *info.values()]
    total = sum((a if hasattr(a, "dtype") else ppl.asarray(a)).sum() for a in leaves)  # no copy, as one array would be
    return 0.0 * total == 0.0  # zero times what is not finite is not a number
