"""Whether a declaration has the published density: their difference must be one constant everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from posteriors.densities import DENSITIES

STEP = 1e-4  # of the finite differences; central ones are then right to about eight digits


def excess(program: Any, name: str, d: dict[str, Any], y: np.ndarray, z: dict[str, np.ndarray]) -> np.ndarray:
    r"""Log density of a program less the published one at every point, (B,).

    .. math:: \log \tilde p(u) - \log|\partial z/\partial u| - \log p(z(u))

    with the Jacobian by finite differences of the program's own map from coordinates u to values z.

    Args:
        program: of `models`, float64.
        name: of the posterior.
        d: its data as published.
        y: its data as the program takes them.
        z: points in the coordinates of the program, (B, *event) by site.
    """
    ppl, data, names = program.ppl, program.data(y), [site.name for site in program.latents]
    arrays = lambda z: {site: ppl.asarray(a, keep=True) for site, a in z.items()}
    values = lambda z: {k: ppl.to_numpy(a) for k, a in program.constrain(program.params, arrays(z), data).items()}
    at, found = values(z), ppl.to_numpy(program.log_joint(program.params, arrays(z), data))
    gaps = []
    for i in range(len(found)):
        point = {site: a[i] for site, a in at.items()}
        steps = moved({site: a[i] for site, a in z.items()})
        ends = flattened(values(steps), names)
        jacobian = (ends[::2] - ends[1::2]) / (2 * STEP)
        gaps.append(found[i] - np.linalg.slogdet(jacobian)[1] - DENSITIES[name](d, point))
    return np.array(gaps)


def flattened(z: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """All numbers of a row side by side, (B, d)."""
    return np.concatenate([z[name].reshape(len(z[name]), -1) for name in names], 1)


def moved(z: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A point with each of its numbers raised and lowered by a step, (2d, *event) by site."""
    size = sum(a.size for a in z.values())
    rows, at = {site: np.repeat(a[None], 2 * size, 0) for site, a in z.items()}, 0
    for site, a in z.items():
        flat = rows[site].reshape(2 * size, -1)
        for j in range(a.size):
            flat[2 * (at + j), j] += STEP
            flat[2 * (at + j) + 1, j] -= STEP
        rows[site], at = flat.reshape(2 * size, *a.shape), at + a.size
    return rows
