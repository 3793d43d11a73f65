r"""Many chains of all data in one batch: warm-up, adaptation, draws, to be interrupted and resumed anywhere."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import BASE_WINDOW, adapted, adapting, next_window
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.kernel import Kernel, State
from pplebm.kernels.warming import warmed, warming
from pplebm.ppl.compilations import keep_compilations
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves
from pplebm.program import Program
from pplebm.sampling import chains
from pplebm.sampling.blocks import Block, block_seed, draw_blocks, recording, unit_keys, warm_up
from pplebm.sampling.draws import Draws, Plan
from pplebm.sampling.starts import climbed
from pplebm.sampling.warmup import Gathering, empty, end_of_window, first_scale, gathered, moved_on
from pplebm.sampling.wide import Batches, batch_rows

NUMBERS_PER_UNIT = 4_000_000  # latents of steps that are held at once
NUMBERS_PER_BLOCK = 4_000_000  # latents of draws of all data that are kept at once
DRAWS_PER_BLOCK = 200
REDRAWN_FROM = 0.08  # part of warm-up that a chain is given to find its way
OF_STEPS: dict[str, Callable[..., np.ndarray]] = {  # where the last one does not say it all
    "is_divergent": np.any, "accept_prob": np.mean, "num_steps": np.sum
}  # fmt: skip


def sample(
    program: Program,
    kernel: Kernel | None = None,
    data: Any = None,
    *,
    n_chains: int = 4,
    n_draws: int = 1000,
    n_warmup: int = 1000,
    thin: int = 1,
    seed: int = 0,
    params: Params | None = None,
    init: str | Latents | None = None,
    extra_fields: Sequence[str] = (),
    resume: Draws | str | Path | None = None,
    progress: bool | None = None,
    given: Any = None,
    rows_at_once: int | None = None,
    out: str | Path | None = None,
) -> Draws:
    r"""Draw from p(z|x) of every datum, or without data from the tilted prior, by many chains at once.

    All chains of all data are rows of one batch on one device. During warm-up the default kernel learns a step size
    and a metric of every datum from its chains together, and one length of trajectories for all data; other kernels
    that accept and reject learn a step size and a diagonal metric of every datum, and the rest simply run. Chains of
    the default that never move, or that lag where no mass can be, are put where another chain of their datum is, while
    warm-up lasts, and `facts["n_redrawn"]` of the draws counts them.

    Args:
        program: any program, tilted or not. One with a latent outside the data plate has a single posterior, that of
            all data together.
        kernel: made by a function of `pplebm.kernels`; if left out, `adaptive_hmc()`, which needs no settings.
        data: an array, a mapping of names to arrays, a data frame or a tuple: one posterior for every row; None for
            the prior, whose draws honour the tilt because the chain moves in the tilted density.
        n_chains: chains per datum.
        n_draws: draws of each chain after warm-up.
        n_warmup: steps before the first draw, in which the kernel learns.
        thin: steps per draw.
        seed: of all random numbers.
        params: where the program's parameters are not to be its own.
        init: where chains start, in unconstrained coordinates. If left out, posteriors start uniform in [-2, 2] and
            uphill from there while the density is steep, priors at ancestral draws. Or else "uniform" in [-2, 2],
            "normal", "base" for ancestral draws, or latents with one row per chain and datum, chain by chain.
        extra_fields: what else to keep of every draw, by name: fields of the kernel's Info or State.
        resume: draws of an earlier call, or the file that their `save(path)` or `out=` wrote, in a later session as
            well: goes on where they end, after an interruption or to a larger n_draws, without a second warm-up, to
            the draws that one call would have made. The other arguments must be those of that call. Draws that are
            given keep their own draws and state; a file of `out=` grows.
        progress: show a bar; by default if the output is a terminal.
        given: data whose covariates the prior is given, one prior for every row; its observed part may be missing
            where the model runs without it, and is not looked at.
        rows_at_once: chains x data that run as one batch, all chains of a datum together; the data beyond follow in
            further batches, each with an adaptation of its own. The draws of the first batch are those of a call with
            its data alone, and no draw depends on data of another batch. By default as many as hold 16 million latents
            and numbers of data, a copy of which takes 64 MB in single precision.
        out: a netCDF file, "draws.nc", that takes the draws block by block, so that memory does not grow with n_draws;
            ArviZ and xarray open it, also while the run goes on. The draws returned are read from it when they are
            looked at. What a killed run has completed is there: give `resume="draws.nc"` to go on. Beside it stands
            "draws.nc.state", which that needs.

    Returns:
        Draws; if interrupted by Ctrl-C, those made so far, with a warning.

    Raises:
        PplebmError: for arguments out of range, unknown fields, a resume that does not belong to this call or has more
            draws than are wanted, a batch that cannot be made smaller, or a file that cannot be begun or grow.

    Example:
        >>> import numpy as np, torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", 3. * z)  # N(0, 1) tilted by 3z is N(3, 1)
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> program = pplebm.Program(model, data=torch.zeros(2))
        >>> prior = sample(program, n_chains=50, n_draws=100, n_warmup=100)
        >>> bool(abs(prior["z"].mean() - 3.) < 0.2)
        True
        >>> posterior = sample(program, data=np.array([0., 4.]), n_chains=50, n_draws=100, n_warmup=100)
        >>> posterior["z"].shape, np.abs(posterior["z"].mean((0, 1)) - [1.5, 3.5]).max() < 0.2
        ((50, 100, 2), np.True_)
    """
    keep_compilations()
    kernel = adaptive_hmc() if kernel is None else kernel
    counts = {"n_chains": n_chains, "n_draws": n_draws, "thin": thin}
    for name, count in (*counts.items(), ("n_warmup", n_warmup)):
        if not isinstance(count, int) or count < (name != "n_warmup"):
            least = 0 if name == "n_warmup" else 1
            raise PplebmError(f"{name} must be an integer from {least} on, got {count!r}.")
    if data is not None and given is not None:
        raise PplebmError("give data= for posteriors, or given= for the prior at covariates, not both.")
    x = None if data is None and given is None else program.data(given if data is None else data)
    params = program.params if params is None else dict(params)
    if data is not None:
        program.check_data(x, params)
    elif x is None and (program.prior_reads or program.reads.fed_latents):
        sites = sorted(program.reads.prior | program.reads.fed_latents)
        raise PplebmError(
            f"the prior of site '{sites[0]}' reads {', '.join(program.covariates) or 'observed values'}, so it is "
            f"another one in every row; give the rows it is wanted at: sample_prior(program, given=data)."
        )
    target = _checksum(program, params, x)
    n_data = 1 if x is None or program.has_global_latents else n_rows(x)
    rows = batch_rows(program, x, kernel.replicas * n_chains, n_data, rows_at_once)
    plan = Plan(
        target, str(kernel.settings), n_chains, n_data, n_draws, n_warmup, thin, int(seed), tuple(extra_fields), rows
    )  # fmt: skip
    job = lambda x, plan: _Job(program, kernel, x, params, plan, data is not None)
    batches = Batches(job, program, params, x, plan, data is None, rows // (kernel.replicas * n_chains))
    return batches.run(batches.begin(init, resume, out), progress)


def sample_prior(program: Program, kernel: Kernel | None = None, given: Any = None, **settings: Any) -> Draws:
    """Draw from the tilted prior: `sample` without data.

    Args:
        program, kernel, settings: as in `sample`.
        given: data with the covariates that the prior reads: the draws then have an axis of these rows.
    """
    return sample(program, kernel, None, given=given, **settings)


def _checksum(program: Program, params: Params, x: Data | None) -> str:
    """Checksum of everything the draws depend on: sites, parameters and data."""
    found = hashlib.sha256(repr(program).encode())
    for name, a in sorted({**params, **{f"data/{path}": a for path, a in tree_leaves(x)}}.items()):
        array = np.ascontiguousarray(program.ppl.to_numpy(a))
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


class _Job:
    """One call of `sample`: rows are replicas of chains of data, in this order."""

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
