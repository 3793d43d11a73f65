r"""Bounds from both sides on log Z and on log p(x) of simulated data, whose latents are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from pplebm.errors import PplebmError
from pplebm.evidence.annealed import PILOT_PARTICLES
from pplebm.evidence.annealing import importance_sampled, refined, reverse_sampled, sequential
from pplebm.evidence.path import Path
from pplebm.ppl.language import Data, Latents, Params
from pplebm.ppl.trees import n_rows
from pplebm.program import Program
from pplebm.sampling.blocks import block_seed
from pplebm.sampling.sampler import sample_prior

NARROW = 0.05  # nats squared: variance of log weights, about twice the distance that it makes between the bounds
N_WARMUP = 1000  # of the chains that simulate
N_COPIES = 16  # particles of every constant of a prior that reads covariates


class Bound(NamedTuple):
    """A mean whose expectation bounds a quantity, nats, with its standard error and degrees of freedom."""

    mean: float
    error: float
    freedom: int

    def limit(self, side: int, level: float) -> float:
        """The end of a one-sided confidence interval: below for side -1, above for 1."""
        return float(self.mean + side * self.error * student.ppf(level, self.freedom))


class Bounds(NamedTuple):
    """Stochastic bounds on log Z and on the mean of log p(x) over simulated data, nats."""

    log_z: tuple[Bound, Bound]  # lower, upper
    log_evidence: tuple[Bound, Bound]
    data: dict[str, np.ndarray]  # observed sites, simulated

    def limits(self, of: str = "log_evidence", level: float = 0.999) -> tuple[float, float]:
        """Numbers between which the truth lies, each side with that confidence.

        Args:
            of: "log_evidence" or "log_z".
            level: of each side.
        """
        lower, upper = getattr(self, of)
        return lower.limit(-1, level), upper.limit(1, level)


def bidirectional(
    program: Program,
    rows: Any = 64,
    *,
    params: Params | None = None,
    prior: Latents | None = None,
    n_particles: int = 16,
    variance: float = NARROW,
    seed: int = 0,
) -> Bounds:
    r"""Bracket log Z and log p(x) of simulated data by annealing from the base, and back from known latents.

    .. math::
        E \log w_{\text{base} \to \text{target}} \le \log Z \le -E \log w_{\text{target} \to \text{base}}

    A datum simulated from a draw z of the tilted prior makes z an exact draw of its posterior, from which the way back
    begins. The distance between the bounds is what the estimator may be off by at most; a model whose bounds stay apart
    wants a smaller `variance`. Real data have no known latents, but those that the model simulates tell about them as
    far as they are alike.

    Args:
        program: any whose latents stand inside the data plate.
        rows: how many data; or data with covariates, one datum simulated at every row.
        params: where the program's parameters are not to be its own.
        prior: exact draws of the tilted prior in the program's unconstrained coordinates, one for every datum, where
            they can be had; adjusted chains, one for every datum, otherwise.
        n_particles: of every datum, in each direction.
        variance: of the log weights, as in `annealing.refined`.
        seed: of all random numbers.

    Raises:
        PplebmError: for a program with latents outside the data plate.

    Source: Grosse, Ghahramani, Adams (2015, arXiv:1511.02543).

    Example:
        >>> import pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> bounds, page = bidirectional(program, 32), pplebm.load("conjugate_tilt")
        >>> values = {name: a.numpy() for name, a in program.params.items()}
        >>> low, high = bounds.limits("log_z")
        >>> bool(low < page.closed_form(values, page.Hyper()).log_constant < high), high - low < 0.5
        (True, True)
    """
    program.refuse_global_latents("bidirectional bounds")
    if isinstance(rows, int) and (program.generator_reads or program.prior_reads):
        raise PplebmError(f"the program reads {', '.join(program.covariates)}; give rows= the data they are in.")
    params = program.params if params is None else dict(params)
    given = None if isinstance(rows, int) else program.data(rows)
    n = rows if isinstance(rows, int) else n_rows(given)
    z = _prior_draws(program, params, given, n, block_seed(seed, 0)) if prior is None else prior
    drawn = program.predict(params, z, program.ppl.key(block_seed(seed, 1)), given)
    data = program.with_observed(drawn, n if given is None else given)
    z = program.move(params, z, "noncentered", given)
    of_z = _of_prior(program, params, given, z, variance, seed)
    low, high = _bounds(*_both(program, params, data, True, z, n_particles, variance, block_seed(seed, 2)))
    lower = Bound(low.mean - of_z[1].mean, float(np.hypot(low.error, of_z[1].error)), n - 1)
    upper = Bound(high.mean - of_z[0].mean, float(np.hypot(high.error, of_z[0].error)), n - 1)
    return Bounds(of_z, (lower, upper), {name: program.ppl.to_numpy(a) for name, a in drawn.items()})


def _prior_draws(program: Program, params: Params, given: Data | None, n: int, seed: int) -> Latents:
    """A draw of the tilted prior for every datum, by a chain of its own: independent of each other."""
    settings: dict[str, Any] = {"n_draws": 1, "n_warmup": N_WARMUP, "params": params, "seed": seed, "progress": False}
    reads = given is not None and program.prior_reads
    draws = sample_prior(program, given=given, **settings) if reads else sample_prior(program, n_chains=n, **settings)
    first = (0, 0) if reads else (slice(None), 0)
    return {site: program.ppl.asarray(a[first], keep=True) for site, a in draws.latents.items()}


def _of_prior(
    program: Program, params: Params, given: Data | None, z: Latents, variance: float, seed: int
) -> tuple[Bound, Bound]:
    """Bounds on log Z, the mean of those of all rows where the prior reads covariates."""
    if not program.tilts:
        return Bound(0.0, 0.0, 1), Bound(0.0, 0.0, 1)
    data = given if program.prior_reads else None
    n = len(next(iter(z.values()))) if data is None else N_COPIES
    return _bounds(*_both(program, params, data, False, z, n, variance, block_seed(seed, 3)))


def _bounds(forward: np.ndarray, reverse: np.ndarray) -> tuple[Bound, Bound]:
    """Means over particles and data, (n, data) each, of bounds from below and above, and their errors."""
    n, n_data = forward.shape
    low, high = forward.mean(0), reverse.mean(0)
    of_particles = (forward.var(0, ddof=1).sum() / n) ** 0.5 / n_data
    if n_data == 1:
        return Bound(low[0], of_particles, n - 1), Bound(high[0], reverse.std(ddof=1) / n**0.5, n - 1)
    # Particles of a datum share their start on the way back: data alone are independent. Their spread around the lower
    # bound leaves out how much log p(x) itself varies.
    of_data = (high - low).std(ddof=1) / n_data**0.5
    return Bound(low.mean(), of_particles, n_data - 1), Bound(high.mean(), of_data, n_data - 1)


def _both(
    program: Program, params: Params, data: Data | None, observed: bool, z: Latents, n: int, variance: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds by particle and datum from below and above, nats.

    Args:
        z: noncentered draws of the target: one for every datum; or without data one for every particle.
    """
    ppl = program.ppl
    pilot = sequential(Path(program, params, data, observed, PILOT_PARTICLES), block_seed(seed, 0))
    schedule, path = refined(pilot.schedule, variance), Path(program, params, data, observed, n)
    forward, _ = importance_sampled(path, block_seed(seed, 1), schedule)
    index = ppl.asarray(np.tile(np.arange(len(next(iter(z.values())))), 1 if data is None else n))
    reverse = reverse_sampled(path, block_seed(seed, 2), schedule, {site: a[index] for site, a in z.items()})
    return forward, -reverse
