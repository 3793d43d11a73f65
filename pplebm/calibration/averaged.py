r"""The posterior averaged over data against the prior: :math:`E_x\, p(z|x) = p(z)` for data of the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.sampling.convergence import effective_size
from pplebm.sampling.draws import Draws
from pplebm.sampling.guide_draws import GuideDraws
from pplebm.sampling.importance import GOOD_K_HAT

LEAST_DATA = 10  # whose spread gives the error


class Moment(NamedTuple):
    """A moment of one scalar of the latents under the prior, and under the posteriors of all data together."""

    name: str  # site[index], or (site[index] - mean)² about the mean under the prior
    prior: float
    averaged: float
    difference: float  # averaged minus prior
    error: float  # standard error of the difference

    @property
    def sigmas(self) -> float:
        """The difference in standard errors."""
        return self.difference / max(self.error, 1e-30)


def data_averaged(posterior: Draws, prior: Draws) -> list[Moment]:
    r"""Compare first and second moments of the data-averaged posterior and the tilted prior, those farthest off first.

    .. math:: E_{x \sim p(x)} E[g(z) \mid x] = E\, g(z)

    For data simulated from the program a difference beyond its error means that posteriors or prior are wrongly drawn,
    or that the two are not of one program, as where one of them leaves the tilt out. For data observed it means that
    the prior is not the one that fits them best: at the maximum of the likelihood the two agree for the functions g
    that the tilt can grow by.

    The error of the averaged moment is the spread of the posteriors' moments over data, which has the error of their
    draws in it; that of the prior comes from the effective size of its draws. Of priors given covariates the two are
    paired, row by row.

    Args:
        posterior: of `pplebm.sample`, with latents in the data plate; ten data or more.
        prior: of `pplebm.sample_prior`, at the same rows where the prior reads covariates.

    Raises:
        PplebmError: for global latents, fewer data, or draws that are not of a posterior and a prior at the same rows.

    Source: Geweke (Journal of the American Statistical Association 2004), section 3.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", 2. * z)
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> x = 2. + 2. ** 0.5 * torch.randn(20, generator=torch.Generator().manual_seed(0))
        >>> program = pplebm.Program(model, data=x)
        >>> settings = {"n_chains": 10, "n_draws": 10, "n_warmup": 50}
        >>> found = data_averaged(pplebm.sample(program, data=x, **settings), pplebm.sample_prior(program, **settings))
        >>> max(abs(moment.sigmas) for moment in found) < 4
        True
    """
    _check(posterior, prior)
    found = []
    for site in posterior.program.latents:
        for label, of_data, of_prior in _scalars(site.name, posterior, prior):
            center = float(of_prior.mean())
            found.append(_moment(label, of_data, of_prior, prior.has_data_axis))
            squares = ((of_data - center) ** 2, (of_prior - center) ** 2)
            found.append(_moment(f"({label} - mean)²", *squares, prior.has_data_axis))
    return sorted(found, key=lambda moment: -abs(moment.sigmas))


def _check(posterior: Draws, prior: Draws) -> None:
    if posterior.is_prior or not prior.is_prior:
        raise PplebmError("give draws of a posterior and of a prior, in this order.")
    posterior.program.refuse_global_latents("the posterior averaged over data")
    n = posterior.plan.n_data
    if n < LEAST_DATA:
        raise PplebmError(f"the spread over {n} data gives no error; sample the posteriors of {LEAST_DATA} or more.")
    if prior.has_data_axis and prior.plan.n_data != n:
        raise PplebmError(f"the prior was drawn at {prior.plan.n_data} rows, the posteriors at {n}; draw at the same.")
    if min(posterior.n_draws, prior.n_draws) < 4:
        raise PplebmError("four draws of each chain or more are needed for their effective size.")


def _scalars(site: str, posterior: Draws, prior: Draws) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Every coordinate of a site: its name, and draws (chains, draws, data) and (chains, draws[, data])."""
    a, b = posterior[site], prior[site]
    for index in np.ndindex(*a.shape[3:]):
        name = f"{site}[{','.join(map(str, index))}]" if index else site
        yield name, a[(..., *index)].astype(float), b[(..., *index)].astype(float)


def _moment(name: str, of_data: np.ndarray, of_prior: np.ndarray, is_paired: bool) -> Moment:
    means = of_data.mean((0, 1))
    if is_paired:
        means = means - of_prior.mean((0, 1))
        variance = means.var(ddof=1) / len(means)
    else:
        own = of_prior.var(ddof=1) / float(effective_size(of_prior[None])[0])
        variance = means.var(ddof=1) / len(means) + own
    averaged, center = float(of_data.mean()), float(of_prior.mean())
    return Moment(name, center, averaged, averaged - center, float(variance**0.5))


class KHats(NamedTuple):
    """k-hat of a guide's weights over data."""

    share_good: float  # of the data, at most 0.7
    median: float
    worst: tuple[tuple[int, float], ...]  # data and their k-hat, the largest first
    ess_share: float  # median effective size, as a share of the draws

    @property
    def verdict(self) -> str:
        """One sentence."""
        datum, k = self.worst[0]
        if self.share_good == 1.0:
            return f"k-hat is at most {GOOD_K_HAT} at all data: weighted draws of the guide can be trusted."
        return (
            f"k-hat is above {GOOD_K_HAT} at {1.0 - self.share_good:.0%} of the data, {k:.2f} at datum {datum}: the "
            f"guide misses parts of the posterior there."
        )


def k_hats(found: GuideDraws, n_worst: int = 5) -> KHats:
    """Summary of the k-hats of a guide by datum.

    Args:
        found: of `pplebm.sample_guide`.
        n_worst: data told by number.
    """
    k = np.where(np.isnan(found.k_hat), np.inf, found.k_hat)
    worst = tuple((int(i), float(k[i])) for i in np.argsort(-k, kind="stable")[:n_worst])
    share = np.median(found.ess) / found.log_weights.shape[1]
    return KHats(float((k <= GOOD_K_HAT).mean()), float(np.median(k)), worst, float(share))
