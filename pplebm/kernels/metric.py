r"""The metric of trajectories: a diagonal, and directions in which the target is wider or narrower than it says."""

from __future__ import annotations

import math
from typing import NamedTuple

from pplebm.ppl.language import PPL, Array, Latents


class Metric(NamedTuple):
    r"""Maps from coordinates in which a target is about as wide in every direction to its latents, one per row.

    .. math:: z = A u, \qquad A = D\,(I + V (\Lambda - I) V^T)

    with D diagonal, V of k orthonormal columns and :math:`\Lambda` diagonal: dense for k = d, of low rank for k < d,
    and diagonal for k = 0. Latents are taken side by side in the order of their names.
    """

    scale: Array  # (B, d), the diagonal of D
    directions: Array  # (B, d, k), V
    factors: Array  # (B, k), the diagonal of Λ


def flat(ppl: PPL, tree: Latents) -> Array:
    """Latents of each row side by side, in the order of their names, (B, d)."""
    rows = [tree[site].reshape(len(tree[site]), -1) for site in sorted(tree)]
    return rows[0] if len(rows) == 1 else ppl.concat(rows, 1)


def unflat(a: Array, like: Latents) -> Latents:
    """The inverse of `flat`."""
    found, at = Latents(), 0
    for site in sorted(like):
        width = math.prod(like[site].shape[1:])
        found[site] = a[:, at : at + width].reshape(like[site].shape)
        at += width
    return {site: found[site] for site in like}


def stretch(metric: Metric, u: Array) -> Array:
    """A u, (B, d)."""
    return metric.scale * _along(metric, u, metric.factors - 1.0)


def pull(metric: Metric, force: Array) -> Array:
    """Transpose of A times a gradient in the latents, (B, d)."""
    return _along(metric, metric.scale * force, metric.factors - 1.0)


def relax(metric: Metric, z: Array) -> Array:
    """Inverse of A times latents, (B, d)."""
    return _along(metric, z / metric.scale, 1.0 / metric.factors - 1.0)


def _along(metric: Metric, u: Array, excess: Array) -> Array:
    """u, changed by so much of its part in every direction."""
    if not metric.directions.shape[2]:
        return u
    part = excess * (metric.directions * u[:, :, None]).sum(1)
    return u + (metric.directions * part[:, None, :]).sum(2)
