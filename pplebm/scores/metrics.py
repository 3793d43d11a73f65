r"""How well a score separates anomalies from normal data: areas under curves, their floor, and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from pplebm.errors import PplebmError


class Figure(NamedTuple):
    """An estimate and its bootstrap interval."""

    value: float
    low: float
    high: float


class Detection(NamedTuple):
    """Figures of one score; anomalies are the positives."""

    auroc: Figure
    auprc: Figure  # trapezoid
    average_precision: Figure
    prevalence: float  # share of anomalies: what areas under precision and recall are for scores that know nothing
    floor: float  # least area under precision and recall at that prevalence
    n: int
    n_anomalies: int


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the receiver operating characteristic; a half for scores that know nothing."""
    return float(roc_auc_score(labels, scores))


def auprc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under precision against recall by the trapezoid rule, as the papers of this family of models report it."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(auc(recall, precision))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Precision summed over steps of recall, without interpolation."""
    return float(average_precision_score(labels, scores))


def floor(prevalence: float) -> float:
    r"""Least area under precision and recall that any ranking can have, for large samples.

    .. math:: 1 + \frac{(1 - \pi) \log(1 - \pi)}{\pi}

    Args:
        prevalence: :math:`\pi` in (0, 1), share of anomalies.

    Raises:
        PplebmError: for another one.

    Source: Boyd, Santos Costa, Davis, Page (ICML 2012), theorem 1.

    Example:
        >>> round(floor(0.5), 4), round(floor(0.388), 4)
        (0.3069, 0.2255)
    """
    if not 0.0 < prevalence < 1.0:
        raise PplebmError(f"prevalence must lie in (0, 1), got {prevalence!r}.")
    return float(1.0 + (1.0 - prevalence) * np.log1p(-prevalence) / prevalence)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auroc": auroc, "auprc": auprc, "average_precision": average_precision,
}  # fmt: skip


def detection(labels: Any, scores: Any, *, n_bootstrap: int = 500, level: float = 0.95, seed: int = 0) -> Detection:
    """Figures of a score with bootstrap intervals, anomalies and normal data drawn again apart from each other.

    The intervals are about further data of both kinds, at this prevalence. The Monte Carlo error of the scores is in
    them as far as it varies from datum to datum; how the model was learned is not.

    Args:
        labels: (n,) 1 or True for anomalies, 0 or False for normal data.
        scores: (n,) higher the more anomalous.
        n_bootstrap: samples.
        level: of the intervals, by quantiles.
        seed: of the samples.

    Raises:
        PplebmError: for labels that are not 0 or 1, only one kind of data, or scores that are not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat([0, 1], [80, 20])
        >>> found = detection(labels, rng.normal(size=100) + labels, n_bootstrap=100)
        >>> found.auroc.low < found.auroc.value < found.auroc.high, found.prevalence
        (True, 0.2)
    """
    labels, scores = checked(labels, scores)
    values = {name: metric(labels, scores) for name, metric in METRICS.items()}
    samples = {name: np.empty(n_bootstrap) for name in METRICS}
    for i, rows in enumerate(_samples(labels, n_bootstrap, seed)):
        for name, metric in METRICS.items():
            samples[name][i] = metric(labels[rows], scores[rows])
    figures = {name: Figure(values[name], *interval(a, level)) for name, a in samples.items()}
    share = float(labels.mean())
    return Detection(**figures, prevalence=share, floor=floor(share), n=len(labels), n_anomalies=int(labels.sum()))


def difference(
    labels: Any, first: Any, second: Any, metric: str = "auprc", *, n_bootstrap: int = 500, level: float = 0.95,
    seed: int = 0,
) -> Figure:  # fmt: skip
    """Difference of a metric between two scores of the same data, such as those of a model and its untilted twin.

    Both are computed on the same bootstrap samples, so that what the data have in common cancels.

    Args:
        labels: as in `detection`.
        first, second: (n,) each; the figure is that of the first less that of the second.
        metric: "auroc", "auprc" or "average_precision".
        n_bootstrap, level, seed: as in `detection`.

    Raises:
        PplebmError: as `detection` does, and for an unknown metric.

    Example:
        >>> labels, noise = np.repeat([0, 1], 50), np.random.default_rng(0).normal(size=100)
        >>> difference(labels, labels + noise, noise, "auroc", n_bootstrap=100).low > 0
        True
    """
    if metric not in METRICS:
        raise PplebmError(f"metric '{metric}' is not known; choose one of {', '.join(METRICS)}.")
    labels, first = checked(labels, first)
    labels, second = checked(labels, second)
    of = METRICS[metric]
    gain = lambda rows: of(labels[rows], first[rows]) - of(labels[rows], second[rows])
    samples = np.array([gain(rows) for rows in _samples(labels, n_bootstrap, seed)])
    return Figure(gain(np.arange(len(labels))), *interval(samples, level))


HEAD = ("score", "AUROC", "AUPRC (trapezoid)", "average precision", "prevalence", "floor")


def table(labels: Any, scores: Mapping[str, Any], **settings: Any) -> list[tuple[str, ...]]:
    """Figures of several scores as text, a line for each below `HEAD`.

    Args:
        labels: as in `detection`.
        scores: (n,) by name.
        settings: of `detection`.

    Example:
        >>> table([0, 0, 1], {"a": [0.1, 0.2, 0.3]}, n_bootstrap=10)[1]
        ('a', '1.000 [1.000, 1.000]', '1.000 [1.000, 1.000]', '1.000 [1.000, 1.000]', '0.333', '0.189')
    """
    lines: list[tuple[str, ...]] = [HEAD]
    for name, values in scores.items():
        found = detection(labels, values, **settings)
        figures = (f"{f.value:.3f} [{f.low:.3f}, {f.high:.3f}]" for f in found[:3])
        lines.append((name, *figures, f"{found.prevalence:.3f}", f"{found.floor:.3f}"))
    return lines


def checked(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels as integers and scores as numbers, (n,) each.

    Raises:
        PplebmError: as `detection` does.
    """
    kinds, values = np.asarray(labels), np.asarray(scores, float)
    if kinds.shape != values.shape or kinds.ndim != 1:
        raise PplebmError(f"labels have shape {kinds.shape} and scores {values.shape}; give one of each per datum.")
    if not np.isin(kinds, (0, 1)).all():
        raise PplebmError(f"labels must be 1 for anomalies and 0 for normal data, got {np.unique(kinds)[:5].tolist()}.")
    if not np.isfinite(values).all():
        n_lost = int((~np.isfinite(values)).sum())
        raise PplebmError(f"{n_lost} of {len(values)} scores are not finite; leave these data out, and say so.")
    kinds = kinds.astype(int)
    if kinds.min() == kinds.max():
        raise PplebmError("all data have the same label; areas under curves need normal data and anomalies.")
    return kinds, values


def interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    """Quantiles that enclose a share of the samples in the middle."""
    if not 0.0 < level < 1.0:
        raise PplebmError(f"level must lie in (0, 1), got {level!r}.")
    low, high = np.quantile(samples, (0.5 - 0.5 * level, 0.5 + 0.5 * level))
    return float(low), float(high)


def _samples(labels: np.ndarray, n: int, seed: int) -> list[np.ndarray]:
    """Rows of bootstrap samples, stratified."""
    rng, kinds = np.random.default_rng(seed), [np.flatnonzero(labels == kind) for kind in (0, 1)]
    return [np.concatenate([rng.choice(rows, len(rows)) for rows in kinds]) for _ in range(n)]
