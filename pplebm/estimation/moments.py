r"""Means over chains of gradients and second derivatives, kept so that products of means have no bias."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from pplebm.estimation.derivatives import Chosen, derivatives, in_chunks
from pplebm.ppl.language import Data


@dataclass
class Products:
    r"""Sum over data of products of expectations, from m independent estimates of each.

    .. math::
        \widehat{\textstyle\sum_i a_i a_i^\top} = \frac{1}{m (m - 1)} \sum_i \sum_{k \ne l} a_{ik} a_{il}^\top

    The square of one mean would be too large by its variance, for every datum again, and the sum over many data would
    be wrong by more than its error. Estimates of different chains err independently, and their products do not.

    Example:
        >>> found = Products.of(np.array([[[1.0], [4.0]], [[3.0], [2.0]]]))  # two estimates of two data
        >>> float(found.mean()[0, 0])  # 1 * 3 + 4 * 2
        11.0
    """

    own: np.ndarray  # (m, n, n), sum over data of a_ik a_ik'
    cross: np.ndarray  # (m, n, n), of a_ik and the sum of all estimates
    total: np.ndarray  # (n, n), of the sum of all estimates with itself

    @staticmethod
    def of(estimates: np.ndarray) -> Products:
        """Of estimates (m, data, n)."""
        whole = estimates.sum(0)
        own = np.einsum("mip,miq->mpq", estimates, estimates, optimize=True)
        return Products(own, np.einsum("mip,iq->mpq", estimates, whole, optimize=True), whole.T @ whole)

    def __add__(self, other: Products) -> Products:
        return Products(self.own + other.own, self.cross + other.cross, self.total + other.total)

    def mean(self) -> np.ndarray:
        """The estimate, (n, n)."""
        m = len(self.own)
        return (self.total - self.own.sum(0)) / (m * (m - 1))

    def without(self) -> np.ndarray:
        """The estimates that leave one of the m out each, (m, n, n)."""
        m = len(self.own)
        rest = self.total - self.cross - self.cross.transpose(0, 2, 1) + self.own
        return (rest - (self.own.sum(0) - self.own)) / ((m - 1) * (m - 2))


@dataclass
class Moments:
    """What Louis' formula asks of draws, by replicate: a chain of every target, or several."""

    gradient: np.ndarray  # (m, data, n), mean over the draws of the replicate
    second: np.ndarray  # (m, n, n), mean of ∇² + ∇ ∇', summed over data
    drift: np.ndarray  # (m, n), of the gradient: later half of the draws minus earlier half, summed over data


def moments(
    chosen: Chosen,
    latents: dict[str, np.ndarray],
    data: Data | None,
    m: int,
    kept: int,
    observed: bool,
    progress: bool | None = None,
) -> Moments:
    """Moments of derivatives at draws.

    Args:
        chosen: parameters.
        latents: (chains, draws, data, *event) by site, or without data axis; the chains of a replicate are neighbours.
        data: of the data axis, or whole; None for a prior that reads none.
        m: replicates, a divisor of the number of chains.
        kept: data that count, the first ones.
        observed: whether the density is that of x and z, or of z alone.
        progress: show a bar; by default if the output is a terminal.
    """
    found = []
    for k in tqdm(range(m), desc="derivatives", unit="chain", disable=None if progress is None else not progress):
        chains = {site: np.split(a, m)[k] for site, a in latents.items()}
        by_draw = {site: np.ascontiguousarray(np.moveaxis(a, 1, 0)) for site, a in chains.items()}
        found.append(_of_replicate(chosen, by_draw, data, kept, observed))
    return Moments(*(np.stack(parts) for parts in zip(*found, strict=True)))


def _of_replicate(
    chosen: Chosen, latents: dict[str, np.ndarray], data: Data | None, kept: int, observed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient, second and drift of latents (draws, chains, data, *event)."""
    program, n = chosen.program, len(chosen)
    first = program.latents[0]
    leading = latents[first.name].shape[: latents[first.name].ndim - len(first.shape)]
    n_draws, n_data, rows = leading[0], (*leading, 1)[2], math.prod(leading)
    gradient, second, drift = np.zeros((n_data, n)), np.zeros((n, n)), np.zeros(n)
    for index, z, x in in_chunks(program, latents, data):
        counts = (index < rows) & (index % n_data < kept)
        weights = counts * n_data / rows
        by_row, curvature = derivatives(chosen, z, x, weights, observed)
        weighted = weights[:, None] * by_row
        np.add.at(gradient, index % n_data, weighted)
        second += curvature + weighted.T @ by_row
        draw = index * n_draws // rows
        drift += 2.0 * (np.where(draw >= n_draws - n_draws // 2, 1.0, 0.0) - (draw < n_draws // 2)) @ weighted
    return gradient[:kept], second, drift
