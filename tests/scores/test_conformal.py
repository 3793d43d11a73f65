"""Conformal p-values and thresholds on skewed scores: uniform, valid, and as variable as the beta law says."""

import numpy as np
import pytest
from scipy.stats import beta, gamma, kstest

from pplebm.errors import PplebmError
from pplebm.scores.conformal import conformal_p_values, discoveries, threshold

N, REPEATS = 49, 4000


def skewed(rng, shape):
    return rng.gamma(0.7, size=shape)


def test_p_values_are_uniform_over_their_steps():
    """Rank of one among N + 1 exchangeable scores: each of the N + 1 values equally often, by a chi-squared test."""
    rng = np.random.default_rng(0)
    p = np.array([conformal_p_values(skewed(rng, 1), skewed(rng, N))[0] for _ in range(REPEATS)])
    counts = np.bincount((p * (N + 1)).round().astype(int) - 1, minlength=N + 1)
    expected = REPEATS / (N + 1)
    assert ((counts - expected) ** 2 / expected).sum() < N + 4 * np.sqrt(2 * N)


@pytest.mark.parametrize("ties", [False, True])
def test_randomised_p_values_are_uniform_with_ties_as_well(ties):
    rng = np.random.default_rng(1)
    made = lambda n: np.ceil(2 * skewed(rng, n)) if ties else skewed(rng, n)
    p = np.array([conformal_p_values(made(1), made(N), randomised=True, seed=i)[0] for i in range(REPEATS)])
    assert kstest(p, "uniform").pvalue > 1e-3
    if ties:
        plain = np.array([conformal_p_values(made(1), made(N))[0] for _ in range(REPEATS)])
        for level in (0.1, 0.3, 0.6):
            assert (plain <= level).mean() < level + 4 * np.sqrt(level * (1 - level) / REPEATS)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.05), (250, 0.013), (19, 0.05)])
def test_false_alarms_of_a_threshold_follow_the_beta_law(n, rate):
    """Rates are exact tail probabilities of the score's law: no second sample."""
    rng = np.random.default_rng(2)
    found = [threshold(skewed(rng, n), rate) for _ in range(1500)]
    rates = gamma(0.7).sf([one.value for one in found])
    m = int(rate * (n + 1) + 1e-9)
    assert kstest(rates, beta(m, n + 1 - m).cdf).pvalue > 1e-3
    assert rates.mean() < rate + 4 * rates.std() / len(rates) ** 0.5
    inside = np.mean([one.low <= r <= one.high for one, r in zip(found, rates, strict=True)])
    assert abs(inside - 0.9) < 4 * np.sqrt(0.09 / len(rates))


def test_the_threshold_flags_small_p_values():
    rng = np.random.default_rng(3)
    normal, new = skewed(rng, 120).round(1), skewed(rng, 500).round(1) * 2  # with ties
    for rate in (0.02, 0.05, 0.3):
        flags = threshold(normal, rate).flags(new)
        np.testing.assert_array_equal(flags, conformal_p_values(new, normal) <= rate + 1e-12)


def test_false_discoveries_of_a_batch_stay_below_the_rate():
    """Half of 40 data are normal; all share one calibration set."""
    rng, shares, found = np.random.default_rng(4), [], 0
    for _ in range(400):
        scores = np.concatenate([skewed(rng, 20), 4.0 + skewed(rng, 20)])
        called = discoveries(conformal_p_values(scores, skewed(rng, 200)), 0.2)
        shares.append(called[:20].sum() / max(1, called.sum()))
        found += called[20:].sum()
    assert np.mean(shares) < 0.2 * 0.5 + 4 * np.std(shares) / 20  # the rate times the share of normal data
    assert np.mean(shares) > 0.05 and found > 0.9 * 20 * 400


def test_what_is_not_known_is_not_called():
    p = conformal_p_values([np.nan, 5.0, -np.inf, np.inf], np.arange(99.0))
    assert np.isnan(p[0]) and p[1:].tolist() == [0.95, 1.0, 0.01]
    assert discoveries(p, 0.05).tolist() == [False, False, False, True]


def test_refusals():
    with pytest.raises(PplebmError, match="needs 99 held-out normal data or more, and there are 20"):
        threshold(np.arange(20.0))
    with pytest.raises(PplebmError, match="1 of 2 scores of normal data are not finite"):
        conformal_p_values([1.0], [1.0, np.nan])
    with pytest.raises(PplebmError, match="false_alarm must lie"):
        threshold(np.arange(20.0), 1.0)
    with pytest.raises(PplebmError, match="false_discovery must lie"):
        discoveries([0.1], 0.0)
