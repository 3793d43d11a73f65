r"""The short runs of a learned model beside long adjusted chains of the same targets: the bias shown, not hidden."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.runs.run import Run
from pplebm.sampling.diagnostics import Diagnosis, diagnose
from pplebm.sampling.draws import Draws
from pplebm.sampling.sampler import sample

N_SHORT = 1000  # short runs of the prior; a fifth as many of each posterior
TILT, LIKELIHOOD = "tilt f(z)", "log p(x|z)"


class Bias(NamedTuple):
    """One scalar under the short run and under the long one."""

    name: str
    long_mean: float
    long_sd: float
    short_mean: float
    short_sd: float
    shift: float  # difference of the means in standard deviations of the long run
    sigmas: float  # the same in standard errors: what chance makes of it


class Comparison(NamedTuple):
    """One target: the tilted prior, or the posterior of some data."""

    title: str
    long: Draws
    short: dict[str, np.ndarray]  # (n, data, *event), or (n, *event) of the prior, by site
    diagnosis: Diagnosis  # of the long chains
    biases: list[Bias]


def short_run_bias(
    run: Run,
    x: Any = None,
    *,
    n_chains: int = 16,
    n_draws: int = 400,
    n_warmup: int = 400,
    seed: int = 0,
    progress: bool | None = None,
) -> list[Comparison]:
    """Compare the short runs of a learned model with long chains of `pplebm.sample` on the same targets.

    The long chains are exact, move in noncentered coordinates, and adapt by target. A prior that reads covariates is
    another one in every row and is not examined by itself. A short run that differs is no mistake: it is part of the
    model that was learned (Nijkamp et al., NeurIPS 2019). But figures that rest on the density, such as evidence, are
    about the long one.

    Args:
        run: a learned model.
        x: a few data, (B, *event), whose posteriors to examine; None for the prior alone.
        n_chains, n_draws, n_warmup: of the long chains, for every datum.
        seed: of both.
        progress: show bars; by default if the output is a terminal.

    Returns:
        One entry for the tilted prior, if there is a tilt, and one for the posteriors, if data are given.

    Raises:
        PplebmError: if there is neither a tilt nor data.

    Example:
        >>> import tempfile, numpy, pplebm
        >>> data = numpy.random.default_rng(0).normal(size=(60, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("conjugate_tilt", data, out=f"{folder}/run", steps=1, hyper={"batch_size": 8})
        ...     prior, posterior = short_run_bias(run, data[:2], n_chains=4, n_draws=50, n_warmup=100)
        >>> prior.title, posterior.long["z1"].shape
        ('tilted prior', (4, 50, 2, 3))
    """
    program, found = run.program.with_coordinates("noncentered"), []
    if not program.tilts and x is None:
        raise PplebmError("the model has no tilt, so its prior is exact; give data to examine posteriors.")
    settings: dict[str, Any] = {
        "n_chains": n_chains, "n_draws": n_draws, "n_warmup": n_warmup, "seed": seed, "params": run.params,
        "progress": progress,
    }  # fmt: skip
    if program.tilts and not program.prior_reads:
        short = run.prior_latents(N_SHORT, seed)
        found.append(_compared("tilted prior", run, sample(program, **settings), short, None))
    if x is not None:
        rows = run.data(x)
        copies = take_rows(rows, program.ppl.asarray(np.tile(np.arange(n_rows(rows)), N_SHORT // 5)))
        long = sample(program, data=rows, **settings)
        found.append(_compared("posteriors", run, long, run.posterior_latents(copies, seed), copies))
    return found


def _compared(title: str, run: Run, long: Draws, short: Any, x: Any) -> Comparison:
    """Both runs in the supports of the sites, and their scalars compared."""
    program, ppl = run.program, run.program.ppl
    n_data = () if x is None else (long.plan.n_data,)
    values = {name: ppl.to_numpy(a) for name, a in program.constrain(run.params, short, x).items()}
    values = {name: a.reshape(-1, *n_data, *a.shape[1:]) for name, a in values.items()}
    short_terms = {
        name: ppl.to_numpy(a).reshape(-1, *n_data) for name, a in _terms(program, run.params, short, x).items()
    }
    moving, given = long.program, long.data if x is not None else None

    def terms(params: Any, z: Any, x: Any = None) -> Any:
        return _terms(program, params, moving.move(params, z, program.coordinates, x), x)

    long_terms = long.by_row("terms", terms, long.latents, given)
    pairs = [(n, long[n], values[n]) for n in long.latents] + [(n, long_terms[n], short_terms[n]) for n in long_terms]
    return Comparison(title, long, values, diagnose(long), [b for pair in pairs for b in _biases(*pair)])


def _terms(program: Program, params: Any, z: Any, x: Any) -> dict[str, Any]:
    terms = program.log_terms(params, z, x)
    found = {TILT: program.total(terms, program.tilts)} if program.tilts else {}
    likelihood = (*program.observed, *program.factors)
    return found | ({} if x is None else {LIKELIHOOD: program.total(terms, likelihood)})


def _biases(name: str, long: np.ndarray, short: np.ndarray) -> list[Bias]:
    """Scalars of one site; errors of the long run by the means of its chains."""
    rows = []
    for index in np.ndindex(long.shape[2:]):
        a, b = long[(slice(None), slice(None), *index)], short[(slice(None), *index)]
        error = np.hypot(a.mean(1).std(ddof=1) / np.sqrt(len(a)), b.std(ddof=1) / np.sqrt(len(b)))
        difference = float(b.mean() - a.mean())
        label = f"{name}[{','.join(map(str, index))}]" if index else name
        sd = max(float(a.std()), 1e-30)
        rows.append(
            Bias(
                label,
                float(a.mean()),
                sd,
                float(b.mean()),
                float(b.std()),
                difference / sd,
                difference / max(error, 1e-30),
            )
        )
    return rows
