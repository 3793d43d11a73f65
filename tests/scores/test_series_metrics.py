"""Figures of scores of time points: against brute force over thresholds, and in cases that can be counted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from pplebm.errors import PplebmError
from pplebm.scores import series_metrics as metrics

LABELS = np.zeros(60, int)
LABELS[[5, 6, 7, 20, 40, 41, 42, 43, 59]] = 1


def random_scores(seed, ties):
    a = np.random.default_rng(seed).normal(size=60)
    return a.round(0) if ties else a


def brute(labels, scores, buffer, existence):
    """The definition, threshold by threshold and point by point."""
    distance = lambda t, segment: max(segment[0] - t, t - segment[1] + 1, 0)
    pieces = metrics.segments(labels)
    wide = []
    for t in range(len(labels)):
        parts = [np.sqrt(1 - distance(t, s) / buffer) for s in pieces if 0 < distance(t, s) <= buffer // 2]
        wide.append(min(1.0, labels[t] + sum(parts)))
    wide, area, before = np.array(wide), 0.0, 0.0
    runs = metrics.segments(wide)
    for threshold in sorted(set(scores), reverse=True):
        predicted = scores >= threshold
        hits = (wide * predicted).sum()
        recall = min(1.0, hits / ((labels.sum() + wide.sum()) / 2))
        if existence:
            recall *= np.mean([predicted[first:end].any() for first, end in runs])
        area += (recall - before) * hits / predicted.sum()
        before = recall
    return area


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("existence", [False, True])
@pytest.mark.parametrize("buffer", [0, 1, 2, 5, 12, 40])
def test_the_area_is_that_of_every_threshold(buffer, existence, ties):
    for seed in range(3):
        scores = random_scores(seed, ties)
        got = metrics.range_auprc(LABELS, scores, buffer, existence)
        assert got == pytest.approx(brute(LABELS, scores, buffer, existence), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_without_a_buffer_it_is_the_average_precision_of_points(ties):
    single = np.where((np.arange(60) > 20) & (np.arange(60) < 30), 1, 0)
    for seed in range(5):
        scores = random_scores(seed, ties)
        assert metrics.vus_pr(LABELS, scores, 0, False) == pytest.approx(average_precision_score(LABELS, scores))
        assert metrics.vus_pr(single, scores, 0) == pytest.approx(average_precision_score(single, scores))


def test_the_volume_is_the_mean_over_buffers_and_forgives_a_shift():
    scores = random_scores(0, False)
    areas = [metrics.range_auprc(LABELS, scores, b) for b in range(7)]
    assert metrics.vus_pr(LABELS, scores, 6) == pytest.approx(np.mean(areas))
    shifted = np.roll(LABELS, 2) + 1e-3 * np.arange(60)
    assert metrics.vus_pr(LABELS, shifted, 12) > metrics.vus_pr(LABELS, shifted, 0) + 0.1


def test_point_adjustment_counts_whole_segments():
    """Against F1 of every threshold, and in closed form: one point of a segment that is half of the series."""
    for seed in range(3):
        scores, found = random_scores(seed, seed == 2), []
        for threshold in set(scores):
            predicted = scores >= threshold
            for first, end in metrics.segments(LABELS):
                predicted[first:end] |= predicted[first:end].any()
            found.append(f1_score(LABELS, predicted))
        assert metrics.adjusted_f1(LABELS, scores) == pytest.approx(max(found))


def test_a_random_score_is_high_after_point_adjustment_and_is_told_beside():
    labels = np.zeros(2000, int)
    labels[500:700] = 1
    found = metrics.detection_of_points(labels, np.random.default_rng(0).random(2000), 10)
    assert found.random_adjusted_f1 > 0.9 and found.auprc < 0.2 and found.prevalence == 0.1
    assert found.random_vus_pr == pytest.approx(0.1, abs=0.02)
    lines = metrics.sentence("a", found)
    assert lines[2] == metrics.WARNING and f"{found.random_adjusted_f1:.3f}" in lines[1]


@pytest.mark.parametrize(
    ("labels", "scores", "buffer", "words"),
    [
        ([0, 1, 2], [0.0, 1.0, 2.0], 0, "must be 1"),
        ([0, 0], [0.0, 1.0], 0, "same label"),
        ([0, 1], [0.0, np.nan], 0, "not finite"),
        ([0, 1], [0.0, 1.0], -1, "a buffer is"),
    ],
)  # fmt: skip
def test_what_has_no_area_is_refused(labels, scores, buffer, words):
    with pytest.raises(PplebmError, match=words):
        metrics.range_auprc(labels, scores, buffer)
