"""Replications: latents of the tilted prior, data simulated from them, and posteriors of these data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pplebm.calibration.posteriors import Posteriors, centered
from pplebm.errors import PplebmError
from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.blocks import batch_seed
from pplebm.sampling.sampler import sample_prior

LEAST_CHAINS = 8  # of a row of covariates, which adapt together
N_WARMUP = 500  # steps of a chain of the prior before its one draw
PRIOR, DATA, POSTERIOR = 1, 2, 3  # numbers of the seeds made of one


class Replications(NamedTuple):
    """Latents and data of n replications, and draws of the posterior of every datum; centered coordinates."""

    program: Program
    params: Params
    latents: dict[str, np.ndarray]  # (n, *event), of the tilted prior
    data: Any  # simulated: n rows, or a list of n whole data sets of a program with global latents
    draws: dict[str, np.ndarray]  # (chains, draws, n, *event), of the posterior of each


def replicate(
    program: Program,
    by: Posteriors,
    n: int,
    *,
    params: Params | None = None,
    given: Any = None,
    prior: dict[str, np.ndarray] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Replications:
    r"""Draw :math:`z^* \sim \tilde p(z | c) / Z(c)`, :math:`x^* \sim p(x | z^*, c)` and posteriors of every x*.

    Latents of a tilted prior are the last draws of chains of `pplebm.sample_prior`, one draw of every chain, so that no
    two replications share a chain. They are as right as these chains: where the tilted prior has modes that chains do
    not travel between, give exact draws. Those of a program without tilt are ancestral draws.

    Args:
        program: any. Where latents stand outside the data plate a replication is a whole data set, as large as the one
            given, and has one posterior: these are drawn one after the other.
        by: how posteriors are drawn.
        n: replications; `prior` and `given` change nothing about it, and rows given are used in turn.
        params: where the program's parameters are not to be its own.
        given: data with the covariates to simulate at, and whatever else the model is called with.
        prior: exact draws of the tilted prior, (n, *event) by latent site in its support, in the order of the rows.
        seed: of all random numbers.
        progress: show bars; by default if the output is a terminal.

    Raises:
        PplebmError: for a program that simulates no data, or draws of the prior that do not fit.
    """
    _check(program, n)
    params = program.params if params is None else dict(params)
    ppl, plain = program.ppl, program.with_coordinates("centered")
    rows = None if given is None else program.data(given)
    is_whole = program.has_global_latents
    if rows is None or is_whole:
        at = rows
    else:
        at = take_rows(rows, ppl.asarray(np.arange(n) % n_rows(rows)))
    if is_whole and rows is None:
        raise PplebmError("the program has global latents: give given= a data set as large as those to simulate.")
    if prior is not None:
        z = _of_user(plain, params, prior, n, at)
    elif program.tilts:
        z = _of_chains(program, params, rows, n, batch_seed(seed, PRIOR), progress)
    else:
        z = _of_base(plain, params, n, at, batch_seed(seed, PRIOR))
    latents = {site: ppl.asarray(a, keep=True) for site, a in z.items()}
    found = plain.predict(params, latents, ppl.key(batch_seed(seed, DATA)), at)
    if is_whole:
        sets = [program.with_observed({site: a[i] for site, a in found.items()}, rows) for i in range(n)]
        return Replications(plain, params, z, sets, _one_by_one(program, params, by, sets, seed, progress))
    x = program.with_observed(found, n if at is None else at)
    draws = by.draw(program, params, x, batch_seed(seed, POSTERIOR), progress)
    return Replications(plain, params, z, x, _finite(draws, by.name))


def _one_by_one(
    program: Program, params: Params, by: Posteriors, sets: list[Data], seed: int, progress: bool | None
) -> dict[str, np.ndarray]:
    """Draws of the posterior of every data set, (chains, draws, n, *event)."""
    parts = []
    for i, x in enumerate(tqdm(sets, desc=by.name, disable=None if progress is None else not progress)):
        part = by.draw(program, params, x, batch_seed(batch_seed(seed, POSTERIOR), i), False)
        parts.append(_finite(part, by.name))
    return {site: np.stack([part[site] for part in parts], 2) for site in parts[0]}


def _check(program: Program, n: int) -> None:
    if not isinstance(n, int) or n < 2:
        raise PplebmError(f"n_replications must be an integer from 2 on, got {n!r}.")
    if not program.observed:
        raise PplebmError("the program has no observed site, so that there are no data to simulate; observe some.")
    if program.factors:
        raise PplebmError(
            f"the likelihood factor '{program.factors[0].name}' is no distribution that data could be drawn from, so "
            f"the program cannot be calibrated by simulation; write it as an observed site."
        )


def _of_chains(
    program: Program, params: Params, rows: Data | None, n: int, seed: int, progress: bool | None
) -> dict[str, np.ndarray]:
    """The last draw of n chains; of each row in turn, where the prior reads covariates."""
    given, n_chains, n_given = rows if program.has_global_latents else None, n, 1
    if program.prior_reads and given is None:
        if rows is None:
            raise PplebmError(
                f"the prior reads {', '.join(program.covariates) or 'observed values'}, so it is another one in every "
                f"row; give given= the rows to simulate at."
            )
        given, n_given = rows, min(n, n_rows(rows))
        given = take_rows(rows, program.ppl.asarray(np.arange(n_given)))
        n_chains = -(-n // n_given)
    draws = sample_prior(
        program, given=given, n_chains=max(n_chains, LEAST_CHAINS), n_draws=1, n_warmup=N_WARMUP, seed=seed,
        params=params, progress=progress,
    )  # fmt: skip
    moved = draws.by_row("centered", centered(program), draws.latents, draws.data)
    last = {site: a[:n_chains, -1] for site, a in moved.items()}  # chains that only help to adapt are left out
    if draws.has_data_axis:
        last = {site: a.reshape(-1, *a.shape[2:]) for site, a in last.items()}
    return {site: a[:n] for site, a in last.items()}


def _of_base(program: Program, params: Params, n: int, at: Data | None, seed: int) -> dict[str, np.ndarray]:
    """Ancestral draws, which are exact without tilt."""
    key, is_whole = program.ppl.key(seed), program.has_global_latents
    rows = at if program.prior_reads and at is not None and not is_whole else n
    z = program.draw_base(key, rows, params, at if is_whole else None)
    return {site: program.ppl.to_numpy(a) for site, a in z.items()}


def _of_user(
    program: Program, params: Params, prior: dict[str, np.ndarray], n: int, rows: Data | None
) -> dict[str, np.ndarray]:
    for site in program.latents:
        shape = np.shape(prior[site.name]) if site.name in prior else None
        if shape != (n, *site.shape):
            got = f"have shape {shape}" if site.name in prior else "are missing"
            raise PplebmError(
                f"draws of the prior of site '{site.name}' {got}; give prior= (n_replications, *event), "
                f"{(n, *site.shape)}."
            )
    values = {site.name: program.ppl.asarray(np.asarray(prior[site.name])) for site in program.latents}
    z = program.unconstrain(params, values, rows)
    return _finite({site: program.ppl.to_numpy(a) for site, a in z.items()}, "the prior that was given")


def _finite(arrays: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    for site, a in arrays.items():
        if not np.isfinite(a).all():
            share = 1.0 - np.isfinite(a).mean()
            raise PplebmError(
                f"{share:.1%} of the draws of '{site}' by {what} are not finite, and have no rank; take smaller steps."
            )
    return arrays
