"""Ranks of true values among draws: whether they are uniform, and what coverage of intervals they mean."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from scipy import stats

N_SIMULATED = 10_000  # sets of uniform ranks that a band and a p-value rest on
MOST_POINTS = 100  # at which the empirical distribution is looked at
LEAST_EXPECTED = 5.0  # ranks of a bin of the chi-square test, its usual rule
MOST_BINS = 20


class Coverage(NamedTuple):
    """How often central intervals hold the true value."""

    level: float  # that the interval has of exact posteriors: one that ranks can tell, near the level asked for
    share: float
    low: float  # of the 95 % binomial interval of the share
    high: float


class Band(NamedTuple):
    """Simultaneous band for the empirical distribution of uniform ranks."""

    at: np.ndarray  # (points,) shares of the ranks, in (0, 1)
    low: np.ndarray  # (points,) of the empirical distribution
    high: np.ndarray


def ranks_of(true: np.ndarray, draws: np.ndarray, seed: int = 0) -> np.ndarray:
    r"""Number of draws below the true value, ties broken at random: uniform on 0..L if all come from one law.

    .. math:: r = \#\{z_l < z^*\} + U, \qquad U \sim \text{uniform on } 0 .. \#\{z_l = z^*\}

    Args:
        true: (n,).
        draws: (L, n).
        seed: of the ties.

    Source: Talts, Betancourt, Simpson, Vehtari, Gelman (arXiv 1804.06788), theorem 1; Modrák et al. (2023), section 2.

    >>> ranks_of(np.array([0.5, 3.0]), np.array([[0.0, 1.0], [1.0, 2.0]])).tolist()
    [1, 2]
    """
    below, equal = (draws < true).sum(0), (draws == true).sum(0)
    return below + np.random.default_rng(seed).integers(0, equal + 1)


def points(n_draws: int) -> np.ndarray:
    """Ranks k at which #{r < k} is looked at: all from 1 to L, or as many as are told apart."""
    all_of = np.arange(1, n_draws + 1)
    return all_of if n_draws <= MOST_POINTS else np.unique(np.linspace(1, n_draws, MOST_POINTS).round().astype(int))


@functools.lru_cache(maxsize=32)
def _law(n: int, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Pointwise p-values of every count at every point, (points, n + 1), and smallest ones of uniform ranks, sorted.

    The count :math:`\#\{r < k\}` of n uniform ranks is binomial with chance :math:`k / (L + 1)`, exactly.
    """
    k = points(n_draws)
    chance, counts = k / (n_draws + 1.0), np.arange(n + 1)
    law = stats.binom(n, chance[:, None])
    pointwise = np.minimum(1.0, 2.0 * np.minimum(law.cdf(counts), law.sf(counts - 1)))
    steps = np.diff(chance, prepend=0.0, append=1.0)
    drawn = np.random.default_rng(0).multinomial(n, steps, N_SIMULATED).cumsum(1)[:, :-1]
    least = pointwise[np.arange(len(k)), drawn].min(1)
    return pointwise, np.sort(least)


def band(n: int, n_draws: int, level: float = 0.95) -> Band:
    r"""Band that holds the whole empirical distribution of n uniform ranks with chance `level` at least.

    Pointwise intervals are binomial; their common level is the one at which that many simulated sets of uniform ranks
    stay inside everywhere.

    Args:
        n: ranks.
        n_draws: L, of the ranks 0..L.
        level: of all points together.

    Source: Säilynoja, Bürkner, Vehtari (Statistics and Computing 2022), algorithm 1.

    >>> found = band(100, 9)
    >>> bool((found.low < found.at).all() and (found.at < found.high).all())
    True
    """
    pointwise, least = _law(n, n_draws)
    bar = least[int(np.floor((1.0 - level) * len(least)))]
    inside = pointwise >= bar
    low, high = inside.argmax(1), n - inside[:, ::-1].argmax(1)
    return Band(points(n_draws) / (n_draws + 1.0), low / n, high / n)


def distribution(ranks: np.ndarray, n_draws: int) -> np.ndarray:
    """Empirical distribution of ranks at the points of `band`, the share with r < k."""
    return (ranks[:, None] < points(n_draws)).mean(0)


def ecdf_p_value(ranks: np.ndarray, n_draws: int) -> float:
    """How often uniform ranks stray as far from the diagonal, where they stray the most, as these do."""
    pointwise, least = _law(len(ranks), n_draws)
    counts = (ranks[:, None] < points(n_draws)).sum(0)
    found = pointwise[np.arange(len(counts)), counts].min()
    return float((1 + np.searchsorted(least, found, side="right")) / (1 + len(least)))


def binned(ranks: np.ndarray, n_draws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Histogram of ranks in about equal bins of whole ranks: counts, counts expected, edges."""
    n_bins = int(max(2, min(MOST_BINS, len(ranks) // (2 * LEAST_EXPECTED), n_draws + 1)))
    edges = np.unique(np.linspace(0, n_draws + 1, n_bins + 1).round().astype(int))
    counts = np.histogram(ranks, edges - 0.5)[0]
    return counts, len(ranks) * np.diff(edges) / (n_draws + 1.0), edges


def chi_square_p_value(ranks: np.ndarray, n_draws: int) -> float:
    """Pearson's chi-square test of the histogram of ranks."""
    counts, expected, _ = binned(ranks, n_draws)
    return float(stats.chisquare(counts, expected).pvalue)


def coverage(ranks: np.ndarray, n_draws: int, level: float) -> Coverage:
    r"""Share of the true values in the central interval of their draws, and what it should be.

    The interval from the j-th smallest to the j-th largest of L draws holds the truth with chance
    :math:`1 - 2 j / (L + 1)`, whatever the posterior is; j is the one whose chance is nearest to the level.

    >>> coverage(np.arange(100) % 20, 19, 0.9)[:2]
    (0.9, 0.9)
    """
    j = int(np.clip(round((1.0 - level) / 2.0 * (n_draws + 1)), 1, (n_draws + 1) // 2))
    inside = int(((ranks >= j) & (ranks <= n_draws - j)).sum())
    interval = stats.binomtest(inside, len(ranks)).proportion_ci(0.95)
    chance = 1.0 - 2.0 * j / (n_draws + 1.0)
    return Coverage(round(chance, 10), inside / len(ranks), float(interval.low), float(interval.high))


def shape_of(ranks: np.ndarray, n_draws: int) -> tuple[float, float]:
    r"""Standard scores of the mean of uniform ranks and of their mean squared distance from the middle.

    Positive: the truth lies above the draws; the truth lies farther out than the draws, which are too narrow.
    """
    u = np.arange(n_draws + 1) - 0.5 * n_draws
    a = ranks - 0.5 * n_draws
    variance = float((u**2).mean())
    kurtosis = float((u**4).mean()) - variance**2
    root = len(ranks) ** 0.5
    return float(a.mean() / variance**0.5 * root), float(
        ((a**2).mean() - variance) / max(kurtosis, 1e-30) ** 0.5 * root
    )
