r"""Draws of one law as weighted draws of another, such as draws of the base as draws of the tilted prior."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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


def _ratio(log_ratio: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_ratio - log_ratio.max()))
