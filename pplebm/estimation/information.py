r"""Observed information of the likelihood of a tilted program, by Louis' formula with both phases."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.estimation.derivatives import Chosen
from pplebm.estimation.moments import Moments, Products, moments
from pplebm.estimation.observed import Information
from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.blocks import batch_seed
from pplebm.sampling.draws import Draws
from pplebm.sampling.sampler import sample

LEAST_CHAINS = 4  # of every target: errors come from how they differ
NUMBERS_AT_ONCE = 16_000_000  # latents of all draws of one batch of data
MOST_PRIOR_CHAINS = 64  # for every chain of the posteriors
OF_PRIOR = 2**31  # number of its seed, beyond those of batches
EVIDENT_DRIFT = 6.0  # standard errors


def information(
    program: Program,
    data: Any,
    *,
    params: Params | None = None,
    names: Sequence[str] | None = None,
    n_chains: int = 16,
    n_draws: int = 100,
    n_warmup: int = 500,
    n_prior_chains: int | None = None,
    seed: int = 0,
    coordinates: str | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Information:
    r"""Observed information of the marginal likelihood at given parameters, by adjusted chains of both phases.

    .. math::
        -\nabla^2 \log p(x) = -E[\nabla^2 \log \tilde p(x, z) \mid x] - \mathrm{Var}[\nabla \log \tilde p(x, z) \mid x]
                              + E[\nabla^2 \log \tilde p(z)] + \mathrm{Var}[\nabla \log \tilde p(z)]

    and :math:`s = E[\nabla \log \tilde p(x, z) \mid x] - E[\nabla \log \tilde p(z)]` of every datum, in sum over data.
    The last two terms are the curvature of log Z, without tilt zero, of every row its own where the prior reads
    covariates. Replicate k consists of the k-th chain of every posterior and as many of the prior; products of
    expectations are those of different replicates, so that no variance is too small by that of a mean.

    Args:
        program: any; derivatives are at fixed latents in its coordinates.
        data: as in `pplebm.sample`.
        params: where the program's parameters are not to be its own.
        names: of parameters that are estimated; the others are held. All by default.
        n_chains: of every posterior, 4 or more; errors come from how they differ.
        n_draws, n_warmup: of every chain.
        n_prior_chains: of the prior in all, a multiple of n_chains. By default up to 64 times as many, since the error
            of the prior counts once for every datum; n_chains of every row where it reads covariates.
        seed: of all random numbers.
        coordinates: of the chains, where those of the program are not wanted.
        progress: show bars; by default if the output is a terminal.
        settings: of `pplebm.sample`: `kernel`, `thin`, `rows_at_once`.

    Raises:
        PplebmError: for more than 300 numbers, too few chains, or draws whose density has no finite derivatives.

    Source: Louis (JRSS B 1982) for the first two terms; the others are the same formula of log Z.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     t = pyro.param("t", torch.tensor(0.5))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", t * z)  # z ~ N(t, 1), so x ~ N(t, 2)
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> x = torch.tensor([0., 1., 2., -1.])
        >>> found = information(pplebm.Program(model, data=x), x, n_draws=50, n_warmup=200)
        >>> bool(abs(found.observed[0, 0] - 4 / 2) < 0.3)
        True
    """
    params = program.params if params is None else dict(params)
    chosen, x = Chosen(program, params, names), program.data(data)
    _check(program, n_chains, n_draws, n_prior_chains)
    is_whole = program.has_global_latents
    n = 1 if is_whole else n_rows(x)
    sampler = program.with_coordinates(coordinates or program.coordinates)
    settings = settings | {"n_draws": n_draws, "n_warmup": n_warmup, "params": params, "progress": progress}

    def found(x: Data | None, given: Data | None, chains: int, kept: int, seed: int) -> Moments:
        draws = sample(sampler, data=x, given=given, n_chains=chains, seed=seed, **settings)
        rows = given if x is None else x
        latents = _moved(draws, program)
        return _finite(moments(chosen, latents, rows, n_chains, kept, x is not None, progress), chosen)

    reads = program.prior_reads or is_whole
    prior = None
    if program.tilts and not reads:
        chains = n_prior_chains or n_chains * min(n, MOST_PRIOR_CHAINS)
        prior = _settled(found(None, None, chains, 1, batch_seed(seed, OF_PRIOR)), chosen)
    parts = _Sums(len(chosen), n_chains, prior, n)
    size = min(n, max(1, NUMBERS_AT_ONCE // (n_chains * n_draws * program.width)))
    for i, start in enumerate(range(0, n, size)):
        index, kept = np.arange(start, start + size) % n, min(size, n - start)
        rows = x if is_whole else take_rows(x, program.ppl.asarray(index))
        posterior = found(rows, None, n_chains, kept, batch_seed(seed, i))
        of_rows = None
        if program.tilts and reads:
            chains = n_prior_chains or n_chains
            of_rows = _settled(found(None, rows, chains, kept, batch_seed(seed, OF_PRIOR + 1 + i)), chosen)
        parts.add(posterior, of_rows)
    return parts.louis(chosen, one_datum=is_whole)


class _Sums:
    """Sums over batches of data of what score, information and outer product are made of."""

    def __init__(self, width: int, m: int, prior: Moments | None, n_data: int) -> None:
        self.prior, self.n_data = prior, n_data
        zero = lambda: Products(np.zeros((m, width, width)), np.zeros((m, width, width)), np.zeros((width, width)))
        self.positive, self.negative, self.scores = zero(), zero(), zero()
        self.second, self.score = np.zeros((m, width, width)), np.zeros((m, width))
        if prior is not None:
            self.negative = self.negative + Products.of(prior.gradient * n_data**0.5)
            self.second = self.second - n_data * prior.second

    def add(self, posterior: Moments, prior: Moments | None) -> None:
        """Posteriors of a batch, and its priors where every row has its own."""
        scores = posterior.gradient
        self.positive = self.positive + Products.of(scores)
        self.second = self.second + posterior.second
        if prior is not None:
            self.negative = self.negative + Products.of(prior.gradient)
            self.second = self.second - prior.second
        if (own := self.prior if prior is None else prior) is not None:
            scores = scores - own.gradient
        self.scores = self.scores + Products.of(scores)
        self.score = self.score + scores.sum(1)

    def louis(self, chosen: Chosen, one_datum: bool) -> Information:
        """The whole, and what is left of it without one replicate each."""
        leave = lambda a: (a.sum(0) - a) / (len(a) - 1)
        observed = -self.second.mean(0) + self.positive.mean() - self.negative.mean()
        without = -leave(self.second) + self.positive.without() - self.negative.without()
        outer, rest = self.scores.mean(), self.scores.without()
        return Information(
            chosen.labels, chosen.value, self.n_data, self.score.mean(0), observed, None if one_datum else outer,
            (leave(self.score), without, rest),
        )  # fmt: skip


def _check(program: Program, n_chains: int, n_draws: int, n_prior_chains: int | None) -> None:
    if not isinstance(n_chains, int) or n_chains < LEAST_CHAINS:
        raise PplebmError(f"n_chains must be an integer from {LEAST_CHAINS} on, got {n_chains!r}.")
    if not isinstance(n_draws, int) or n_draws < 2:
        raise PplebmError(f"n_draws must be an integer from 2 on, got {n_draws!r}.")
    if n_prior_chains is not None and (n_prior_chains < n_chains or n_prior_chains % n_chains):
        raise PplebmError(f"n_prior_chains must be a multiple of n_chains={n_chains}, got {n_prior_chains!r}.")
    if program.tilts and program.reads.fed_latents:
        site = sorted(program.reads.fed_latents)[0]
        raise PplebmError(
            f"latent site '{site}' depends on the value of an observed site, so that the tilted prior has no constant "
            f"of its own and the likelihood no information by Louis' formula; make that value a covariate."
        )


def _moved(draws: Draws, program: Program) -> dict[str, np.ndarray]:
    """Latents of draws in the coordinates of the program."""
    if draws.program.coordinates == program.coordinates:
        return draws.latents
    target, sampler = program.coordinates, draws.program
    move = lambda params, z, data=None: sampler.move(params, z, target, data)
    return draws.by_row(f"moved to {target}", move, draws.latents, draws.data)


def _finite(found: Moments, chosen: Chosen) -> Moments:
    lost = ~(np.isfinite(found.second).all((0, 1)) & np.isfinite(found.gradient).all((0, 1)))
    if lost.any():
        raise PplebmError(
            f"the second derivative of the log density by '{chosen.labels[int(np.argmax(lost))]}' is not finite at "
            f"some draws; look at the program there, or hold that parameter (names= of the others)."
        )
    return found


def _settled(prior: Moments, chosen: Chosen) -> Moments:
    """The same, with a warning if the chains of the prior are still under way."""
    m, away = len(prior.drift), prior.drift.mean(0)
    error = prior.drift.std(0, ddof=1) / m**0.5
    signs = np.abs(away) / np.where(error > 0.0, error, np.inf)
    if signs.max() > EVIDENT_DRIFT:
        warnings.warn(
            f"chains of the prior are still under way: the expected gradient by "
            f"'{chosen.labels[int(np.argmax(signs))]}' differs between the halves of their draws by "
            f"{signs.max():.0f} standard errors; take more warm-up (n_warmup=).",
            PplebmWarning,
            stacklevel=3,
        )
    return prior
