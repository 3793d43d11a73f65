"""Scores rank data as exact ones do, where f has two modes and x depends on z nonlinearly: quadrature of log p(x)."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import logsumexp
from scipy.stats import spearmanr

import pplebm

SIGMA, LAYER = 0.3, 0.5


def bumps(exp, z2):
    return 3.0 * exp(-2.0 * (z2 - 1.5) ** 2) + 2.0 * exp(-3.3 * (z2 + 1.0) ** 2)


def model(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.3, 1.0))
        pplebm.tilt("f", bumps(torch.exp, z2))
        z1 = pyro.sample("z1", dist.Normal(torch.sin(2 * z2), LAYER))
        pyro.sample("x", dist.Normal(torch.stack([z1, z2, 0.5 * z1 * z2], -1), SIGMA).to_event(1), obs=x)


def simulated(n, rng):
    grid = np.linspace(-5.0, 5.0, 20_001)
    weight = np.exp(-0.5 * (grid - 0.3) ** 2 + bumps(np.exp, grid))
    z2 = rng.choice(grid, n, p=weight / weight.sum())
    z1 = np.sin(2 * z2) + LAYER * rng.normal(size=n)
    return np.stack([z1, z2, 0.5 * z1 * z2], 1) + SIGMA * rng.normal(size=(n, 3))


def exact(x):
    """log p(x) by quadrature in (z2, z1 - sin 2 z2)."""
    z2, e = (a.ravel() for a in np.meshgrid(np.linspace(-5, 5, 401), np.linspace(-6, 6, 181), indexing="ij"))
    z1 = np.sin(2 * z2) + LAYER * e
    prior = -0.5 * (z2 - 0.3) ** 2 + bumps(np.exp, z2) - 0.5 * e**2
    means = np.stack([z1, z2, 0.5 * z1 * z2], 1)
    squares = ((x[:, None] - means) ** 2).sum(2) / SIGMA**2
    constant = logsumexp(prior) + 1.5 * np.log(2 * np.pi * SIGMA**2)
    return logsumexp(prior - 0.5 * squares, axis=1) - constant


def test_the_normalised_score_ranks_as_the_exact_one():
    x = simulated(120, np.random.default_rng(0))
    program, wanted = pplebm.Program(model, data=torch.zeros(2, 3)), exact(x)
    score = pplebm.anomaly_scores(program, x.astype(np.float32))["log_evidence"]
    known = score.is_trusted
    assert known.mean() > 0.95 and spearmanr(score.value[known], -wanted[known])[0] > 0.98
    gap = (score.value[known] + wanted[known]) / score.error[known]
    assert abs(gap.mean()) < 1 and np.sqrt((gap**2).mean()) < 1.8 and abs(gap).max() < 6


def test_all_scores_of_draws_have_errors_that_hold():
    """Two calls with other seeds differ by what their errors say: log joint, ratio of layers, reconstruction."""
    x = simulated(60, np.random.default_rng(1)).astype(np.float32)
    program, names = pplebm.Program(model, data=torch.zeros(2, 3)), ["log_joint", "llr>1", "reconstruction"]
    first, second = (
        pplebm.anomaly_scores(program, x, names, seed=seed, n_chains=16, n_draws=20, n_warmup=150) for seed in (1, 2)
    )
    for name in names:
        a, b = first[name], second[name]
        gap = (a.value - b.value) / np.hypot(a.error, b.error)
        assert 0.6 < np.sqrt((gap**2).mean()) < 1.6, name
