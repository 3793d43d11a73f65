"""Areas under curves against direct counts, the floor against the worst ranking, intervals against repetition."""

import numpy as np
import pytest

from pplebm.errors import PplebmError
from pplebm.scores.metrics import METRICS, auprc, auroc, average_precision, detection, difference, floor, table


def data(rng, n=300, share=0.2):
    """Labels, and an asymmetric score of theirs."""
    labels = (np.arange(n) < share * n).astype(int)
    return labels, rng.gamma(2.0, size=n) * (1.0 + 0.8 * labels)


def test_auroc_is_the_share_of_pairs_in_order():
    labels, scores = data(np.random.default_rng(0))
    scores = scores.round(1)  # ties count half
    gap = scores[labels == 1][:, None] - scores[labels == 0][None]
    assert auroc(labels, scores) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())


def test_the_two_areas_under_precision_and_recall_by_hand():
    """Ranking + - + -: precision 1, 1/2, 2/3, 1/2 at recall 1/2, 1/2, 1, 1."""
    labels, scores = np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0])
    assert average_precision(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert auprc(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 0.5 * (1 / 2 + 2 / 3))


@pytest.mark.parametrize("share", [0.05, 0.356, 0.5, 0.8])
def test_the_floor_is_that_of_the_worst_ranking(share):
    n = 20_000
    labels = (np.arange(n) < share * n).astype(int)
    worst = np.arange(n, dtype=float)  # anomalies lowest
    assert auprc(labels, worst) == pytest.approx(floor(share), abs=2e-3)
    assert average_precision(labels, worst) == pytest.approx(floor(share), abs=2e-3)
    assert auprc(labels, np.random.default_rng(0).normal(size=n)) == pytest.approx(share, abs=0.03)


def test_intervals_cover_what_repetition_finds():
    """Of 40 samples of data, intervals of level .9 hold the value of the law in 36; binomial error 1.9."""
    truth = {name: metric(*data(np.random.default_rng(1), 60_000)) for name, metric in METRICS.items()}
    covered = dict.fromkeys(METRICS, 0)
    for seed in range(40):
        found = detection(*data(np.random.default_rng(100 + seed)), n_bootstrap=60, level=0.9, seed=seed)
        for name in METRICS:
            figure = getattr(found, name)
            covered[name] += figure.low <= truth[name] <= figure.high
    assert all(29 <= count <= 40 for count in covered.values()), covered


def test_a_paired_difference_is_sharper_than_two_intervals():
    labels, scores = data(np.random.default_rng(2))
    other = scores + 0.05 * np.random.default_rng(3).normal(size=len(scores)) - 0.3 * labels
    apart, found = detection(labels, scores, n_bootstrap=200), difference(labels, scores, other, n_bootstrap=200)
    assert found.value == pytest.approx(auprc(labels, scores) - auprc(labels, other)) and 0 < found.low < found.high
    assert found.high - found.low < 0.5 * (apart.auprc.high - apart.auprc.low)


def test_refusals_and_table():
    head, line = table([0, 1, 1, 0], {"a": [1.0, 2.0, 3.0, 0.0]}, n_bootstrap=20)
    assert head[2] == "AUPRC (trapezoid)" and line[4:] == ("0.500", "0.307")
    for labels, scores, why in (
        ([0, 2], [0.0, 1.0], "labels must be 1"), ([1, 1], [0.0, 1.0], "same label"),
        ([0, 1], [0.0, np.nan], "1 of 2 scores are not finite"), ([0, 1], [1.0], "one of each per datum"),
    ):  # fmt: skip
        with pytest.raises(PplebmError, match=why):
            detection(labels, scores)
    with pytest.raises(PplebmError, match="metric 'f1' is not known"):
        difference([0, 1], [0.0, 1.0], [0.0, 1.0], "f1")
    with pytest.raises(PplebmError, match="prevalence must lie"):
        floor(1.0)
