"""One batch of chains: their start, the blocks of their warm-up, and their draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from pplebm.kernels.adaptation import BASE_WINDOW, adapted, adapting, next_window
from pplebm.kernels.kernel import Kernel, State
from pplebm.kernels.warming import warmed, warming
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import take_rows
from pplebm.program import Program
from pplebm.sampling import chains
from pplebm.sampling.blocks import Block, block_seed, draw_blocks, recording, unit_keys, warm_up
from pplebm.sampling.draws import Draws, Plan
from pplebm.sampling.starts import climbed
from pplebm.sampling.warmup import Gathering, empty, end_of_window, first_scale, gathered, moved_on

NUMBERS_PER_UNIT = 4_000_000  # latents of steps that are held at once
NUMBERS_PER_BLOCK = 4_000_000  # latents of draws of all data that are kept at once
DRAWS_PER_BLOCK = 200
REDRAWN_FROM = 0.08  # part of warm-up that a chain is given to find its way
OF_STEPS: dict[str, Callable[..., np.ndarray]] = {  # where the last one does not say it all
    "is_divergent": np.any, "accept_prob": np.mean, "num_steps": np.sum
}  # fmt: skip


class Job:
    """The chains of one batch of data: rows are replicas of chains of data, in this order."""

    def __init__(
        self, program: Program, kernel: Kernel, x: Data | None, params: Params, plan: Plan, observed: bool
    ) -> None:
        self.program, self.kernel, self.params, self.plan, self.given = program, kernel, params, plan, x
        self.observed = observed
        self.ppl, self.shape = program.ppl, (kernel.replicas, plan.n_chains, plan.n_data)
        self.rows = math.prod(self.shape)
        index = np.tile(np.arange(plan.n_data), self.shape[0] * self.shape[1])
        self.x = x if x is None or program.has_global_latents else take_rows(x, self.ppl.asarray(index))
        self.adapts = kernel.tuning is not None and plan.n_warmup > 0
        self.along = self.adapts and kernel.trajectory is not None
        adapts = warming if self.along else adapting
        self.warming = adapts(kernel, self.shape) if self.adapts else kernel
        self.recording = recording(kernel, plan.extra_fields)
        self.warm_up = warm_up(plan, self.adapts, self.along)

        # What a step computes may depend, in its last bit, on how many are run together: draws are made by units of
        # equally many, whatever n_draws is, so that draws that are extended are those that one call would have made.
        self.unit = min(BASE_WINDOW, max(1, NUMBERS_PER_UNIT // (plan.rows_at_once * program.width)))

    def left(self, draws: Draws, n_data: int) -> list[Block]:
        """Blocks that are left, of which one of all data fits into memory."""
        most = min(DRAWS_PER_BLOCK, NUMBERS_PER_BLOCK // (self.plan.n_chains * n_data * self.program.width))
        return self.warm_up[draws.block :] + draw_blocks(self.plan, draws.n_draws, self.unit, most)

    def begin(self, init: str | Latents | None) -> Draws:
        """No draws yet, chains at their start."""
        key = self.ppl.key(block_seed(self.plan.seed, 0))
        if init is None:
            init = self._climbed(key) if self.observed else "base"
        elif not isinstance(init, str):
            init = {site: a[self.ppl.asarray(np.tile(np.arange(len(a)), self.shape[0]))] for site, a in init.items()}

        state = chains.begin(self.program, key, self.params, self.x, self.warming, self.rows, init, self.observed)
        log_density = self.program.log_density(self.params, self.x, self.observed)
        if self.plan.extra_fields:
            inner = self.kernel.init(self.ppl, state.z, log_density)
            self.recording(self.ppl, key, inner, log_density)  # raises for unknown fields
        if self.along:
            state = Gathering(first_scale(self.ppl, state, self.shape), empty(self.ppl, state))
        return Draws(self.program, self.params, self.given, self.plan, state, not self.observed)

    def _climbed(self, key: Key) -> Latents:
        replicas, n_chains, n_data = self.shape
        return climbed(self.program, key, self.params, self.x, replicas * n_chains, n_data)

    def structure(self, state: State, block: int) -> State:
        """A state of the structure that it has after so many blocks of warm-up, from one at the start."""
        if not self.adapts or block < len(self.warm_up):
            return state
        return warmed(self.ppl, state.inner, self.shape) if self.along else adapted(self.ppl, state, self.shape)

    def advance(self, draws: Draws, block: Block) -> None:
        """One block; the draws change all at once at its end."""
        if block.n_draws:
            latents, stats, state = self._drawn(draws.state, block)
            draws.add(latents, stats)
        else:
            state = self._warmed_up(draws, block)
            draws.block = block.at + 1
        draws.state = state

    def _drawn(self, state: State, block: Block) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], State]:
        """Draws of a block, their figures, and the state to go on from: at the last end of a unit.

        Args:
            state: at the start of the unit of its first step.
        """
        thin, unit, parts = self.plan.thin, self.unit, []
        first, end = block.at * thin, block.at * thin + block.n_steps
        for i in range(first // unit, -(-end // unit)):
            keys = unit_keys(self.ppl, self.plan, i, unit, len(self.warm_up))
            new, seen = self.program.chain(self.recording, state, keys, self.params, self.x, self.observed)
            start, stop = max(first - i * unit, 0), min(end - i * unit, unit)
            draw = slice(start + -(i * unit + start + 1) % thin, stop, thin)  # the last of `thin` steps is one
            z = {site: self._copied(a[draw]) for site, a in seen.z.items()}
            steps = {name: self._copied(a[start:stop] if name in OF_STEPS else a[draw])
                     for name, a in seen.stats.items()}  # fmt: skip
            parts.append((z, steps))
            state = new if stop == unit else state
        z, by_step = ({name: np.concatenate([part[k][name] for part in parts]) for name in parts[0][k]} for k in (0, 1))
        latents = {site: self._by_chain(a, block) for site, a in z.items()}
        return latents, {name: self._stat(name, a, block) for name, a in by_step.items()}, state

    def _warmed_up(self, draws: Draws, block: Block) -> State:
        """The state after a block of warm-up."""
        ppl, kernel, state = self.ppl, self.warming, draws.state
        keys = ppl.split(ppl.key(block_seed(self.plan.seed, block.at + 1)), block.n_steps)
        seed, redraws = block_seed(self.plan.seed, 2**31 - block.at), block.at >= REDRAWN_FROM * len(self.warm_up)
        if not self.along:
            state, _ = self.program.chain(kernel, state, keys, self.params, self.x, self.observed)
            if not block.ends:
                return state
            if redraws:
                state, n = moved_on(ppl, state, self.shape, seed)
                draws.facts["n_redrawn"] = float(n)
            return self._end(block)(state)
        state, seen = self.program.chain(kernel, state.inner, keys, self.params, self.x, self.observed)
        draws.facts["n_gradients_warmup"] = float(seen.num_steps.sum())
        state = gathered(ppl, Gathering(state, draws.state.seen), seen, self.rows * self.plan.n_warmup)
        if not block.ends:
            return state
        if block.ends == "warm-up":
            return self._end(block)(state.inner)
        assert self.kernel.tuning is not None
        found, n = end_of_window(self.program, state, self.shape, self.kernel.tuning.step_size, redraws, seed)
        draws.facts["n_redrawn"] = float(n)
        return Gathering(found, empty(ppl, found))

    def _end(self, block: Block) -> Callable[[State], State]:
        ppl, shape = self.ppl, self.shape
        if block.ends == "warm-up":
            end = partial(warmed if self.along else adapted, ppl, shape=shape)
            return self.program.compiled(("settled", self.along, shape), end)
        end = partial(next_window, ppl, shape=shape, metric=block.metric)
        return self.program.compiled(("window", block.metric, shape), end)

    def _copied(self, rows: Array) -> np.ndarray:
        """Rows of the last replica, apart from the others."""
        return np.array(self.ppl.to_numpy(rows[:, -(self.shape[1] * self.shape[2]) :]))

    def _by_chain(self, a: np.ndarray, block: Block) -> np.ndarray:
        """(draws, chains * data, ...) to (chains, draws, data, ...)."""
        a = a.reshape(block.n_draws, *self.shape[1:], *a.shape[2:]).swapaxes(0, 1)
        return a if self.x is not None and not self.program.has_global_latents else a[:, :, 0]

    def _stat(self, name: str, a: np.ndarray, block: Block) -> np.ndarray:
        """One figure per draw, of those of all its steps where the last does not say it all."""
        if name in OF_STEPS:
            a = OF_STEPS[name](a.reshape(block.n_draws, self.plan.thin, *a.shape[1:]), axis=1)
        return self._by_chain(a, block)
