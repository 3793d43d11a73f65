"""Ranks, their band and their tests against laws that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pplebm.calibration import uniformity


def uniform(n, n_draws, seed):
    return np.random.default_rng(seed).integers(0, n_draws + 1, n)


def chance_inside(band, n, n_draws):
    """Chance that uniform ranks stay in a band, by the recursion over points (Säilynoja et al. 2022, algorithm 2)."""
    counts = np.arange(n + 1)
    law, before = np.zeros(n + 1), 0.0
    law[0] = 1.0
    for at, low, high in zip(band.at, band.low, band.high, strict=True):
        step = stats.binom.pmf(counts[:, None] - counts, n - counts, (at - before) / (1.0 - before))
        law = step @ law
        law[(counts < round(low * n)) | (counts > round(high * n))] = 0.0
        before = at
    return law.sum()


@pytest.mark.parametrize(("n", "n_draws"), [(20, 9), (60, 30), (200, 19)])
def test_the_band_holds_with_its_level(n, n_draws):
    """At least the level, within the error of 10 000 simulations; and a narrower one would not, up to whole counts."""
    found = chance_inside(uniformity.band(n, n_draws, 0.95), n, n_draws)
    assert 0.95 - 3 * (0.05 * 0.95 / uniformity.N_SIMULATED) ** 0.5 < found < 0.985
    pointwise = uniformity.band(n, n_draws, 0.95)
    low, high = stats.binom(n, pointwise.at).interval(0.95)
    assert chance_inside(pointwise._replace(low=low / n, high=high / n), n, n_draws) < 0.92


def test_many_draws_are_looked_at_in_few_points():
    found = uniformity.band(50, 1999)
    assert len(found.at) == uniformity.MOST_POINTS and (np.diff(found.at) > 0).all() and found.at[-1] < 1.0


def test_p_values_of_uniform_ranks_are_uniform_or_larger():
    """Shares below a level do not exceed it, beyond their own error."""
    many = [uniform(80, 24, seed) for seed in range(600)]
    for test in (uniformity.ecdf_p_value, uniformity.chi_square_p_value):
        p = np.array([test(r, 24) for r in many])
        for level in (0.05, 0.2, 0.5):
            assert (p <= level).mean() < level + 3.5 * (level * (1 - level) / 600) ** 0.5
        assert (p <= 0.5).mean() > 0.35


@pytest.mark.parametrize(("shift", "scale", "mean", "spread"), [(0.5, 1, 1, 0), (0, 0.6, 0, 1), (0, 2.0, 0, -1)])
def test_wrong_draws_are_told_apart(shift, scale, mean, spread):
    """Truth N(0, 1) among draws N(-shift, scale²)."""
    rng = np.random.default_rng(1)
    ranks = uniformity.ranks_of(rng.normal(size=400), scale * rng.normal(size=(49, 400)) - shift)
    assert uniformity.ecdf_p_value(ranks, 49) < 0.01 and uniformity.chi_square_p_value(ranks, 49) < 0.01
    found = uniformity.shape_of(ranks, 49)
    for score, expected in zip(found, (mean, spread), strict=True):
        assert score * expected > 3 if expected else abs(score) < 3.5


def test_ties_are_broken_at_random():
    """Ranks of draws of a law on three points, equal ones many, are uniform; those of strict counts are not."""
    rng = np.random.default_rng(2)
    true, draws = rng.integers(0, 3, 2000), rng.integers(0, 3, (19, 2000))
    assert uniformity.ecdf_p_value(uniformity.ranks_of(true, draws), 19) > 0.01
    assert uniformity.ecdf_p_value((draws < true).sum(0), 19) < 0.001


def test_scores_of_uniform_ranks_are_standard():
    found = np.array([uniformity.shape_of(uniform(100, 9, seed), 9) for seed in range(1000)])
    assert abs(found.mean(0)).max() < 4 / 1000**0.5
    assert abs(found.var(0) - 1.0).max() < 4 * (2.5 / 1000) ** 0.5


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_is_that_of_central_intervals(level):
    """An interval between order statistics, counted by hand; exact draws have the chance it tells."""
    rng = np.random.default_rng(3)
    true, draws = rng.normal(size=3000), rng.normal(size=(29, 3000))
    found = uniformity.coverage(uniformity.ranks_of(true, draws), 29, level)
    j = round((1 - found.level) / 2 * 30)
    ordered = np.sort(draws, 0)
    inside = (ordered[j - 1] < true) & (true < ordered[29 - j])
    assert found.share == inside.mean() and abs(found.level - level) < 1 / 30
    assert abs(found.share - found.level) < 3.5 * (found.level * (1 - found.level) / 3000) ** 0.5
    assert found.low < found.share < found.high
