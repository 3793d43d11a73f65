"""The page of univariate tilts: quadrature, exact draws, and the gradient that they give."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp

import pplebm

PAGE = pplebm.load("univariate_tilts")
HYPER = PAGE.Hyper(latent_dim=2, width=4, depth=1)
STRONG = HYPER._replace(tilt_bound=2.0, n_bumps=9, reach=3.0)  # the bound is felt: bumps reach 8 nats
RNG = np.random.default_rng(0)
CASES = {"usual": (HYPER, 0.5 * RNG.normal(size=(2, 17))), "bounded": (STRONG, 1.5 * RNG.normal(size=(2, 9)))}


@pytest.fixture(params=CASES)
def case(request):
    """Hyperparameters and coefficients."""
    return CASES[request.param]


def density(a, hyper):
    """exp f(t) N(t; 0, 1) of one latent, number by number."""
    places, b = np.linspace(-hyper.reach, hyper.reach, hyper.n_bumps), hyper.tilt_bound

    def at(t):
        u = hyper.rate * sum(c * np.exp(-0.5 * ((t - p) / (places[1] - places[0])) ** 2) for c, p in zip(a, places))
        return np.exp(np.log1p(np.exp(u + b)) - np.log1p(np.exp(u - b)) - b - 0.5 * t**2) / np.sqrt(2.0 * np.pi)

    return at


def integral(function, at):
    """Over the line, by adaptive quadrature."""
    return quad(lambda t: function(t) * at(t), -12.0, 12.0, epsabs=1e-12, epsrel=1e-12, limit=500)[0]


def test_log_z_is_that_of_adaptive_quadrature(case):
    hyper, a = case
    wanted = sum(np.log(integral(lambda t: 1.0, density(row, hyper))) for row in a)
    assert PAGE.log_z({"a": a}, hyper) == pytest.approx(wanted, abs=1e-10)
    assert abs(wanted) > 0.1
    assert PAGE.log_z({}, hyper._replace(tilted=False)) == pytest.approx(0.0, abs=1e-12)


def test_log_z_is_the_integral_of_the_program(case, ppl, float64):
    hyper, a = case
    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        program = pplebm.Program(pplebm.bind("univariate_tilts", ppl.name, shape=(3,), **hyper._asdict()))
        grid = np.linspace(-9.0, 9.0, 301)
        z = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
        params = program.params | {"a": ppl.asarray(a)}
        value = ppl.to_numpy(program.log_prior(params, {"z1": ppl.asarray(z)}))
        got = logsumexp(value) + 2.0 * np.log(grid[1] - grid[0])
        assert got == pytest.approx(PAGE.log_z({"a": a}, hyper), abs=1e-8)


def test_exact_draws_have_the_moments_of_the_prior(case):
    hyper, a = case
    z, n = PAGE.exact_prior({"a": a}, hyper, 200000, seed=1), 200000
    assert z.shape == (n, 2)
    functions = (*(lambda t, k=k: t**k for k in (1, 2, 3, 4)), lambda t: np.sin(3.0 * t), lambda t: np.cos(3.0 * t))
    for drawn, row in zip(z.T, a, strict=True):
        at = density(row, hyper)
        for function in functions:
            wanted = integral(function, at) / integral(lambda t: 1.0, at)
            values = function(drawn)
            assert abs(values.mean() - wanted) < 4.5 * values.std() / np.sqrt(n)
    assert abs(np.corrcoef(z.T)[0, 1]) < 4.5 / np.sqrt(n)


def test_draws_of_the_twin_are_normal():
    hyper = HYPER._replace(tilted=False)
    z = PAGE.exact_prior({}, hyper, 20000, seed=2)
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(20000)
    assert np.abs((z**2).mean(0) - 1.0).max() < 4.5 * np.sqrt(2.0 / 20000)


def test_gradient_at_exact_draws_is_that_of_log_z(case, ppl, float64):
    """The negative phase: the expected gradient of the tilt under the prior is the gradient of log Z."""
    hyper, a = case
    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        program = pplebm.Program(pplebm.bind("univariate_tilts", ppl.name, shape=(3,), **hyper._asdict()))
        batches = PAGE.exact_prior({"a": a}, hyper, 40 * 500, seed=3).reshape(40, 500, 2)
        params = program.params | {"a": ppl.asarray(a)}
        gradients = []
        for batch in batches:
            z = {"z1": ppl.asarray(batch)}
            _, g = ppl.value_and_grad(lambda p, z=z: program.log_prior(p, z).mean(), params)
            gradients.append(ppl.to_numpy(g["a"]))
    mean, error = np.mean(gradients, 0), np.std(gradients, 0, ddof=1) / np.sqrt(len(gradients))
    for index in np.ndindex(a.shape):
        ends = []
        for step in (1e-4, -1e-4):
            moved = a.copy()
            moved[index] += step
            ends.append(PAGE.log_z({"a": moved}, hyper))
        assert abs(mean[index] - (ends[0] - ends[1]) / 2e-4) < 5.0 * error[index] + 1e-6
    assert np.abs(mean).max() > 30.0 * error[np.unravel_index(np.abs(mean).argmax(), mean.shape)]


def test_every_tilt_is_bounded_and_fades(case):
    hyper, a = case
    t = np.linspace(-30.0, 30.0, 2001)
    f = PAGE._tilts(hyper, 10.0 * a, t[:, None], np.asarray, np.exp, lambda u: np.logaddexp(0.0, u))
    assert hyper.tilt_bound - 0.01 < np.abs(f).max() < hyper.tilt_bound + 1e-9
    np.testing.assert_allclose(f[np.abs(t) > hyper.reach + 8.0], 0.0, atol=1e-6)
