r"""Draws of one law as weighted draws of another, such as draws of the base as draws of the tilted prior."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GOOD_K_HAT = 0.7  # Vehtari, Simpson, Gelman, Yao, Gabry (JMLR 2024)
EQUAL = 1e-3  # nats; weights that differ by less are equal


class Estimate(NamedTuple):
    """A mean, and its standard error."""

    mean: float
    error: float


def weights(log_ratio: np.ndarray) -> np.ndarray:
    r"""Normalized weights of draws, :math:`w_i = r_i / \sum_j r_j`.

    Args:
        log_ratio: (n,) log density of the law wanted minus that of the draws, up to a constant: the tilt f, for draws
            of the base.

    >>> weights(np.array([0.0, np.log(3.0)])).round(2).tolist()
    [0.25, 0.75]
    """
    ratio = _ratio(log_ratio)
    return np.asarray(ratio / ratio.sum())


def effective_size(log_ratio: np.ndarray) -> float:
    r"""Effective sample size :math:`(\sum_i r_i)^2 / \sum_i r_i^2`: how many draws of the law wanted these are worth.

    Source: Kong (Technical Report 348, University of Chicago, 1992).

    >>> effective_size(np.zeros(10)), effective_size(np.array([0.0, 0.0, -1000.0]))
    (10.0, 2.0)
    """
    ratio = _ratio(log_ratio)
    return float(ratio.sum() ** 2 / (ratio**2).sum())


def weighted_mean(values: np.ndarray, log_ratio: np.ndarray) -> Estimate:
    r"""Mean under the law wanted, and its standard error.

    .. math:: \hat\mu = \sum_i w_i v_i, \qquad \hat\sigma^2 = \sum_i w_i^2 (v_i - \hat\mu)^2

    Args:
        values: (n,) of a function at the draws.

    Source: Owen (Monte Carlo theory, methods and examples, 2013), section 9.2.

    >>> z = np.random.default_rng(0).normal(size=4000)
    >>> found = weighted_mean(z, 1.0 * z)  # N(0, 1) tilted by z is N(1, 1)
    >>> abs(found.mean - 1.0) < 3 * found.error < 0.2
    True
    """
    w = weights(log_ratio)
    mean = float(w @ values)
    return Estimate(mean, float((w**2 * (values - mean) ** 2).sum() ** 0.5))


def pareto_k_hat(log_ratio: np.ndarray) -> float:
    r"""Shape :math:`\hat k` of the generalised Pareto distribution of the largest weights: how heavy their tail is.

    Weighted means have a finite variance for k < 1/2, and are of use up to about 0.7. The largest of n weights are
    those above the one that is :math:`\min(n / 5, 3 \sqrt n)` places below the largest; equal weights have no tail,
    and minus infinity.

    Args:
        log_ratio: (n,), as in `weights`.

    Source: Zhang, Stephens (Technometrics 2009), section 3, with the prior of Vehtari et al. (JMLR 2024), appendix F.

    >>> rng = np.random.default_rng(0)
    >>> pareto_k_hat(np.zeros(1000)), round(pareto_k_hat(0.8 * rng.exponential(size=100_000)), 1)  # Pareto, k = 0.8
    (-inf, 0.8)
    """
    if not np.isfinite(log_ratio).all():
        return float("inf")
    n = len(log_ratio)
    n_tail = int(np.ceil(min(0.2 * n, 3.0 * n**0.5)))
    ordered = np.sort(log_ratio.astype(float))
    if ordered[-1] - ordered[-n_tail - 1] < EQUAL:
        return float("-inf")
    least = np.exp(ordered[-n_tail - 1] - ordered[-1])
    excess = np.exp(ordered[-n_tail:] - ordered[-1]) - least
    excess = excess[excess > 0]
    return _pareto_shape(excess) if len(excess) > 4 else float("inf")


def _pareto_shape(excess: np.ndarray) -> float:
    """Posterior mean of the shape, over a grid of the ratio of shape to scale; `excess` in order."""
    n = len(excess)
    n_grid = 30 + int(n**0.5)
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = 1.0 / excess[-1] + (1.0 - (n_grid / (np.arange(n_grid) + 0.5)) ** 0.5) / (3.0 * quartile)
    shape = np.log1p(-theta[:, None] * excess).mean(1)
    profile = n * (np.log(-theta / shape) - shape - 1.0)
    k = np.log1p(-(weights(profile) @ theta) * excess).mean()
    return float((n * k + 10.0 * 0.5) / (n + 10.0))  # as if by ten more weights with k = 1/2


def _ratio(log_ratio: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_ratio - log_ratio.max()))
