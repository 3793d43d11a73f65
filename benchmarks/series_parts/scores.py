"""Figures of scores of time points, and scores that know less than a model: they stand beside."""

from __future__ import annotations

import numpy as np

from pplebm.data import Series, Windows
from pplebm.errors import PplebmError
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


def filled(series: Series) -> Series:
    """A series whose missing values lie on straight lines between their neighbours in time.

    >>> filled(Series("a", np.array([[0.0], [np.nan], [4.0], [np.nan]]), ("0",))).values.ravel()
    array([0., 2., 4., 4.])
    """
    steps, values = np.arange(len(series.values)), series.values.copy()
    for column in values.T:  # views
        there = np.isfinite(column)
        column[:] = np.interp(steps, steps[there], column[there])
    return series._replace(values=values)


def nearest(train: Windows, test: Windows) -> np.ndarray:
    """Distance of every window to the nearest one of training, by point.

    Missing entries are to be filled before: over the entries that both have, a window that differs from all others at
    one point would be no further from one that lacks that point than from its equal.
    """
    if not (train.observed_x.all() and test.observed_x.all()):
        raise PplebmError("entries of windows are missing, and distances are of whole windows; see `filled`.")
    b, least = train.x.reshape(len(train.x), -1).astype(float), []
    for start in range(0, len(test.x), ROWS):
        a = test.x[start : start + ROWS].reshape(-1, b.shape[1]).astype(float)
        least.append(((a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T).min(1))
    return test.to_points(np.sqrt(np.maximum(np.concatenate(least), 0.0)))


def deviation(test: Windows) -> np.ndarray:
    """Squared distance of every point to the training mean, which is 0 in model units, by column.

    >>> from pplebm.data import windows
    >>> deviation(windows(np.array([[0.0, 2.0], [np.nan, 3.0]]), 1, scaling="none"))
    array([[ 0.,  4.],
           [nan,  9.]])
    """
    return test.to_points(np.where(test.observed_x, test.x.astype(float) ** 2, np.nan))
