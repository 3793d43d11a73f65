"""Designs given the value that is wanted: in closed form, by quadrature, and on a function whose optimum is known."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from plane import CELL, PLANE, moved, on_plane
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import pplebm

PAGE = pplebm.load("latent_optimisation")
LINEAR = {"latent_dim": 2, "depth": 0, "tilt_bound": 1e7, "sigma": 0.6, "tau": 0.4}  # f is a·z + c
BENT = {"latent_dim": 2, "depth": 1, "width": 5, "tilt_width": 5, "sigma": 0.6, "tau": 0.4}
X = np.array([[0.5, -1.0, 2.0], [np.nan, 0.0, 0.3], [1.0, 1.0, 1.0], [np.nan] * 3])
Y = np.array([1.0, -0.7, np.nan, np.nan])
DATA = PAGE.as_data(X, Y)


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, hyper):
    """A program at parameters far from where they begin, and these."""
    return moved("latent_optimisation", ppl, DATA, hyper)


def linear_law(at):
    """Mean and covariance of (x, y) where z is N(a, I), and log Z = |a|²/2 + c."""
    a, matrix = at["tilt.weight_0"][0], np.concatenate([at[f"{name}.weight_0"] for name in ("design", "value")])
    mean = matrix @ a + np.concatenate([at[f"{name}.bias_0"] for name in ("design", "value")])
    return mean, matrix @ matrix.T + np.diag([0.36, 0.36, 0.36, 0.16]), 0.5 * a @ a + at["tilt.bias_0"][0]


def test_the_evidence_of_what_is_known_is_a_normal_law(double):
    """Rows of a design and its value, of a value, of a design, and of nothing."""
    program, at = program_of(double, LINEAR)
    mean, covariance, log_z = linear_law(at)
    assert logsumexp(on_plane(program)) + np.log(CELL) == pytest.approx(log_z, abs=1e-6)
    assert abs(log_z) > 0.2
    for row, parts in enumerate(([0, 1, 2, 3], [3], [0, 1, 2], [])):
        data = {name: a[row : row + 1] for name, a in DATA.items()}
        got = logsumexp(on_plane(program, data)) + np.log(CELL) - log_z
        values = np.append(X[row], Y[row])[parts]
        exact = multivariate_normal(mean[parts], covariance[np.ix_(parts, parts)]).logpdf(values) if parts else 0.0
        assert got == pytest.approx(exact, abs=1e-6)


def test_designs_given_a_value_have_the_law_of_the_closed_form(double):
    """p(x | y) is normal; means and covariances at two values, 4.5 standard errors of 200 chains."""
    program, at = program_of(double, LINEAR)
    mean, covariance, _ = linear_law(at)
    asked = np.array([mean[3] + 2.0, mean[3] - 1.0])
    draws = pplebm.sample(program, data=PAGE.wanted(asked, (3,)), n_chains=200, n_draws=20, n_warmup=150, thin=2,
                          progress=False)  # fmt: skip
    found, gain = pplebm.predictive(draws, seed=1)["x"], covariance[:3, 3] / covariance[3, 3]
    spread = covariance[:3, :3] - np.outer(gain, covariance[3, :3])
    assert np.abs(gain).max() > 0.3
    for k, y in enumerate(asked):
        off = found[:, :, k] - (mean[:3] + gain * (y - mean[3]))
        for by_chain, value in ((off.mean(1), 0.0), ((off[..., :, None] * off[..., None, :]).mean(1), spread)):
            error = by_chain.std(0, ddof=1) / 200**0.5
            assert (np.abs(by_chain.mean(0) - value) < 4.5 * error).all()


def test_designs_under_a_bent_model_have_the_mean_of_quadrature(double):
    program, _ = program_of(double, BENT)
    rows = {name: np.repeat(a[:1], len(PLANE), 0) for name, a in DATA.items()}
    at = program.predict(program.params, {"z1": double.asarray(PLANE)}, data=program.data(rows))
    g, h = double.to_numpy(at["x"]), double.to_numpy(at["y"])
    asked = np.quantile(h, [0.05, 0.9])
    prior = on_plane(program)
    draws = pplebm.sample(program, data=PAGE.wanted(asked, (3,)), n_chains=200, n_draws=20, n_warmup=200, thin=3,
                          progress=False)  # fmt: skip
    by_chain = pplebm.predictive(draws, mean=True)["x"].mean(1)
    for k, y in enumerate(asked):
        weights = prior + norm.logpdf(y, h, 0.4)
        exact = np.exp(weights - logsumexp(weights)) @ g
        error = by_chain[:, k].std(0, ddof=1) / 200**0.5
        assert (np.abs(by_chain[:, k].mean(0) - exact) < 4.5 * error).all()


def test_what_is_wanted_is_masked_and_filled():
    data = PAGE.wanted([1.0, 2.0], (2, 2))
    assert data["x"].shape == (2, 2, 2) and not data["x"].any() and not data["observed_x"].any()
    assert data["y"].tolist() == [1.0, 2.0] and data["observed_y"].all()
    assert DATA["observed_x"].tolist() == [True, False, True, False]


def test_designs_lie_where_the_value_is_high(tmp_path):
    """y = 3 - |x - (1, -1)|²: designs for the best value in the data are better than 9 in 10 of the data."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-3.0, 3.0, (400, 2))
    truth = lambda x: 3.0 - ((x - [1.0, -1.0]) ** 2).sum(-1)
    hyper = {"latent_dim": 2, "width": 32, "tilt_width": 16, "batch_size": 128, "learning_rate": 0.005}
    value, units = truth(x), (truth(x).mean(), truth(x).std())
    data = PAGE.as_data(x, (value - units[0]) / units[1])
    run = pplebm.fit("latent_optimisation", data, "variational_joint", tmp_path / "run", updates=400, hyper=hyper,
                     compiled=False, progress=False)  # fmt: skip
    asked = PAGE.wanted(np.full(4, (value.max() - units[0]) / units[1]), (2,))
    draws = pplebm.sample(run.program, data=asked, n_chains=10, n_draws=10, n_warmup=200, thin=5, progress=False)
    designs = pplebm.predictive(draws, mean=True)["x"].reshape(-1, 2)
    assert np.median(truth(designs)) > np.quantile(value, 0.9)
