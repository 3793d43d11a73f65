"""A call of `pplebm.sample` over more data than run at once: batches of data, block by block of steps."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.kernels.kernel import State
from pplebm.ppl.language import Data, Latents, Params
from pplebm.ppl.trees import take_rows, tree_values
from pplebm.program import Program
from pplebm.sampling.blocks import Block, batch_seed
from pplebm.sampling.draws import Draws, Plan
from pplebm.sampling.store import SUFFIX, StoredDraws, check_new, uninterrupted

NUMBERS_AT_ONCE = 16_000_000  # latents and numbers of data of the rows of one batch


def batch_rows(program: Program, x: Data | None, n_chains: int, n_data: int, rows_at_once: int | None) -> int:
    """Rows of one batch: all chains of as many data as are to run at once.

    Args:
        n_chains: rows of one datum.
        rows_at_once: what the user says; None for as many as hold 16 million latents and numbers of data, or all where
            there is one posterior.

    Raises:
        PplebmError: where that is fewer than the chains of one posterior.
    """
    if rows_at_once is None:
        if n_data == 1:
            return n_chains
        width: int = program.width + sum(int(math.prod(a.shape[1:])) for a in tree_values(x))
        return n_chains * min(n_data, max(1, NUMBERS_AT_ONCE // (n_chains * width)))
    if not isinstance(rows_at_once, int) or rows_at_once < 1:
        raise PplebmError(f"rows_at_once must be an integer from 1 on, got {rows_at_once!r}.")
    if rows_at_once < n_chains:
        whose = "a datum" if n_data > 1 else "the one posterior that there is"
        raise PplebmError(
            f"rows_at_once={rows_at_once} is fewer than the {n_chains} chains of {whose}, which adapt together and so "
            f"run at once; give {n_chains} or more, or fewer chains."
        )
    return n_chains * min(n_data, rows_at_once // n_chains)


class Batches:
    """One call of `sample`: every block of steps is run batch by batch of data, and then kept as a whole.

    Args:
        job: of data and a plan to a job, which begins and advances the draws of one batch.
        n_at_once: data of a batch; the last one may have fewer.
    """

    def __init__(
        self,
        job: Callable[[Data | None, Plan], Any],
        program: Program,
        params: Params,
        x: Data | None,
        plan: Plan,
        is_prior: bool,
        n_at_once: int,
    ) -> None:
        self._make, self.program, self.params, self.x, self.plan, self.is_prior = (
            job, program, params, x, plan, is_prior)  # fmt: skip
        self.starts = list(range(0, plan.n_data, n_at_once))
        self.n_at_once = n_at_once
        self._jobs: dict[int, Any] = {}

    def _job(self, i: int) -> Any:
        """The job of the i-th batch; one is held at a time, since it holds its data for every chain."""
        if i not in self._jobs:
            at, some = self.starts[i], self.plan
            if len(self.starts) == 1:
                x = self.x
            else:
                x = take_rows(self.x, slice(at, at + self.n_at_once))
                n_data = min(self.n_at_once, some.n_data - at)
                some = some._replace(n_data=n_data, seed=batch_seed(some.seed, i))
            self._jobs = {i: self._make(x, some)}
        return self._jobs[i]

    def begin(self, init: str | Latents | None, resume: Draws | str | Path | None, out: str | Path | None) -> Draws:
        """Draws to go on from, in memory or in a file; arguments as in `sample`."""
        if isinstance(resume, StoredDraws):
            resume = resume.path
        is_stored = isinstance(resume, str | Path) and Path(resume).suffix == SUFFIX
        if is_stored and out is not None and Path(out) != Path(str(resume)):
            raise PplebmError(
                f"the draws of '{resume}' grow where they are, not in '{out}'; leave out= out, or copy '{resume}' and "
                f"'{resume}.state' to go on from copies."
            )
        if not is_stored and out is not None:
            check_new(out)
        path = resume if is_stored else out
        if resume is None:
            parts = [self._job(i).begin(self._init(init, i)) for i in range(len(self.starts))]
            draws = self._draws(self._together([part.state for part in parts]), path)
            _add_facts(draws, parts)
            draws.checkpoint()
            return draws
        if isinstance(resume, Draws):
            draws = resume.continued(self.plan)
        else:
            draws = self._draws(None, resume if is_stored else None)
            draws.load(resume, lambda block: self._structure(init, block))
        return draws if is_stored or out is None else self._stored(draws, out)

    def _draws(self, state: State, path: Any) -> Draws:
        given = self.program, self.params, self.x, self.plan, state, self.is_prior
        return Draws(*given) if path is None else StoredDraws(path, *given)

    def _stored(self, had: Draws, path: str | Path) -> Draws:
        """The same draws in a new file."""
        draws = self._draws(had.state, path)
        draws.block, draws.facts = had.block, had.facts
        if had.n_draws:
            draws.add(had.latents, had.stats)
        draws.checkpoint()
        return draws

    def _init(self, init: str | Latents | None, i: int) -> str | Latents | None:
        """Where chains of the i-th batch start."""
        if init is None or isinstance(init, str) or len(self.starts) == 1:
            return init
        shape = self.plan.n_chains, self.plan.n_data
        for site, a in init.items():
            if len(a) != math.prod(shape):
                raise PplebmError(f"given start of '{site}' has {len(a)} rows; expected {math.prod(shape)}.")
        index = np.arange(math.prod(shape)).reshape(shape)[:, self.starts[i] :][:, : self.n_at_once].reshape(-1)
        return {site: a[self.program.ppl.asarray(index)] for site, a in init.items()}

    def _together(self, states: list[State]) -> State:
        return states[0] if len(states) == 1 else tuple(states)

    def _structure(self, init: str | Latents | None, block: int) -> State:
        job = self._job(0)
        one = job.structure(job.begin(self._init(init, 0)).state, block)
        return self._together([one] * len(self.starts))

    def run(self, draws: Draws, progress: bool | None) -> Draws:
        """All blocks that are left."""
        left = self._job(0).left(draws, self.plan.n_data)
        total, n = self.plan.n_warmup + self.plan.n_draws * self.plan.thin, len(self.starts)
        done = n * (total - sum(block.n_steps for block in left))
        bar = tqdm(total=n * total, initial=done, unit="step", disable=None if progress is None else not progress)
        try:
            for block in left:
                self._advance(draws, block, bar)
        except KeyboardInterrupt:
            with uninterrupted():
                draws.checkpoint()
            warnings.warn(
                f"interrupted after {draws.n_draws} of {self.plan.n_draws} draws; give what was returned as resume= "
                f"to go on, or keep it with .save(path) and give the path.",
                PplebmWarning,
                stacklevel=3,
            )
        finally:
            bar.close()
        return draws

    def _advance(self, draws: Draws, block: Block, bar: tqdm) -> None:
        """One block of all data; the draws change all at once at its end."""
        began, n, what = time.perf_counter(), len(self.starts), "draws" if block.n_draws else "warm-up"
        if draws.begun[0] != block:
            draws.begun = (block, [])
        parts = draws.begun[1]
        for i in range(len(parts), n):
            bar.set_description(what if n == 1 else f"{what}, data {i + 1} of {n}")
            job = self._job(i)
            state = draws.state if n == 1 else draws.state[i]
            part = Draws(self.program, self.params, job.given, job.plan, state, self.is_prior)
            part.block = draws.block
            with self.program.ppl.threads_for(self.program.work(job.rows)):
                job.advance(part, block)
            parts.append(part)
            bar.update(block.n_steps)
        with uninterrupted():
            if block.n_draws:
                draws.add(_side_by_side([p.latents for p in parts]), _side_by_side([p.stats for p in parts]))
            draws.state, draws.block = self._together([part.state for part in parts]), parts[0].block
            _add_facts(draws, parts)
            draws.facts["seconds"] += time.perf_counter() - began
            draws.begun = (None, [])
            draws.checkpoint(at_once=bool(block.n_draws))


def _side_by_side(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """(chains, draws, data, ...) of all batches, along the data."""
    return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts], 2) for name in parts[0]}


def _add_facts(draws: Draws, parts: list[Draws]) -> None:
    for part in parts:
        for name, figure in part.facts.items():
            draws.facts[name] = draws.facts.get(name, 0.0) + figure
