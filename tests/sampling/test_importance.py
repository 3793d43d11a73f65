"""Weighted draws: their mean, its error, and what they are worth."""

import numpy as np
import pytest

from pplebm.sampling.importance import effective_size, weighted_mean, weights


def test_reweighted_base_draws_have_the_tilted_mean():
    z = np.random.default_rng(0).normal(size=200_000)
    mean, error = weighted_mean(z, 0.5 * z)  # N(0, 1) tilted by exp(z/2) is N(1/2, 1)
    assert abs(mean - 0.5) < 4 * error < 0.02
    assert effective_size(0.5 * z) == pytest.approx(len(z) * np.exp(-0.25), rel=0.02)  # exp(-s²) for f = s·z


def test_the_error_is_the_spread_of_the_estimate():
    """Over many repetitions, means leave the truth by as much as their errors say."""
    z = np.random.default_rng(1).normal(size=(2000, 500))
    found = [weighted_mean(row, 0.5 * row) for row in z]
    off = np.array([estimate.mean - 0.5 for estimate in found])
    assert off.std() == pytest.approx(np.mean([estimate.error for estimate in found]), rel=0.1)
    assert abs(off.mean()) < 0.01  # the bias of a ratio, of order 1 / n


def test_weights_are_those_of_differences_however_large():
    log_ratio = np.array([1e5, 1e5 - np.log(3.0), -1e5])
    np.testing.assert_allclose(weights(log_ratio), [0.75, 0.25, 0.0])
