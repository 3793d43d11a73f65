"""Values that are taken out of windows and drawn given the rest: error and coverage of intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

import pplebm
from pplebm.data import Windows

BLOCK = 8  # points
N_MASKED = 24  # windows whose block is missing


def imputed(run: Any, some: Windows, seed: int) -> dict[str, float]:
    """Error and coverage of 90 % intervals at blocks of the first column, beside a straight line over the gap.

    One block is taken out of each of a few windows drawn at random; the other columns stay. In model units.
    """
    rng, length = np.random.default_rng(seed), some.x.shape[1]
    rows = rng.choice(len(some.x), min(N_MASKED, len(some.x)), replace=False)
    x, first = some.x[rows].astype(float), rng.integers(BLOCK, length - 2 * BLOCK, len(rows))
    lost = np.zeros(x.shape, bool)
    for i, at in enumerate(first):
        lost[i, at : at + BLOCK, 0] = True
    there = some.observed_x[rows] & ~lost
    lost &= some.observed_x[rows]  # the truth is to be known
    data = {"x": np.where(there, x, 0.0).astype(np.float32), "observed_x": there}
    draws = pplebm.sample(run.program.with_coordinates("noncentered"), data=data, params=run.params, n_chains=8,
                          n_draws=25, n_warmup=150, thin=2, seed=seed, progress=False)  # fmt: skip
    values = pplebm.predictive(draws, seed=seed)["x"].reshape(-1, *x.shape)[:, lost]
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    truth, steps = x[lost], np.arange(length)
    lines = [np.interp(steps, steps[t[:, 0]], a[t[:, 0], 0]) for a, t in zip(x, there, strict=True)]
    line = np.stack(lines)[lost[..., 0]]
    return {
        "error": float(np.sqrt(((values.mean(0) - truth) ** 2).mean())),
        "error of a line": float(np.sqrt(((line - truth) ** 2).mean())),
        "error of the mean": float(np.sqrt((truth**2).mean())),
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "width": float((high - low).mean()),
    }
