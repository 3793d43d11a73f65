r"""The front of the room: log Z of a tilted prior, and log p(x) of data, by an estimator of the user's choice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.evidence.annealed import annealed_importance, sequential_monte_carlo
from pplebm.evidence.bridge import bridge_sampling
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.importance import importance_sampling
from pplebm.evidence.replicas import thermodynamic_integration
from pplebm.ppl.compilations import keep_compilations
from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.blocks import batch_seed
from pplebm.sampling.wide import batch_rows


class Method(NamedTuple):
    """An estimator, and how many particles or draws it takes unless told otherwise."""

    estimate: Callable[..., Evidence]
    n_prior: int  # of a log Z, whose error all data share
    n_data: int  # of a datum


def bridged_or_annealed(
    program: Program, params: Params, data: Data | None, observed: bool, *, n_particles: int = 1000, **settings: Any
) -> Evidence:
    """Bridge sampling of posteriors, and annealed importance sampling of those where it is refused, and of priors.

    Bridges cost a tenth where a posterior is about normal; annealing copes with any shape. A prior whose annealed
    weights are too heavy, as those of a strong tilt that few draws of the base lead to, goes to sequential Monte Carlo
    with sixteen times as many particles, which are drawn anew on the way and so multiply where the mass is. Mass that
    no particle from the base comes near is missed by all of them, and no error tells of it.

    Args:
        program, params, data, observed, settings: as in `annealed_importance`.
        n_particles: draws of either end of a bridge, a multiple of what annealing takes.
    """
    if not observed:
        return _annealed(program, params, data, observed, n_particles, **settings)
    found = bridge_sampling(program, params, data, observed, n_particles=n_particles, **settings)
    n = max(ANNEALED, n_particles // PER_PARTICLE)
    return _once_more(found, program, data, lambda rows: annealed_importance(
        program, params, rows, observed, n_particles=n, **settings))  # fmt: skip


def _annealed(
    program: Program, params: Params, data: Data | None, observed: bool, n_particles: int, **settings: Any
) -> Evidence:
    found = annealed_importance(program, params, data, observed, n_particles=n_particles, **settings)
    return _once_more(found, program, data, lambda rows: sequential_monte_carlo(
        program, params, rows, observed, n_particles=MORE * n_particles, **settings))  # fmt: skip


def _once_more(
    found: Evidence, program: Program, data: Data | None, estimate: Callable[[Data | None], Evidence]
) -> Evidence:
    """What is trusted, and another estimate of the rest."""
    again = np.flatnonzero(~found.is_trusted)
    if not len(again):
        return found
    is_whole = data is None or program.has_global_latents
    return found.replaced(again, estimate(data if is_whole else take_rows(data, program.ppl.asarray(again))))


ANNEALED, PER_PARTICLE = 64, 16  # least annealed particles; draws of a bridge for one of them
MORE = 16  # times the particles of a prior, where annealing is refused
METHODS = {
    "auto": Method(bridged_or_annealed, 1024, 1000),
    "ais": Method(annealed_importance, 1024, 64),
    "smc": Method(sequential_monte_carlo, 1024, 256),
    "thermodynamic": Method(thermodynamic_integration, 1600, 800),
    "bridge": Method(bridge_sampling, 4000, 1000),
    "importance": Method(importance_sampling, 16_000, 1024),
}
LEAST_PARTICLES = 16
OF_PRIOR = 2**31  # number of its seed, beyond those of batches


@dataclass(frozen=True)
class Settings:
    """How an estimator runs.

    Raises:
        PplebmError: for an unknown method, or fewer than 16 particles.
    """

    method: str
    wanted: int | None  # particles of every constant; None for what the method takes
    seed: int
    rows_at_once: int | None
    progress: bool | None
    further: dict[str, Any]  # of the method alone
    of_prior: bool = False

    def __post_init__(self) -> None:
        """Check them."""
        if self.method not in METHODS:
            raise PplebmError(f"method '{self.method}' is not known; choose one of {', '.join(METHODS)}.")
        if not isinstance(self.n_particles, int) or self.n_particles < LEAST_PARTICLES:
            raise PplebmError(f"n_particles must be an integer from {LEAST_PARTICLES} on, got {self.n_particles!r}.")

    @property
    def n_particles(self) -> int:
        """Particles of every constant."""
        method = METHODS[self.method]
        return (method.n_prior if self.of_prior else method.n_data) if self.wanted is None else self.wanted


def log_z(
    program: Program,
    given: Any = None,
    *,
    params: Params | None = None,
    method: str = "auto",
    n_particles: int | None = None,
    seed: int = 0,
    rows_at_once: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Evidence:
    r"""Estimate the log normalising constant of the tilted prior, with its standard error, in nats.

    .. math:: \log Z = \log \int p_0(z)\, e^{f(z)}\, dz

    Where the prior reads covariates c there is a Z(c) for every row. A program without tilt has log Z = 0 exactly.

    Args:
        program: any.
        given: data with the covariates that the prior reads, one row for every constant wanted; all data of a program
            whose latents stand outside the data plate.
        params: where the program's parameters are not to be its own.
        method: "ais", annealed importance sampling, which has no bias, is also what "auto" is here; "smc", sequential
            Monte Carlo; "thermodynamic" integration over replicas; "bridge" sampling between chains of both ends;
            "importance" sampling.
        n_particles: of every constant: particles, or draws of chains; by default as many as suit the method.
        seed: of all random numbers.
        rows_at_once: particles x rows that run as one batch; by default as many as memory likes.
        progress: show a bar; by default if the output is a terminal.
        settings: of the method.

    Returns:
        Evidence of one entry, or one for every row given.

    Raises:
        PplebmError: for a prior that reads covariates which are not given, an improper latent, or if no estimate can
            be trusted, with the reason.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> page = pplebm.load("conjugate_tilt")
        >>> values = {name: a.numpy() for name, a in program.params.items()}
        >>> found, exact = log_z(program, n_particles=256), page.closed_form(values, page.Hyper()).log_constant
        >>> abs(float(found.value[0]) - exact) < 3 * float(found.error[0]) < 0.2
        True
    """
    params = program.params if params is None else dict(params)
    rows = None if given is None else program.data(given)
    run = Settings(method, n_particles, seed, rows_at_once, progress, settings, of_prior=True)
    return prior_constants(program, rows, params, run)


def log_evidence(
    program: Program,
    data: Any,
    *,
    params: Params | None = None,
    method: str = "auto",
    n_particles: int | None = None,
    log_z: Evidence | None = None,
    base: bool = False,
    seed: int = 0,
    rows_at_once: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Evidence:
    r"""Estimate log p(x) of every datum under the tilted program, with standard errors, in nats.

    .. math::
        \log p(x) = \log \int p(x \mid z)\, p_0(z)\, e^{f(z)}\, dz - \log Z

    both relative to the base, whose draws are exact. The error of log Z is that of all data, and told as
    `common_error`. Of a program whose latents stand outside the data plate there is one number, log p of all data.

    Args:
        program: any, tilted or not.
        data: one row for every number wanted.
        params, seed, rows_at_once, progress, settings: as in `log_z`.
        method: those of `log_z`; "auto" is bridge sampling, and annealed importance sampling of the rows where that is
            refused. log Z is estimated by the same method.
        n_particles: of every datum, as there.
        log_z: constants that are known, of `pplebm.log_z`; otherwise they are estimated.
        base: under the base in the place of the tilted program; its log Z is 0.

    Returns:
        Evidence of one entry for every row. Rows that cannot be trusted are NaN, with a reason.

    Raises:
        PplebmError: for data that leave the support, or if no row can be trusted.

    Example:
        >>> import numpy as np, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> x, page = np.array([[0.5, -1.0, 0.2], [0.0, 0.3, 1.0]], np.float32), pplebm.load("conjugate_tilt")
        >>> values = {name: a.numpy() for name, a in program.params.items()}
        >>> joint = [page.closed_form(values, page.Hyper(), row).log_constant for row in x]
        >>> exact = np.array(joint) - page.closed_form(values, page.Hyper()).log_constant
        >>> found = log_evidence(program, x)
        >>> bool((abs(found.value - exact) < 4 * found.error).all() and (found.error < 0.3).all())
        True
    """
    params = program.params if params is None else dict(params)
    x = program.data(data)
    program.check_data(x, params)
    tilted = bool(program.tilts) and not base
    run = Settings(method, n_particles, seed, rows_at_once, progress, {"tilted": tilted, **settings})
    if not tilted:
        log_z = Evidence.of("no tilt", [0.0], [0.0])
    elif log_z is None:
        of_prior = Settings(method, None, batch_seed(seed, OF_PRIOR), rows_at_once, progress, settings, of_prior=True)
        log_z = prior_constants(program, x if _reads(program) else None, params, of_prior)
    parts = list(by_batch(program, params, x, True, run, "log p(x)"))
    return checked(Evidence.concatenate(parts).minus(log_z), "log p(x)")


def prior_constants(program: Program, rows: Data | None, params: Params, run: Settings) -> Evidence:
    """log Z of the tilted prior, at the rows if it reads them."""
    if rows is None and program.tilts and (_reads(program) or program.reads.fed_latents):
        raise PplebmError(
            f"the prior reads {', '.join(program.covariates) or 'observed values'}, so log Z is another one in every "
            f"row; give given= the rows it is wanted at."
        )
    data = rows if _reads(program) else None
    if not program.tilts:
        n = 1 if data is None or program.has_global_latents else n_rows(data)
        return Evidence.of("no tilt", np.zeros(n), np.zeros(n))
    return checked(Evidence.concatenate(list(by_batch(program, params, data, False, run, "log Z"))), "log Z")


def by_batch(
    program: Program, params: Params, data: Data | None, observed: bool, run: Settings, what: str, done: int = 0
) -> Iterator[Evidence]:
    """Constants relative to the base, batch by batch of data; every batch has a seed of its own.

    Args:
        program, params: any.
        data, observed: as estimators take them.
        run: of the estimator.
        what: is estimated, for the bar.
        done: rows of whole batches that are left out.
    """
    if observed and program.given and data is not None:  # nothing to integrate over
        base = not run.further.get("tilted", True)
        values = program.ppl.to_numpy(program.log_given(params, data, base)).astype(float)[done:]
        yield Evidence.of("density of the data", values, 0.0 * values)
        return
    keep_compilations()
    is_whole = data is None or program.has_global_latents
    n = 1 if is_whole else n_rows(data)
    size = batch_rows(program, data, run.n_particles, n, run.rows_at_once) // run.n_particles
    starts = range(0, n, size)
    with tqdm(desc=what, unit="step", disable=None if run.progress is None else not run.progress) as bar:
        for i in range(-(-done // size), len(starts)):
            bar.set_description(what if len(starts) == 1 else f"{what}, batch {i + 1} of {len(starts)}")
            index = np.arange(starts[i], starts[i] + size) % n  # the last batch is filled up, so that shapes repeat
            part = data if is_whole else take_rows(data, program.ppl.asarray(index))
            seed = batch_seed(run.seed, i)
            found = METHODS[run.method].estimate(
                program, params, part, observed, n_particles=run.n_particles, seed=seed, bar=bar, **run.further
            )  # fmt: skip
            yield found.take(slice(0, n - starts[i]))


def checked(found: Evidence, what: str) -> Evidence:
    """The estimate, with a warning if some entries cannot be trusted.

    Raises:
        PplebmError: if none can.
    """
    lost = np.flatnonzero(~found.is_trusted)
    if len(lost) == len(found):
        raise PplebmError(f"{what} by {found.method} cannot be trusted: {found.reasons[0]}")
    if len(lost):
        warnings.warn(
            f"{what} of {len(lost)} of {len(found)} data by {found.method} cannot be trusted and is NaN; the first of "
            f"them, datum {lost[0]}: {found.reasons[lost[0]]}",
            PplebmWarning,
            stacklevel=3,
        )
    return found


def _reads(program: Program) -> bool:
    """Whether the tilted prior needs data: covariates, or all rows of a joint program."""
    return program.prior_reads or program.has_global_latents
