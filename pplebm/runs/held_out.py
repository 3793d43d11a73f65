"""How well a run that learns describes data it does not learn from."""

from __future__ import annotations

import math
from typing import Any

from pplebm.errors import PplebmError
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.language import Array, Latents, Params
from pplebm.ppl.trees import take_rows
from pplebm.runs.job import Job

EVALUATE_ON = 256  # held-out data per evaluation
EVALUATE_EVERY, SHARE = 100, 0.02  # updates between evaluations at least; their share of all steps of chains at most


def updates_between(algorithm: Algorithm, n_held_out: int = EVALUATE_ON) -> int:
    """Updates between evaluations: a hundred, or more where these would take over 2 % of all steps of chains.

    >>> import pplebm
    >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
    >>> [updates_between(Algorithm(pplebm.load(page), program)) for page in ("short_run_mle", "alternating_backprop")]
    [100, 1000]
    """
    hyper, own = algorithm.hyper, 0
    steps = [getattr(algorithm.source(phase), "n_steps", 0) for phase in ("posterior", "prior")]
    if hasattr(algorithm.page, "positive"):
        own = getattr(hyper, "n_updates_fresh", 0)
    fresh = own or getattr(algorithm.source("posterior"), "n_steps_fresh", steps[0])
    of_update = 1 if own else max(1, sum(steps))
    cost = fresh * min(n_held_out, EVALUATE_ON) / (hyper.batch_size * of_update)  # in updates
    return EVALUATE_EVERY * max(1, math.ceil(cost / SHARE / EVALUATE_EVERY))


class HeldOut:
    """Reconstruction error of held-out data: what does not depend on the parameters is done once.

    Args:
        job: of the run.
    """

    def __init__(self, job: Job) -> None:
        algorithm = job.algorithm
        self._program = program = algorithm.program
        self._drawn_by = algorithm.with_changes(program.with_chains(compiled=False))  # seldom run, of another shape
        self._is_possible = len(program.observed) == 1 and not program.reads.fed and job.data.n_held_out > 0
        self._data = program.data(take_rows(job.data.held_out, slice(0, EVALUATE_ON))) if self._is_possible else None
        self._error = program.ppl.compiled(self._of_draws, whole=program.options)
        self._value: Array | None = None
        self._counted: Array | None = None  # which numbers of it, where some are masked

    def error(self, update: int, params: Params) -> float | None:
        """Mean squared error of reconstructions from one posterior draw each, in model units; None where there is none.

        What is masked does not count.

        Args:
            update: number of updates done; the draws depend on it.
            params: of the program.
        """
        if not self._is_possible:
            return None
        key = self._program.ppl.key(update)
        if self._value is None:
            (self._value,) = self._program.observed_data(self._data).values()
            self._counted = next(iter(self._program.observed_masks(self._data).values()), None)
            self._is_possible = self._counted is None or bool(self._counted.any())
            if not self._is_possible:
                return None
        z = self._drawn_by.posterior_latents(key, params, self._data)
        try:
            error = float(self._error(key, params, z))
        except PplebmError:  # the observed distribution has no mean, or one of another shape
            self._is_possible = False
            return None
        return error if math.isfinite(error) else None  # a mean may be there for some parameters, and not for others

    def _of_draws(self, key: Any, params: Params, z: Latents) -> Array:
        (mean,) = self._program.predict(params, z, data=self._data).values()
        assert self._value is not None
        if tuple(mean.shape) != tuple(self._value.shape):
            raise PplebmError("means and values differ in shape.")
        square = (mean - self._value) ** 2
        return square.mean() if self._counted is None else (square * self._counted).sum() / self._counted.sum()
