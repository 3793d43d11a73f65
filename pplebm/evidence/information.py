r"""What a guide tells of data, and how far its aggregate is from the prior: information, mismatch, and their sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.guides.guide import Guide
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program

ACTIVE = 0.01  # variance of posterior means above which a latent counts as used


class Information(NamedTuple):
    r"""Nats per datum, each with its standard error over the draws; the data are held.

    .. math:: \underbrace{\tfrac1n \sum_i KL(q(z \mid x_i) \| p(z))}_{rate} = I_q(x; z) + KL(q(z) \| p(z)), \qquad
              q(z) = \tfrac1n \sum_i q(z \mid x_i)
    """

    rate: float
    rate_error: float
    mutual: float  # I_q(x; z), from 0 to `ceiling`
    mutual_error: float
    mismatch: float  # KL(q(z) || p(z))
    mismatch_error: float
    ceiling: float  # log n
    activity: dict[str, np.ndarray]  # by site: variance over the data of the guide's means, without bias

    @property
    def n_active(self) -> int:
        """Latents whose guide moves with the data: `activity` above 0.01.

        Source: Burda, Grosse, Salakhutdinov (ICLR 2016), section 5.2.
        """
        return int(sum((a > ACTIVE).sum() for a in self.activity.values()))


def information(
    program: Program,
    data: Any,
    guide: Guide | None = None,
    *,
    log_z: Evidence | None = None,
    n_draws: int = 10,
    seed: int = 0,
    params: Params | None = None,
    progress: bool | None = None,
) -> Information:
    r"""Mutual information of data and latents under a guide, and the divergence of its aggregate from the prior.

    .. math::
        I_q(x; z) = \frac1n \sum_i E_{q(z \mid x_i)} \log \frac{q(z \mid x_i)}{q(z)}, \qquad
        KL(q(z) \| p(z)) = \frac1n \sum_i E_{q(z \mid x_i)} [\log q(z) - \log \tilde p(z) + \log Z]

    q(z) is the mixture of the guide over all n rows, not over a batch, so both are unbiased at these rows; it takes
    n² `n_draws` densities. The information is that on which of these n rows a latent came from: at most log n, and on
    average at most that of their population, so a figure near the ceiling only says that n was too small. p is the
    prior with its tilts.

    Args:
        program: the model; its latents all stand in the data plate, and its prior reads no covariates.
        data: rows, as for `pplebm.sample`.
        guide: q(z|x); the program's own if left out.
        log_z: of `pplebm.log_z(program)` or `run.log_z()`, where there are tilts. Its error is part of those of
            rate and mismatch.
        n_draws: of every row, 2 or more.
        seed: of the draws.
        params: of the model and of the guide, if not their own; those of a run's program are learned.
        progress: show a bar; by default if the output is a terminal.

    Raises:
        PplebmError: without guide; for a tilt without log_z, or one that cannot be trusted; for fewer than two rows or
            draws; for a prior that reads covariates.

    Source: Hoffman, Johnson (NIPS 2016 workshop on approximate inference); Zhao, Song, Ermon (AAAI 2019), section 3.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> from pplebm.guides.guide import Guide
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x, 0.1))
        >>> x = torch.tensor([-1., 1.])
        >>> found = information(pplebm.Program(model, data=x), x, Guide(pplebm.Program(model, data=x), guide))
        >>> round(found.mutual, 4), round(found.ceiling, 4)  # which of two it was is plain
        (0.6931, 0.6931)
        >>> abs(found.mutual + found.mismatch - found.rate) < 1e-5, found.n_active
        (True, 1)
    """
    guide, x, constant, constant_error = _checked(program, data, guide, log_z)
    if not isinstance(n_draws, int) or n_draws < 2 or n_rows(x) < 2:
        raise PplebmError(f"information needs two rows and two draws or more, got {n_rows(x)} rows, {n_draws!r} draws.")
    params = program.params | guide.params | dict(params or {})
    z, log_own, log_prior = _draws(program, guide, x, n_draws, seed, params)
    log_mixture = _aggregate(program, guide, x, z, n_draws, params, progress)
    shape = (n_draws, n_rows(x))
    own, mixture, prior = (a.reshape(shape) for a in (log_own, log_mixture, log_prior - constant))
    found = {
        "rate": _mean(own - prior, constant_error),
        "mutual": _mean(own - mixture),
        "mismatch": _mean(mixture - prior, constant_error),
    }
    values = {site: program.ppl.to_numpy(a).astype(float) for site, a in z.items()}
    return Information(
        **{name: value for name, (value, _) in found.items()},
        **{f"{name}_error": error for name, (_, error) in found.items()},
        ceiling=float(np.log(n_rows(x))),
        activity={site: _activity(a.reshape(*shape, *a.shape[1:])) for site, a in values.items()},
    )


def _mean(terms: np.ndarray, common_error: float = 0.0) -> tuple[float, float]:
    """Mean over draws and data, (draws, data), and its standard error: that of the draws, the data held."""
    return float(terms.mean()), float((terms.var(0, ddof=1).mean() / terms.size + common_error**2) ** 0.5)


def _checked(
    program: Program, data: Any, guide: Guide | None, log_z: Evidence | None
) -> tuple[Guide, Data, float, float]:
    """Guide, rows, and log Z with its error."""
    guide = guide_for(program, guide)
    if not program.tilts:
        return guide, program.data(data), 0.0, 0.0
    if log_z is None:
        raise PplebmError(
            f"the prior is tilted by '{program.tilts[0].name}', so its density needs log Z: give "
            f"log_z=pplebm.log_z(program), or that of the run."
        )
    if len(log_z) != 1 or not log_z.is_trusted[0]:
        raise PplebmError(f"log_z has to be one number that can be trusted; got {len(log_z)}: {log_z.reasons[0]}")
    return guide, program.data(data), float(log_z.value[0]), float(log_z.error[0])


def guide_for(program: Program, guide: Guide | None) -> Guide:
    """The guide, or the program's own.

    Raises:
        PplebmError: if there is none, or the prior is another one at every row.
    """
    if program.prior_reads:
        raise PplebmError(
            f"the prior reads the covariates {', '.join(program.covariates)}, so it is another one at every row and "
            f"an aggregate over rows has none to be compared with; take rows of one value, written into the model."
        )
    guide = program.guide if guide is None else guide
    if guide is None:
        raise PplebmError("the program has no guide: give guide=, or program.with_guide(...).")
    return guide


def _draws(
    program: Program, guide: Guide, x: Data, n_draws: int, seed: int, params: Params
) -> tuple[Latents, np.ndarray, np.ndarray]:
    """Latents, a row for every draw and datum, log q(z|x) and the log of the unnormalised prior."""
    ppl, centered = program.ppl, program.with_coordinates("centered")
    copies = take_rows(x, ppl.asarray(np.tile(np.arange(n_rows(x)), n_draws)))

    def run(noise: Latents, params: Params, x: Data) -> tuple[Latents, Array, Array]:
        z, log_q = guide.at(params, noise, x)
        return z, log_q, centered.log_prior(params, z)

    noise = guide.noise(ppl.key(seed), n_rows(copies))
    z, *logs = program.compiled(("information", id(guide)), run)(noise, params, copies)
    log_q, log_prior = (ppl.to_numpy(a).astype(float) for a in logs)
    return z, log_q, log_prior


def _aggregate(
    program: Program, guide: Guide, x: Data, z: Latents, n_draws: int, params: Params, progress: bool | None
) -> np.ndarray:
    """log q(z) of every draw: all rows in turn are put beside all draws."""
    ppl, n = program.ppl, n_rows(x)

    def density(z: Latents, params: Params, x: Data) -> Array:
        return guide.log_density(params, z, x)

    run: Callable[..., Array] = program.compiled(("aggregate", id(guide)), density)
    rows, total = np.tile(np.arange(n), n_draws), np.full(n * n_draws, -np.inf)
    for shift in tqdm(range(n), desc="aggregate", disable=None if progress is None else not progress):
        beside = take_rows(x, ppl.asarray((rows + shift) % n))
        total = np.logaddexp(total, ppl.to_numpy(run(z, params, beside)))
    return total - np.log(n)


def _activity(z: np.ndarray) -> np.ndarray:
    """Variance over data of the means over draws, (draws, data, *event), less what the draws add to it."""
    variance: np.ndarray = z.mean(0).var(0, ddof=1) - z.var(0, ddof=1).mean(0) / len(z)
    return variance
