"""Chains of a target that begin where annealed particles end, in the metric that these have learned."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from pplebm.evidence.annealing import sequential
from pplebm.evidence.path import Particles, Path
from pplebm.sampling.blocks import block_seed

WARM_UP = 50  # moves before the first draw, by which particles that the pilot copied part
TRAJECTORIES = 2  # of a move


def target_chains(
    path: Path, seed: int, n_draws: int, bar: tqdm | None = None
) -> tuple[list[Particles], tuple[str, ...]]:
    """Draws of the target by chains, as many as the path has particles, with what is known at each.

    Args:
        path: any.
        seed: of all random numbers.
        n_draws: of every chain.
        bar: of progress.

    Returns:
        Draws, and by datum why its chains are none of the target, "" where they are.
    """
    pilot = sequential(path, block_seed(seed, 0), bar=bar)
    at, tuning, found = pilot.particles, pilot.schedule.tunings[-1], list[Particles]()
    for i, key in enumerate(path.ppl.split(path.ppl.key(block_seed(seed, 1)), WARM_UP + n_draws)):
        at, _ = path.move(key, at, np.ones(path.n_data), tuning, TRAJECTORIES)
        if i >= WARM_UP:
            found.append(at)
        if bar is not None:
            bar.update()
    return found, pilot.reasons
