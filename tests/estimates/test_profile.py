"""Profile likelihoods by their slopes: exact curves, intervals, and what learning leaves of the others."""

from __future__ import annotations

import identifiable
import numpy as np
import pytest
from beds import bed
from scaled import data_of, scaled
from scipy.optimize import brentq

import pplebm
from pplebm.errors import PplebmError
from pplebm.estimation.profile import made

QUICK = {"n_draws": 60, "n_warmup": 200, "progress": False}


def test_an_interval_of_a_skewed_curve_is_its_own():
    """Poisson: y psi - e^psi, whose interval lies further to the left than to the right."""
    grid = np.linspace(0.0, 2.8, 15)
    found = made("psi", grid, 5.0 - np.exp(grid), np.zeros(15), 0.95)
    curve = lambda psi: 5.0 * psi - np.exp(psi) - (5.0 * np.log(5.0) - 5.0)
    ends = [brentq(lambda psi: curve(psi) + 0.5 * 3.841458820694124, a, b) for a, b in ((0.0, 1.5), (1.7, 2.8))]
    np.testing.assert_allclose([found.maximum, found.low, found.high], [np.log(5.0), *ends], atol=1e-4)
    np.testing.assert_allclose(found.log_likelihood, curve(grid), atol=1e-4)
    assert found.errors == (0.0, 0.0, 0.0)


def test_errors_of_slopes_become_those_of_the_interval():
    """Ends and maxima of many noisy curves spread as is told of one; to first order, so that the top has no error."""
    grid, rng, error = np.linspace(-3.0, 3.0, 9), np.random.default_rng(0), 0.1
    told = made("psi", grid, -grid, np.full(9, error), 0.95)
    np.testing.assert_allclose([told.low, told.high], [-1.96, 1.96], atol=1e-3)
    others = [made("psi", grid, -grid + error * rng.normal(size=9), np.zeros(9), 0.95) for _ in range(300)]
    spread = np.std([(one.maximum, one.low, one.high) for one in others], axis=0)
    np.testing.assert_allclose(told.errors, spread, rtol=0.25)
    np.testing.assert_allclose(
        told.log_likelihood_error, np.std([one.log_likelihood for one in others], axis=0), rtol=0.3, atol=0.012
    )


def test_intervals_beyond_the_grid_are_told_and_maxima_refused():
    grid = np.linspace(-1.0, 1.0, 5)
    found = made("psi", grid, -grid, np.zeros(5), 0.95)
    assert found.low == -np.inf and found.high == np.inf and "goes on beyond the grid" in str(found)
    for shift, side in ((-3.0, "low"), (3.0, "high")):
        with pytest.raises(PplebmError, match=f"maximum beyond the {side} end of the grid"):
            made("psi", grid, shift - grid, np.zeros(5), 0.95)


def best(x, s=None, t=None):
    """The exact maximum of N(t, 1 + s²), one of the two held."""
    t = x.mean() if t is None else t
    s = max(((x - t) ** 2).mean() - 1.0, 1e-4) ** 0.5 if s is None else s
    return t, s


def log_likelihood(x, t, s):
    return float((-0.5 * (x - t) ** 2 / (1 + s**2) - 0.5 * np.log(2 * np.pi * (1 + s**2))).sum())


@pytest.mark.parametrize("miss", [0.0, 0.1], ids=["exact", "imperfect"])
def test_a_profile_is_that_of_the_exact_likelihood(miss):
    """The shift of a tilt, its noise re-maximised; also where the refit stops a little before the maximum."""
    x = data_of(n=40)
    program, double = scaled("pyro", float(x.mean()), 1.1, x), x.astype(float)

    def refit(params, held):
        assert held == "t"
        s = best(double, t=float(params["t"]))[1]
        return {**params, "s": program.ppl.asarray(np.array(np.log(s) + miss))}

    grid = double.mean() + np.linspace(-0.8, 0.9, 7)
    found = pplebm.profile(program, x, "t", grid, refit, **QUICK)
    exact = lambda t: log_likelihood(double, *best(double, t=t)) - log_likelihood(double, *best(double))
    expected = np.array([exact(t) for t in grid])
    assert (np.abs(found.log_likelihood - expected) < 4.5 * found.log_likelihood_error + 0.02).all()
    ends = [brentq(lambda t: exact(t) + 1.9207, a, b) for a, b in ((grid[0], x.mean()), (x.mean(), grid[-1]))]
    for got, end, error in zip((found.low, found.high), ends, found.errors[1:], strict=True):
        assert abs(got - end) < 4.5 * error + 0.01 and error < 0.05
    figure = found.figure()
    assert figure.axes[0].get_xlabel() == "t" and len(found.params) == 7


def test_a_profile_of_the_identifiable_hierarchy():
    """A height of the tilt, seven other numbers re-maximised by the exact likelihood."""
    x, top = identifiable.case(40, seed=3)
    program = bed("identifiable").program("pyro")
    k = identifiable.NAMES.index("lsig")
    maximum = lambda value: identifiable.case(40, 3, held=(("lsig", round(float(value), 5)),))[1]
    tree = lambda v: {n: program.ppl.asarray(np.array(a)) for n, a in zip(identifiable.NAMES, v, strict=True)}
    refit = lambda params, held: tree(maximum(params[held]))
    grid = np.round(top[k] + np.array([-0.3, -0.1, 0.12, 0.32]), 5)
    found = pplebm.profile(program, x, "lsig", grid, refit, params=tree(top), n_draws=30, n_warmup=150, progress=False)
    expected = np.array([identifiable.log_evidence(maximum(v), x).sum() for v in grid])
    expected -= identifiable.log_evidence(top, x).sum()
    assert (np.abs(found.log_likelihood - expected) < 4.5 * found.log_likelihood_error + 0.05).all()
    assert found.low < top[k] < found.high


def test_what_cannot_be_profiled_is_refused():
    x = data_of(n=10)
    program = scaled("pyro", 0.5, 1.1, x)
    still = lambda params, held: params
    for label, grid, refit, words in (
        ("b", [0.0, 1.0, 2.0, 3.0], still, "'b' is no number of the parameters; there are t, s"),
        ("t", [0.0, 1.0, 2.0], still, "grid must be 4 or more increasing values"),
        ("t", [0.0, 2.0, 1.0, 3.0], still, "grid must be 4 or more increasing values"),
        ("t", [0.0, 1.0, 2.0, 3.0], lambda p, held: {**p, "t": p["t"] + 1.0}, "refit moved 't'"),
    ):
        with pytest.raises(PplebmError, match=words):
            pplebm.profile(program, x, label, grid, refit)
