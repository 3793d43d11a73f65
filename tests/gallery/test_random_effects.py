"""The mixed model with tilted random intercepts: its quadrature, its padding, and the program on both backends."""

from __future__ import annotations

import contextlib
import runpy
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp

import pplebm

PAGE = pplebm.load("random_effects")
RNG = np.random.default_rng(0)
SIZES = [3, 1, 5, 2]
FRAME = pd.DataFrame(
    {
        "group": np.repeat(["c", "a", "d", "b"], SIZES),
        "x": RNG.normal(size=sum(SIZES)),
        "y": RNG.normal(size=sum(SIZES)),
    }
).sample(frac=1.0, random_state=0)
FRAME.loc[FRAME.index[2], "x"] = np.nan
DATA = PAGE.grouped(FRAME, "y", ["x"], "group")


def params_of(hyper):
    found = {"beta": np.array([0.4, -1.1]), "log_scale": np.array(-0.3), "log_sigma": np.array(-0.5)}
    if hyper.tilted:
        width = hyper.tilt_width
        found |= {"tilt.weight_0": RNG.normal(size=(width, 1)), "tilt.bias_0": RNG.normal(size=width)}
        found |= {"tilt.weight_1": RNG.normal(size=(1, width)), "tilt.bias_1": RNG.normal(size=1)}
    return found


def test_groups_are_padded_sorted_and_masked():
    assert DATA["y"].shape == (4, 5) and DATA["x"].shape == (4, 5, 2)
    complete = FRAME.dropna().groupby("group").size().reindex(sorted(set(FRAME["group"])), fill_value=0)
    assert DATA["observed"].sum(1).tolist() == complete.tolist()
    for row, name in enumerate(sorted(set(FRAME["group"]))):
        some, there = FRAME[FRAME["group"] == name].dropna(), DATA["observed"][row]
        np.testing.assert_array_equal(DATA["y"][row][there], some["y"])
        np.testing.assert_array_equal(DATA["x"][row][there], np.stack([np.ones(len(some)), some["x"]], 1))


def test_without_tilt_it_is_the_gaussian_mixed_model():
    hyper = PAGE.Hyper(tilted=False)
    p = params_of(hyper)
    s, sigma = np.exp(p["log_scale"]), np.exp(p["log_sigma"])
    got = PAGE.log_evidence(p, hyper, DATA)
    for row, there in enumerate(DATA["observed"]):
        covariance = sigma**2 * np.eye(there.sum()) + s**2
        wanted = stats.multivariate_normal(DATA["x"][row][there] @ p["beta"], covariance).logpdf(DATA["y"][row][there])
        assert got[row] == pytest.approx(wanted, abs=1e-8)


def test_quadrature_of_the_program_is_that_of_the_page(ppl, float64):
    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        hyper = PAGE.Hyper(tilt_width=6)
        bound = pplebm.bind("random_effects", ppl.name, shape={}, tilt_width=6)
        program = pplebm.Program(bound, data=DATA)
        assert set(program.covariates) == {"x", "observed"} and not program.prior_reads
        p = params_of(hyper)
        params = {name: ppl.asarray(p[name]) for name in program.params}
        grid = np.exp(p["log_scale"]) * np.linspace(-8.0, 8.0, 2001)
        data = program.data({name: np.repeat(a, len(grid), 0) for name, a in DATA.items()})
        z = {"u": ppl.asarray(np.tile(grid, len(DATA["y"])))}
        joint = ppl.to_numpy(program.log_joint(params, z, data)).reshape(-1, len(grid))
        prior = ppl.to_numpy(program.log_prior(params, z)).reshape(-1, len(grid))
        got = logsumexp(joint, 1) - logsumexp(prior, 1)
        np.testing.assert_allclose(got, PAGE.log_evidence(p, hyper, DATA), atol=1e-8)


@pytest.mark.parametrize("tilted", [False, True])
def test_quadrature_in_jax_is_that_in_numpy_and_has_its_gradient(tilted, float64):
    with jax.enable_x64(True):
        hyper = PAGE.Hyper(tilted=tilted)
        p = params_of(hyper)
        value = lambda p: PAGE.log_evidence(p, hyper, DATA, jax.numpy, jax.scipy.special.logsumexp)
        np.testing.assert_allclose(value(p), PAGE.log_evidence(p, hyper, DATA), atol=1e-12)
        for name, derived in jax.jit(jax.grad(lambda p: value(p).sum()))(p).items():
            step = RNG.normal(size=p[name].shape)
            ends = [PAGE.log_evidence(p | {name: p[name] + s * step}, hyper, DATA).sum() for s in (1e-6, -1e-6)]
            assert (derived * step).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_the_benchmark_reaches_the_maximum(float64):
    """No parameters near what it finds are better."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "random_effects.py"
    exact, rng, hyper = runpy.run_path(str(path))["exact"], np.random.default_rng(1), PAGE.Hyper(tilted=False)
    group = np.repeat(np.arange(40), 4)
    frame = pd.DataFrame({"group": group, "x": rng.normal(size=160)})
    frame["y"] = rng.normal(size=40)[group] + 0.5 * rng.normal(size=160)
    data = PAGE.grouped(frame, "y", ["x"], "group")
    with jax.enable_x64(True):
        found = exact(params_of(hyper), hyper, data)
    value = lambda p: PAGE.log_evidence(p, hyper, data).mean()
    for name, a in found.items():
        for i in np.ndindex(a.shape):
            for step in (-0.01, 0.01):
                moved = a.copy()
                moved[i] += step
                assert value(found | {name: moved}) < value(found)
