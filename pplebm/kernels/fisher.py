r"""The metric that the Fisher divergence asks for, from draws and the gradients at them."""

from __future__ import annotations

import numpy as np

from pplebm.kernels.metric import Metric

SHRINKAGE = 1.0  # draws that speak for the metric as it is, in every direction
SMALLEST, LARGEST = 1e-10, 1e10  # of a scale and of a factor
ROUNDING = 1e-13  # of a number, by which its mean may be off


def fisher_metric(z: np.ndarray, gradient: np.ndarray, weight: np.ndarray, old: Metric) -> Metric:
    r"""Metric of every datum that makes its target most alike a standard normal law in the Fisher divergence.

    .. math::
        \min_\Sigma\; E\,\big\|\Sigma^{1/2} \nabla \log p(z) + \Sigma^{-1/2} (z - \mu)\big\|^2
        \quad\Leftrightarrow\quad \Sigma\, \mathrm{cov}(\nabla \log p)\, \Sigma = \mathrm{cov}(z)

    For a Gaussian target this is its covariance whatever the draws are distributed like, if they span the space. A
    dense metric solves the equation; a diagonal one has :math:`\sqrt{\mathrm{sd}(z_i) / \mathrm{sd}(g_i)}`; one of
    low rank solves it in the span of the widest and the steepest directions around that diagonal. Covariances are
    shrunk a little towards the metric as it is.

    Args:
        z: (n, data, d) draws.
        gradient: (n, data, d) of the log density at them.
        weight: (n, data), 0 for draws that are not to count.
        old: the metric as it is, a row for every datum; the new one has as many directions.

    Source: Seyboldt, Carlson, Carpenter (2026, arXiv:2603.18845).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> wide = np.array([[4.0, 1.9], [1.9, 1.0]])
        >>> z = rng.normal(size=(500, 1, 2))  # not draws of N(0, wide), whose gradients these are
        >>> old = Metric(np.ones((1, 2)), np.eye(2)[None], np.ones((1, 2)))
        >>> found = fisher_metric(z, -z @ np.linalg.inv(wide), np.ones((500, 1)), old)
        >>> for _ in range(3):
        ...     found = fisher_metric(z, -z @ np.linalg.inv(wide), np.ones((500, 1)), found)
        >>> matrix(found)[0].round(1).tolist()
        [[4.0, 1.9], [1.9, 1.0]]
    """
    z, gradient = (np.moveaxis(a, 1, 0).astype(float) for a in (z, gradient))  # (data, n, d)
    w = weight.T[:, :, None].astype(float)
    n = np.maximum(w.sum(1, keepdims=True), 1.0)
    off, slope = (np.sqrt(w / n) * (a - (w * a).sum(1, keepdims=True) / n) for a in (z, gradient))
    rank, width = old.factors.shape[1], z.shape[2]
    varies = _varies(off, w * z) & _varies(slope, w * gradient)
    with np.errstate(all="ignore"):  # where there is nothing to learn from, the old one stands
        if rank == width:
            return _kept(_dense(off, slope, n[:, 0, 0], old), old, varies)
        scale = np.where(varies, np.sqrt(np.sqrt((off**2).sum(1) / (slope**2).sum(1))), old.scale)
        diagonal = _kept(Metric(scale, old.directions, old.factors), old, varies)
        if not rank:
            return diagonal
        return _kept(_low_rank(off, slope, n[:, 0, 0], diagonal, rank), diagonal, varies)


def matrix(metric: Metric) -> np.ndarray:
    r""":math:`\Sigma = A A^T` of every row, (B, d, d)."""
    half = _half(metric)
    return np.asarray(half @ np.swapaxes(half, 1, 2))


def widest(z: np.ndarray, weight: np.ndarray, metric: Metric) -> np.ndarray:
    """Largest standard deviation of the draws of every datum in any direction, in units of the metric, (data,)."""
    u = np.moveaxis(z, 1, 0).astype(float)
    w = weight.T[:, :, None].astype(float)
    n = np.maximum(w.sum(1, keepdims=True), 1.0)
    u = np.sqrt(w / n) * (u - (w * u).sum(1, keepdims=True) / n) / metric.scale[:, None]
    back = 1.0 / metric.factors - 1.0
    u = u + ((u @ metric.directions) * back[:, None]) @ np.swapaxes(metric.directions, 1, 2)
    gram = np.swapaxes(u, 1, 2) @ u if u.shape[2] <= u.shape[1] else u @ np.swapaxes(u, 1, 2)
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(np.nan_to_num(gram))[:, -1], 0.0)))


def _half(metric: Metric) -> np.ndarray:
    turned = metric.directions * (metric.factors - 1.0)[:, None]
    inner = np.eye(metric.scale.shape[1]) + turned @ np.swapaxes(metric.directions, 1, 2)
    return np.asarray(metric.scale[:, :, None] * inner)


def _dense(off: np.ndarray, slope: np.ndarray, n: np.ndarray, old: Metric) -> Metric:
    half = _half(Metric(*(np.asarray(a, float) for a in old)))
    u, w = np.swapaxes(np.linalg.solve(half, np.swapaxes(off, 1, 2)), 1, 2), slope @ half
    inner = _solved(_covariance(u, n), _covariance(w, n))
    sigma = half @ inner @ np.swapaxes(half, 1, 2)
    scale = np.sqrt(np.einsum("bii->bi", sigma))
    values, directions = np.linalg.eigh(np.nan_to_num(sigma / (scale[:, :, None] * scale[:, None])))
    return Metric(scale, directions, np.sqrt(np.maximum(values, SMALLEST**2)))


def _low_rank(off: np.ndarray, slope: np.ndarray, n: np.ndarray, diagonal: Metric, rank: int) -> Metric:
    u, w = off / diagonal.scale[:, None], slope * diagonal.scale[:, None]
    basis = np.linalg.qr(np.concatenate([_widest_directions(u, rank), _widest_directions(w, rank)], 2))[0]
    along = np.swapaxes(basis, 1, 2) @ diagonal.directions  # those of the old metric, in units of which is shrunk
    half = np.eye(basis.shape[2]) + (along * (diagonal.factors - 1.0)[:, None]) @ np.swapaxes(along, 1, 2)
    u, w = np.swapaxes(np.linalg.solve(half, np.swapaxes(u @ basis, 1, 2)), 1, 2), w @ basis @ half
    inner = half @ _solved(_covariance(u, n), _covariance(w, n)) @ half
    values, turn = np.linalg.eigh(np.nan_to_num(inner))
    values = np.maximum(values, SMALLEST**2)
    far = np.argsort(-np.abs(np.log(values)), axis=1)[:, :rank]
    directions = np.take_along_axis(basis @ turn, far[:, None], 2)
    return Metric(diagonal.scale, directions, np.sqrt(np.take_along_axis(values, far, 1)))


def _widest_directions(u: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal columns, (data, d, rank), along which the rows are widest."""
    if u.shape[1] < u.shape[2]:
        u = np.concatenate([u, np.zeros((len(u), max(0, rank - u.shape[1]), u.shape[2]))], 1)
        return np.swapaxes(np.linalg.svd(u, full_matrices=False)[2][:, :rank], 1, 2)
    return np.asarray(np.linalg.eigh(np.swapaxes(u, 1, 2) @ u)[1][:, :, -rank:])


def _covariance(u: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Covariance of centered rows, shrunk to a multiple of the unit matrix."""
    found = np.swapaxes(u, 1, 2) @ u
    width, share = u.shape[2], (SHRINKAGE / (SHRINKAGE + n))[:, None, None]
    size = np.einsum("bii->b", found)[:, None, None] / width
    return np.asarray((1.0 - share) * found + share * size * np.eye(width))


def _solved(wide: np.ndarray, steep: np.ndarray) -> np.ndarray:
    r"""The symmetric positive solution of :math:`\Sigma\, C_g\, \Sigma = C_z`."""
    root = _power(steep, 0.5)
    back = _power(steep, -0.5)
    return np.asarray(back @ _power(root @ wide @ root, 0.5) @ back)


def _power(a: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.nan_to_num(0.5 * (a + np.swapaxes(a, 1, 2))))
    least = values[:, -1:] * 1e-14 + 1e-300
    return np.asarray((vectors * np.maximum(values, least)[:, None] ** exponent) @ np.swapaxes(vectors, 1, 2))


def _varies(off: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Whether a coordinate of a datum varies by more than rounding, (data, d)."""
    return np.asarray((off**2).sum(1) > (ROUNDING * np.abs(a).max(1)) ** 2)


def _kept(new: Metric, old: Metric, varies: np.ndarray) -> Metric:
    """The new metric of data that vary, and for which all of it is a number, not 0 and not huge; else the old one."""
    good = varies.any(1) & np.isfinite(new.directions).all((1, 2))
    for size in (new.scale, new.factors):
        good &= ((size > SMALLEST) & (size < LARGEST)).all(1)  # false for nan as well
    return Metric(*(np.where(good.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True)))
