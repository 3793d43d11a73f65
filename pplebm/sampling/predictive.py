"""Data and log likelihoods of draws: right for the tilt, because the draws are."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Latents, Params
from pplebm.ppl.trees import n_rows
from pplebm.sampling.draws import Draws


def predictive(
    draws: Draws, n: int | None = None, seed: int = 0, mean: bool = False, data: Any = None
) -> dict[str, np.ndarray]:
    r"""Data of the observed sites, and deterministic sites, given draws: posterior predictive, or prior predictive.

    .. math:: \tilde x \sim p(x \mid z, c), \qquad z \sim p(z \mid x) \text{ or } z \sim \tilde p(z) / Z

    Unlike the hosts' own `Predictive`, whose forward runs ignore tilts, this starts from draws of chains that do not.
    Observed statements draw in their order, one given the values of the others.

    Args:
        draws: of `pplebm.sample`.
        n: draws of each chain to use, evenly spaced; None for all.
        seed: of the draws of data.
        mean: the mean of x given z instead of a draw.
        data: rows with other covariates c; those of the draws if left out. Their observed part may be missing where the
            model runs without it, and is not looked at. Any number of rows where no latent belongs to a row, otherwise
            as many as the draws have.

    Returns:
        By observed and deterministic site (chains, n, data, *event); for a prior without data of a program without
        global latents, (chains, n, *event), one datum per draw.

    Raises:
        PplebmError: for rows that the latents do not belong to, or covariates that are missing.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> posterior = pplebm.sample(program, data=torch.zeros(5, 3), n_chains=2, n_draws=20, n_warmup=100)
        >>> predictive(posterior, 10)["x"].shape
        (2, 10, 5, 3)
    """
    program = draws.program
    x = draws.data if data is None else program.data(data)
    if data is not None:
        _check_rows(draws, n_rows(x))

    def observe(params: Params, z: Latents, *more: Any) -> dict[str, Array]:
        """The data, if any, come before the key, if any."""
        given = more[0] if x is not None else None
        return program.generate(params, z, None if mean else more[-1], given)

    name = "mean of data" if mean else "data"
    return draws.by_row(name, observe, thinned(draws, n), x, None if mean else program.ppl.key(seed))


def _check_rows(draws: Draws, n: int) -> None:
    """Refuse rows to which latents do not belong."""
    program = draws.program
    local = [site.name for site in program.latents if site.is_local]
    if not draws.has_data_axis and not program.has_global_latents:
        raise PplebmError(
            "these draws of the prior belong to no rows; draw at the rows wanted: sample_prior(program, given=data)."
        )
    there = n_rows(program.example if draws.data is None else draws.data)
    if local and n != there:
        raise PplebmError(
            f"latent '{local[0]}' belongs to the {there} rows that were sampled, and the new data have {n}; give as "
            f"many rows, or draw latents of new rows from the prior: sample_prior(program, given=data)."
        )


def log_likelihood(draws: Draws, n: int | None = None) -> dict[str, np.ndarray]:
    r"""Log likelihood :math:`\log p(x_i \mid z)` of every datum under draws of a posterior; tilts are no part of it.

    Returns:
        By observed site (chains, n, data), as ArviZ wants it for LOO.

    Raises:
        PplebmError: for draws of a prior.
    """
    if draws.is_prior:
        raise PplebmError("draws of a prior have no log likelihood; sample with data.")
    return draws.by_row("pointwise", draws.program.pointwise, thinned(draws, n), draws.data)


def thinned(draws: Draws, n: int | None) -> dict[str, np.ndarray]:
    """Latents of n draws of each chain, evenly spaced."""
    index = spaced(draws, n)
    return {site: a[:, index] for site, a in draws.latents.items()}


def spaced(draws: Draws, n: int | None) -> np.ndarray:
    """Numbers of n draws, evenly spaced; of all for None.

    Raises:
        PplebmError: if n is not positive, or there are no draws yet.
    """
    there = draws.n_draws
    if not there:
        raise PplebmError("there are no draws yet; resume the interrupted call of sample.")
    if n is not None and n < 1:
        raise PplebmError(f"n must be positive, got {n}.")
    return np.arange(there) if n is None or n >= there else np.linspace(0, there - 1, n).round().astype(int)
