"""Latents given data, and averages over them of what a score is made of, chain by chain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pplebm.errors import PplebmError
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.sampler import sample
from pplebm.scores import entries
from pplebm.scores.settings import Settings

ByChain = dict[str, np.ndarray]  # by name, (chains, n): means over the draws of each chain
# Rows of data and a seed to latents in centered coordinates, (chains, draws, n, *event) by site.
Posterior = Callable[[Data, int], dict[str, np.ndarray]]

SQUARED_ERROR = "squared error"  # no site can be called that in the registry's formulas: it has a blank
NEXT_RUN = 7919  # between the seeds of runs of one datum


def adjusted(program: Program, params: Params, how: Settings) -> Posterior:
    """Draws by chains that accept and reject, those of `pplebm.sample`, which are right for any program.

    Args:
        program: any without global latents.
        params: of the program.
        how: number of chains, of draws and of steps of warm-up.
    """
    chains, centered = program.with_coordinates("noncentered"), program.with_coordinates("centered")

    def draw(data: Data, seed: int) -> dict[str, np.ndarray]:
        found = sample(
            chains, data=data, params=params, seed=seed, n_chains=how.n_chains, n_draws=how.n_draws,
            n_warmup=how.n_warmup, progress=how.progress,
        )  # fmt: skip
        move = lambda params, z, x: chains.move(params, z, centered.coordinates, x)
        return found.by_row("centered", move, found.latents, found.data)

    return draw


def learned(algorithm: Algorithm, params: Params, n_runs: int) -> Posterior:
    """Draws by the algorithm's own way of inference, its short runs or its guide, which need not be those of p(z|x).

    Args:
        algorithm: on the program that is scored.
        params: of program and guide.
        n_runs: independent runs of every datum, each with one draw.

    Raises:
        PplebmError: for fewer than two runs, whose spread would be unknown.
    """
    if not isinstance(n_runs, int) or n_runs < 2:
        raise PplebmError(f"n_draws must be an integer from 2 on, got {n_runs!r}.")
    ppl = algorithm.program.ppl

    def draw(data: Data, seed: int) -> dict[str, np.ndarray]:
        runs = [algorithm.posterior_latents(ppl.key(seed + NEXT_RUN * i), params, data) for i in range(n_runs)]
        return {site: np.stack([ppl.to_numpy(z[site]) for z in runs])[:, None] for site in runs[0]}

    return draw


def averages(program: Program, params: Params, data: Data, latents: dict[str, np.ndarray], squares: bool) -> ByChain:
    r"""Means over draws of the log density of every site, tilt and factor, in centered coordinates.

    .. math:: \frac{1}{S} \sum_s \log p(x \mid z_s), \quad \frac1S \sum_s f_k(z_s), \quad \ldots

    Args:
        program, params: any without global latents.
        data: n rows.
        latents: (chains, draws, n, *event) by site, in centered coordinates.
        squares: also the squared distance of the data to their mean given z, summed over all observed numbers.

    Returns:
        By site (chains, n) in nats, and "squared error".
    """
    program, ppl, n = program.with_coordinates("centered"), program.ppl, n_rows(data)
    n_chains, n_draws = next(iter(latents.values())).shape[:2]
    rows = take_rows(data, ppl.asarray(np.tile(np.arange(n), n_chains)))
    look = program.compiled(("terms of scores", squares), _look(program, squares))
    total: ByChain = {}
    for s in range(n_draws):
        z = {site: ppl.asarray(a[:, s].reshape(-1, *a.shape[3:]), keep=True) for site, a in latents.items()}
        for name, a in look(params, z, rows).items():
            total[name] = total.get(name, 0.0) + ppl.to_numpy(a).astype(float).reshape(n_chains, n)
    return {name: a / n_draws for name, a in total.items()}


def _look(program: Program, squares: bool) -> Callable[[Params, Latents, Data], dict[str, Array]]:
    def look(params: Params, z: Latents, data: Data) -> dict[str, Array]:
        found = dict(program.log_terms(params, z, data))
        if squares:
            found[SQUARED_ERROR] = _squared_error(program, params, z, data)
        return found

    return look


def _squared_error(program: Program, params: Params, z: Latents, data: Data) -> Array:
    counted, total = program.observed_masks(data), 0.0  # what is masked is not there
    for site, square in entries.squares(program, params, z, data).items():
        total = total + (square * counted[site] if site in counted else square).reshape(len(square), -1).sum(1)
    return total


def of_all(latents: dict[str, np.ndarray], draw: int) -> dict[str, np.ndarray]:
    """One draw of every chain, (chains, n, *event) by site."""
    return {site: a[:, draw] for site, a in latents.items()}
