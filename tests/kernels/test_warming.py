"""Step sizes and lengths as warm-up learns them: dual averaging over chains, and the ChEES criterion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.dual_averaging import LEAST_ACCEPT, followed, middle, over_chains, restarted, shared
from pplebm.kernels.metric import Metric, flat
from pplebm.kernels.trajectory import TrajectoryInfo
from pplebm.kernels.warming import COST, LONGEST, Lengths, _criterion, _followed, next_window, warmed, warming
from pplebm.sampling import chains

SHAPE = (2, 5, 3)  # replicas, chains, data
N = 30  # rows


def rows(ppl, a):
    return ppl.to_numpy(a).reshape(SHAPE)


def some(ppl, seed=0):
    """Acceptance probabilities, and which chains count."""
    rng = np.random.default_rng(seed)
    p, weight = rng.uniform(0.1, 1.0, SHAPE), (rng.uniform(size=SHAPE) < 0.6).astype(float)
    weight[0, :, 1] = 0.0  # no chain of this datum
    return p, weight, ppl.asarray(p.reshape(-1)), ppl.asarray(weight.reshape(-1))


def test_acceptance_of_a_datum_is_the_harmonic_mean_over_its_chains_that_count(ppl):
    p, weight, *given = some(ppl)
    found = rows(ppl, over_chains(ppl, *given, SHAPE))
    for i, j in [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]:
        expected = stats.hmean(p[i, weight[i, :, j] > 0, j])
        np.testing.assert_allclose(found[i, :, j], expected, rtol=1e-5)


def test_a_chain_that_never_moves_is_seen_in_the_acceptance_of_its_datum_alone(ppl):
    p = np.full(SHAPE, 0.9)
    p[1, 2, 0] = 0.0
    found = rows(ppl, over_chains(ppl, ppl.asarray(p.reshape(-1)), ppl.asarray(np.ones(N)), SHAPE))
    np.testing.assert_allclose(found[1, :, 0], 5.0 / (4.0 / 0.9 + 1.0 / LEAST_ACCEPT), rtol=1e-4)
    found[1, :, 0] = 0.9
    np.testing.assert_allclose(found, 0.9, rtol=1e-5)


def test_what_chains_of_a_datum_share_is_their_mean_or_where_none_counts_their_median(ppl):
    p, weight, *given = some(ppl)
    found = rows(ppl, shared(ppl, *given, SHAPE))
    np.testing.assert_allclose(found[0, :, 1], np.median(p[0, :, 1]), rtol=1e-6)
    np.testing.assert_allclose(found[1, :, 2], p[1, weight[1, :, 2] > 0, 2].mean(), rtol=1e-6)
    found = rows(ppl, middle(ppl, given[0], SHAPE))
    np.testing.assert_allclose(found, np.median(p, 1)[:, None] + 0.0 * p, rtol=1e-6)


def test_dual_averaging_finds_the_step_of_the_acceptance_wanted(ppl):
    """Of chains that accept exp(-s / scale) of their steps, with noise; the mean of the log steps is quieter."""
    rng, scale = np.random.default_rng(0), np.geomspace(0.01, 100.0, 4)
    a, last = restarted(ppl.asarray(np.zeros(4))), []
    for _ in range(1000):
        p = np.clip(np.exp(-np.exp(ppl.to_numpy(a.log_step)) / scale) + 0.1 * rng.normal(size=4), 0.0, 1.0)
        a = followed(a, ppl.asarray(p), 0.65)
        last.append(ppl.to_numpy(a.log_step))
    mean = ppl.to_numpy(a.log_step_mean)
    np.testing.assert_allclose(np.exp(mean), -np.log(0.65) * scale, rtol=0.1)
    assert np.std(last[-500:]) > 0 and np.abs(np.exp(restarted(0.0 * mean, 3.0).center) - 3.0).max() < 1e-6


# --- the length


def criterion_of(ppl, place, proposal, velocity, accept, divergent, pooled, metric, length=2.0):
    """What the warm-up sees of one trajectory of every row; the Halton number is about a half."""
    kernel = warming(adaptive_hmc(), (1, len(place), 1))
    state = kernel.init(ppl, {"a": ppl.asarray(place)}, lambda z: 0.0 * z["a"].sum(1))
    ones = state.is_pooled + 1.0
    state = state._replace(center=0.0 * state.center + 1.0, is_pooled=ppl.asarray(pooled))
    inner = state.inner._replace(
        metric=Metric(*map(ppl.asarray, metric)), length=length * ones, step=state.inner.step + 1
    )
    info = TrajectoryInfo(ones, ppl.asarray(accept), ones, ppl.asarray(divergent) > 0.5, ones, ones, ones,
                          {"a": ppl.asarray(proposal)}, ppl.asarray(velocity))  # fmt: skip
    return [float(a) for a in _criterion(ppl, state, inner, info)]


def test_the_criterion_is_the_change_in_squared_distance_and_its_slope_in_the_log_length(ppl):
    """Along straight lines u' = u + h T v, in the metric's units; by finite differences in log T."""
    rng, h, n = np.random.default_rng(0), 0.5 + 2.0**-13, 6
    metric = Metric(np.exp(rng.normal(size=(n, 3))), np.zeros((n, 3, 0)), np.ones((n, 0)))
    u, v, accept = rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), rng.uniform(size=n)
    pooled, divergent = np.array([1.0, 1, 1, 1, 1, 0]), np.array([0.0, 0, 0, 0, 1, 0])
    weight = accept * pooled * (1 - divergent)

    def exact(log_length):
        change = ((u + h * np.exp(log_length) * v) ** 2).sum(1) - (u**2).sum(1)
        return (weight * 0.25 * change**2).sum() / weight.sum()

    place, proposal = 1.0 + metric.scale * u, 1.0 + metric.scale * (u + h * 2.0 * v)
    found = criterion_of(ppl, place, proposal, v, accept, divergent, pooled, metric)
    at, step = np.log(2.0), 1e-5
    np.testing.assert_allclose(found, [exact(at), (exact(at + step) - exact(at - step)) / (2 * step)], rtol=1e-3)
    proposal[0] = np.nan  # a trajectory that broke is as one that diverged
    weight[0] = 0.0
    again = criterion_of(ppl, place, proposal, v, accept, divergent, pooled, metric)
    np.testing.assert_allclose(again, [exact(at), (exact(at + step) - exact(at - step)) / (2 * step)], rtol=1e-3)


@pytest.mark.parametrize(("slope", "end"), [(COST + 0.1, LONGEST), (COST - 0.1, 0.0), (COST, 0.2)])
def test_the_length_rises_where_the_criterion_does_by_more_than_its_cost(ppl, slope, end):
    """Between its floor, 0, and a multiple of it; where the two are alike it stays."""
    zero, start = ppl.asarray(0.0), ppl.asarray(0.2)
    a = Lengths(start, start, zero, zero, zero, zero)
    for _ in range(60):
        a = _followed(ppl, a, (ppl.asarray(3.0), ppl.asarray(3.0 * (COST + 30.0 * (slope - COST)))))
    assert float(a.log_length) == pytest.approx(end, abs=1e-4)


def test_the_length_that_is_learned_is_the_best_one_for_a_round_gaussian(ppl):
    r"""E[C] is d (1/2 - sin(2T) / 4T) for N(0, I), of steps so short that they are nearly exact; divided by T^{1/4}."""
    grid = np.linspace(1.6, 3.0, 2000)
    best = grid[np.argmax((0.5 - np.sin(2 * grid) / (4 * grid)) * grid**-0.25)]
    kernel, shape = warming(adaptive_hmc(target_accept=0.99), (1, 200, 1)), (1, 200, 1)
    log_density = lambda z: -0.5 * (z["a"] ** 2).sum(1)
    state = kernel.init(ppl, {"a": ppl.asarray(np.random.default_rng(0).normal(size=(200, 5)))}, log_density)
    everyone, metric = 0.0 * state.is_pooled + 1.0, state.inner.metric
    floor = ppl.asarray(np.log(0.5 * np.pi))
    state = next_window(ppl, state, metric, 0.0 * flat(ppl, state.z), floor, everyone, shape, 0.2)
    assert float(state.lengths.log_length) == pytest.approx(np.log(0.5 * np.pi), rel=1e-5)
    go = ppl.compiled(lambda key, state: chains.run(ppl, key, state, log_density, kernel, 250)[0])
    state = go(ppl.key(0), state)
    length = ppl.to_numpy(warmed(ppl, state, shape).length)
    assert length.min() == length.max() == pytest.approx(best, rel=0.15)
