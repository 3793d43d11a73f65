"""Where chains of a posterior start when nobody says it: near where its mass may be, but no closer than that."""

from __future__ import annotations

import numpy as np

from pplebm.kernels.ascent import ascent
from pplebm.kernels.batch import choose
from pplebm.kernels.schedules import geometric
from pplebm.ppl.compilations import quickly
from pplebm.ppl.language import Data, Key, Latents, Params
from pplebm.ppl.trees import take_rows
from pplebm.program import Program
from pplebm.sampling import chains
from pplebm.sampling.warmup import LOST, LOST_PER_LATENT

STEPS, PIECE = 300, 10  # of the longest ascent, and steps between looks at what it brings
FIRST_RATE, LAST_RATE = 0.2, 0.002
STARTS = 16  # that are tried for a datum, where its chains are fewer
MOST_NUMBERS = 1_000_000  # in the latents of all of these; larger batches try one start for each chain


def climbed(program: Program, key: Key, params: Params, data: Data | None, n_chains: int, n_data: int = 1) -> Latents:
    """Uniform starts in [-2, 2] of the unconstrained coordinates, moved uphill while the density is steep.

    A start stays where ten steps of Adam win less than one nat for every latent: about what separates a mode from where
    the mass is, so that chains neither begin in the mode nor fall into the neck of a funnel. Of more starts than there
    are chains, those are left out that ended so far below the best one that a mode there can have no mass; the others
    are taken as they come, so that modes of like mass all have chains. Draws of the prior are no starts: a vague prior
    is wider than its posterior by orders of magnitude.

    Args:
        program: in its own coordinates.
        key: of the starts.
        params: of the program.
        data: with a row for every chain of every datum, chain by chain, or all data of a joint program.
        n_chains: of a datum.
        n_data: posteriors.

    Raises:
        PplebmError: if log density or gradient are not finite in 20 draws.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> z = climbed(program, 0, program.params, torch.ones(4, 3), 2, 2)
        >>> tuple(z["z1"].shape), bool((abs(z["z1"]) < 5).all())
        ((4, 3), True)
    """
    rows = n_chains * n_data
    tries = -(-STARTS // n_chains)
    tries = tries if tries * rows * program.width <= MOST_NUMBERS else 1
    if data is not None and tries > 1 and not program.has_global_latents:
        data = take_rows(data, program.ppl.asarray(np.tile(np.arange(rows), tries)))
    with quickly():
        z, value = _ascended(program, key, params, data, tries * rows)
    index = program.ppl.asarray(_taken(value.reshape(tries * n_chains, n_data), n_chains, program.width))
    return {site: a[index] for site, a in z.items()}


def _taken(value: np.ndarray, n: int, width: int) -> np.ndarray:
    """Rows of n starts for every datum, those for one chain after the other; log densities are (starts, data).

    >>> _taken(np.array([[0.0], [-100.0], [-1.0], [-2.0]]), 2, 1).tolist()
    [0, 2]
    """
    good = value >= value.max(0) - LOST - LOST_PER_LATENT * width
    order = np.argsort(~good, axis=0, kind="stable")  # good ones first, as they come
    place = np.arange(n)[:, None] % np.minimum(good.sum(0), n)
    return np.asarray(np.take_along_axis(order, place, 0) * value.shape[1] + np.arange(value.shape[1])).reshape(-1)


def _ascended(program: Program, key: Key, params: Params, data: Data | None, n: int) -> tuple[Latents, np.ndarray]:
    """Starts after their ascent, and their log densities."""
    ppl, kernel = program.ppl, ascent(geometric(FIRST_RATE, LAST_RATE, STEPS))
    state = chains.begin(program, key, params, data, kernel, n, "uniform")
    density = program.log_density(params, data)
    value, climbs = ppl.to_numpy(density(state.z)).astype(float), np.ones(n, bool)
    for piece_key in ppl.split(key, STEPS // PIECE):
        with ppl.threads_for(program.work(n)):
            end, _ = chains.advance(program, piece_key, state, params, data, kernel, PIECE)
        reached = ppl.to_numpy(density(end.last)).astype(float)
        rises = climbs & (reached > value)
        z = choose(ppl, ppl.asarray(rises), end.last, state.z)
        climbs, value = climbs & (reached - value > program.width), np.where(rises, reached, value)
        state = end._replace(z=z, last=z)
        if not climbs.any():
            break
    return dict(state.z), value
