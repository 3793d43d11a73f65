r"""How well a score of time points finds anomalous segments, point by point and with tolerance around them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.scores.metrics import average_precision, checked

WARNING = (
    "point-adjusted F1 counts a whole true segment as found if one point of it is, by the best threshold for these "
    "labels: a random score comes out high, so read it beside that one"
)
N_RANDOM = 20  # random scores, whose mean stands beside


class OfPoints(NamedTuple):
    """Figures of one score of time points; those of random scores, averaged over a few, stand beside."""

    auprc: float  # point by point: average precision
    vus_pr: float
    adjusted_f1: float  # see WARNING
    random_vus_pr: float
    random_adjusted_f1: float
    prevalence: float  # share of anomalous points: the AUPRC of scores that know nothing
    n_segments: int


def segments(labels: Any) -> list[tuple[int, int]]:
    """Runs of points above 0, as (first, one after the last).

    >>> segments([0, 1, 1, 0, 0, 1])
    [(1, 3), (5, 6)]
    """
    edges = np.diff(np.concatenate([[0], (np.asarray(labels) > 0).astype(int), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def widened(labels: Any, buffer: int) -> np.ndarray:
    r"""Labels that fall off around true segments instead of ending there.

    .. math:: \sqrt{1 - d / \ell}

    at distance d = 1 ... l/2 from a segment, for a buffer of l points; summed where two overlap, 1 at most.

    >>> widened([0, 0, 0, 1, 0], 4).round(3).tolist()
    [0.0, 0.707, 0.866, 1.0, 0.866]
    """
    found = (np.asarray(labels) > 0).astype(float)
    n = len(found)
    for first, last in segments(labels):
        for d in range(1, buffer // 2 + 1):
            for at in (first - d, last - 1 + d):
                if 0 <= at < n:
                    found[at] += np.sqrt(1.0 - d / buffer)
    return np.minimum(found, 1.0)


def range_auprc(labels: Any, scores: Any, buffer: int = 0, existence: bool = True) -> float:
    r"""Area under precision and recall where points near a true segment count in part.

    .. math:: \text{precision} = \frac{\sum_t \ell_t \hat y_t}{\sum_t \hat y_t}, \quad
              \text{recall} = \min\Bigl(1, \frac{\sum_t \ell_t \hat y_t}{\frac12 \sum_t (y_t + \ell_t)}\Bigr) \cdot
              \frac{\#\text{segments hit}}{\#\text{segments}}

    with labels y, widened labels l, and predictions :math:`\hat y` at every threshold, as a sum over steps of recall.

    Args:
        labels: (n,) 1 for anomalous points.
        scores: (n,) higher the more anomalous.
        buffer: points, see `widened`; 0: the labels as they are.
        existence: whether recall has its second factor. Without it, or for a single segment, buffer 0 is the average
            precision of points.

    Raises:
        PplebmError: for labels that are not 0 or 1 or all the same, scores that are not finite, a negative buffer.

    Source: Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin (PVLDB 2022), Range-AUC-PR; all thresholds are used.

    Example:
        >>> [round(range_auprc([0, 1, 0, 0], [0.0, 0.1, 0.9, 0.1], buffer), 4) for buffer in (0, 2)]
        [0.3333, 0.6262]
    """
    labels, scores = checked(labels, scores)
    if isinstance(buffer, bool) or not isinstance(buffer, (int, np.integer)) or buffer < 0:
        raise PplebmError(f"a buffer is a number of points, 0 or more, got {buffer!r}.")
    wide = widened(labels, int(buffer))
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of points with one score
    hits = np.cumsum(wide[order])[last]
    recall = np.minimum(1.0, hits / (0.5 * (labels.sum() + wide.sum())))
    if existence:
        best = np.sort([-scores[first:end].max() for first, end in segments(wide)])
        recall = recall * np.searchsorted(best, -scores[order][last], side="right") / len(best)
    return float((np.diff(recall, prepend=0.0) * hits / (last + 1)).sum())


def vus_pr(labels: Any, scores: Any, longest_buffer: int, existence: bool = True) -> float:
    """Volume under the surface of precision and recall: `range_auprc` averaged over buffers 0 to the longest.

    Args:
        labels, scores, existence: as in `range_auprc`.
        longest_buffer: points; of the order of a period, or of a window.

    Source: Paparrizos et al. (PVLDB 2022), VUS-PR.

    Example:
        >>> vus_pr([0, 0, 1, 1, 0, 0], [0.0, 0.1, 0.9, 0.8, 0.2, 0.1], 0)
        1.0
    """
    return float(np.mean([range_auprc(labels, scores, b, existence) for b in range(longest_buffer + 1)]))


def adjusted_f1(labels: Any, scores: Any) -> float:
    """Best F1 over thresholds after point adjustment: see `WARNING`, and give it beside that of a random score.

    Example:
        >>> round(adjusted_f1([0] * 8 + [1] * 8, [0.0] * 15 + [1.0]), 3)
        1.0
    """
    labels, scores = checked(labels, scores)
    raised = scores.copy()
    for first, end in segments(labels):
        raised[first:end] = scores[first:end].max()
    order = np.argsort(-raised, kind="stable")
    last = np.append(np.flatnonzero(np.diff(raised[order])), len(raised) - 1)
    hits = np.cumsum(labels[order])[last]
    return float((2.0 * hits / (last + 1 + labels.sum())).max())


def detection_of_points(labels: Any, scores: Any, longest_buffer: int, seed: int = 0) -> OfPoints:
    """Figures of a score of time points, and those of random scores.

    Args:
        labels, scores: as in `range_auprc`.
        longest_buffer: as in `vus_pr`.
        seed: of the random scores.
    """
    labels, scores = checked(labels, scores)
    rng, n = np.random.default_rng(seed), len(labels)
    random = [rng.random(n) for _ in range(N_RANDOM)]
    return OfPoints(
        average_precision(labels, scores), vus_pr(labels, scores, longest_buffer), adjusted_f1(labels, scores),
        float(np.mean([vus_pr(labels, noise, longest_buffer) for noise in random])),
        float(np.mean([adjusted_f1(labels, noise) for noise in random])),
        float(labels.mean()), len(segments(labels)),
    )  # fmt: skip


def sentence(name: str, found: OfPoints) -> list[str]:
    """Figures as lines of text, with what has to stand beside."""
    return [
        f"{name}: AUPRC of points {found.auprc:.3f} (prevalence {found.prevalence:.3f}), VUS-PR {found.vus_pr:.3f} "
        f"(random {found.random_vus_pr:.3f}), {found.n_segments} segments",
        f"point-adjusted F1 {found.adjusted_f1:.3f}, of a random score {found.random_adjusted_f1:.3f}",
        WARNING,
    ]
