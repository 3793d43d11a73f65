"""Inputs of updates: rows, noise and what else differs from one to the next, read ahead for a block of them at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from pplebm.data import batches
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.parallel import Parallel
from pplebm.ppl.trees import n_rows, take_rows, tree_map, tree_values

BLOCK = 50  # updates that are read, and at most run, at once
MAX_BYTES = 1 << 26  # of the rows of a block


class Reader:
    """Reads blocks of inputs, the next one while the updates of this one run.

    Inputs of an update depend on the seed, its number and the number of roll-backs alone.

    Args:
        algorithm: whose batches these are.
        train: rows, in memory or mapped from a file.
        seed: of rows and noise.
        group: processes that share every batch.
        ema: decay of a running average of the parameters.
    """

    def __init__(self, algorithm: Algorithm, train: Any, seed: int, group: Parallel, ema: float) -> None:
        self._algorithm, self._train, self._group, self._ema = algorithm, train, group, ema
        self._stream = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
        size = algorithm.hyper.batch_size
        self._rows = rows_of_updates(n_rows(train), size, seed)
        of_batch = sum(leaf[:1].nbytes for leaf in tree_values(train)) * size
        self.size = max(1, min(BLOCK, MAX_BYTES // max(of_batch, 1)))  # updates in a block
        self._pool = ThreadPoolExecutor(1, "read ahead") if group.size == 1 else None
        self._ahead: tuple[tuple[int, int], Future[Any]] | None = None

    def read(self, update: int, n_rollbacks: int) -> dict[str, Any]:
        """Inputs of `size` updates from this one on, along a first axis."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (update, n_rollbacks):
            found: dict[str, Any] = ahead[1].result()
            return found
        return self._made(update, n_rollbacks)

    def read_ahead(self, update: int, n_rollbacks: int) -> None:
        """Begin to read what `read` will be asked for."""
        if self._pool is not None:
            self._ahead = ((update, n_rollbacks), self._pool.submit(self._made, update, n_rollbacks))

    def close(self) -> None:
        """Stop reading."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _made(self, update: int, n_rollbacks: int) -> dict[str, Any]:
        ppl, numbers = self._algorithm.ppl, range(update, update + self.size)
        rows = np.stack([self._rows(n) for n in numbers])
        seeds = [(self._stream + 1000003 * n + n_rollbacks) % 2**63 for n in numbers]
        done = np.arange(update + 1, update + 1 + self.size)
        decay = np.minimum(self._ema, (1 + done) / (10 + done))  # early averages forget the start
        if (power := self._algorithm.averaging) and not self._ema:
            decay = (done - 1) / (done + power)
        return {
            "x": self._group.share(tree_map(lambda a: np.asarray(a), take_rows(self._train, rows))),
            "index": ppl.asarray(rows) if self._algorithm.keeps_rows else None,
            "key": self._group.key(ppl.key(seeds)),
            "decay": ppl.asarray(decay),
        }


def rows_of_updates(n: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """Numbers of the data of an update's batch: every epoch goes through all of them once."""
    per_epoch = n // batch_size
    order = functools.lru_cache(maxsize=2)(lambda epoch: batches(n, batch_size, seed, epoch))
    return lambda update: order(update // per_epoch)[update % per_epoch]
