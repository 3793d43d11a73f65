r"""Normal and Student laws of every datum, as proposals for its posterior in unconstrained coordinates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

SHRINKAGE = 0.02  # of a fitted covariance to its diagonal


class Proposal(NamedTuple):
    r"""Student laws :math:`t_\nu(m, L L^T)` of d latents side by side, one for every datum; normal for infinite ν."""

    mean: np.ndarray  # (data, d)
    root: np.ndarray  # (data, d, d), lower triangular
    freedom: float

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """n draws for every datum, (n, data, d)."""
        normal = rng.normal(size=(n, *self.mean.shape))
        if np.isfinite(self.freedom):
            normal = normal * (self.freedom / rng.chisquare(self.freedom, size=normal.shape[:2]))[:, :, None] ** 0.5
        return np.asarray(self.mean + np.einsum("dij,ndj->ndi", self.root, normal))

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """At latents (n, data, d), (n, data)."""
        width, nu = self.mean.shape[1], self.freedom
        u = np.linalg.solve(self.root, (z - self.mean)[..., None])[..., 0]
        log_det = np.log(np.abs(np.einsum("dii->di", self.root))).sum(1)
        squares = (u**2).sum(2)
        if not np.isfinite(nu):
            return np.asarray(-0.5 * squares - 0.5 * width * np.log(2 * np.pi) - log_det)
        constant = gammaln(0.5 * (nu + width)) - gammaln(0.5 * nu) - 0.5 * width * np.log(nu * np.pi)
        return np.asarray(constant - log_det - 0.5 * (nu + width) * np.log1p(squares / nu))


def fitted(z: np.ndarray, freedom: float) -> Proposal:
    """The law with the mean and the covariance of draws, (n, data, d), the covariance shrunk a little.

    >>> z = np.random.default_rng(0).normal(2.0, 3.0, size=(5000, 1, 1))
    >>> found = fitted(z, 10.0)
    >>> found.mean.round(1).tolist(), (found.root * (10 / 8) ** 0.5).round(1).tolist()
    ([[2.0]], [[[3.0]]])
    """
    mean = z.mean(0)
    off = z - mean
    covariance = np.einsum("ndi,ndj->dij", off, off) / max(len(z) - 1, 1)
    diagonal = np.einsum("dii->di", covariance)
    covariance = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * diagonal[:, :, None] * np.eye(z.shape[2])
    narrower = (freedom - 2.0) / freedom if np.isfinite(freedom) else 1.0  # so that the law has that covariance
    tiny = 1e-12 + 1e-10 * diagonal.max(1)
    root = np.linalg.cholesky(narrower * covariance + tiny[:, None, None] * np.eye(z.shape[2]))
    return Proposal(mean, root, freedom)
