r"""Many chains of all data in one batch: warm-up, adaptation, draws, to be interrupted and resumed anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.kernel import Kernel
from pplebm.ppl.compilations import keep_compilations
from pplebm.ppl.language import Data, Latents, Params
from pplebm.ppl.trees import n_rows, tree_leaves
from pplebm.program import Program
from pplebm.sampling.draws import Draws, Plan
from pplebm.sampling.job import Job
from pplebm.sampling.wide import Batches, batch_rows


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
    if not isinstance(kernel, Kernel):
        raise PplebmError(f"kernel must be one of pplebm.kernels, got {type(kernel).__name__}; give data as data=.")
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
    job = lambda x, plan: Job(program, kernel, x, params, plan, data is not None)
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
