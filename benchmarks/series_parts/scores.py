"""Figures of scores of time points, and scores that know less than a model: they stand beside."""

from __future__ import annotations

import numpy as np

from pplebm.data import Windows
from pplebm.scores.metrics import average_precision
from pplebm.scores.series_metrics import N_RANDOM, adjusted_f1, vus_pr

ROWS = 512  # windows at once

Figures = dict[str, float]


def detected(labels: np.ndarray, scores: np.ndarray, buffer: int) -> Figures:
    """Figures of a score."""
    return {"auprc": average_precision(labels, scores), "vus_pr": vus_pr(labels, scores, buffer),
            "adjusted_f1": adjusted_f1(labels, scores)}  # fmt: skip


def at_random(labels: np.ndarray, buffer: int, seed: int) -> Figures:
    """Mean figures of random scores."""
    noise = [detected(labels, a, buffer) for a in np.random.default_rng(seed).random((N_RANDOM, len(labels)))]
    return {name: float(np.mean([one[name] for one in noise])) for name in noise[0]}


def nearest(train: Windows, test: Windows) -> np.ndarray:
    """Distance of every window to the nearest one of training, by point.

    Where entries of training are missing it is over those that both have, as if the others were like them:
    sqrt(entries / common entries · sum of squares over common ones). Windows without a common entry are no neighbours.

    >>> from pplebm.data import windows
    >>> a, b = windows([0.0, np.nan, 5.0], 2, 1, scaling="none"), windows([3.0, 0.0], 2, 1, scaling="none")
    >>> nearest(a, b) ** 2  # of (0, missing): 2 · 3²; of (missing, 5): 2 · 5²
    array([18., 18.])
    """
    b, there_b = (a.reshape(len(a), -1).astype(float) for a in (train.x, train.observed_x))
    least = []
    for start in range(0, len(test.x), ROWS):
        a, there_a = (w[start : start + ROWS].reshape(-1, b.shape[1]).astype(float) for w in (test.x, test.observed_x))
        squares = a**2 @ there_b.T + there_a @ (b**2).T - 2.0 * a @ b.T  # 0 stands where an entry is missing
        common = there_a @ there_b.T
        scaled = np.maximum(squares, 0.0) * b.shape[1] / np.maximum(common, 1.0)
        least.append(np.where(common > 0, scaled, np.inf).min(1))
    return test.to_points(np.sqrt(np.concatenate(least)))


def deviation(test: Windows) -> np.ndarray:
    """Squared distance of every point to the training mean, which is 0 in model units, by column.

    >>> from pplebm.data import windows
    >>> deviation(windows(np.array([[0.0, 2.0], [np.nan, 3.0]]), 1, scaling="none"))
    array([[ 0.,  4.],
           [nan,  9.]])
    """
    return test.to_points(np.where(test.observed_x, test.x.astype(float) ** 2, np.nan))
