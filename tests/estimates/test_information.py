"""Observed information by both phases: against second derivatives of exact likelihoods, within Monte Carlo error."""

from __future__ import annotations

import dataclasses

import identifiable
import numpy as np
import pytest
from beds import bed
from conjugate import BACKENDS
from joint_bed import JOINT

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.estimation.derivatives import MOST, Chosen, derivatives
from pplebm.estimation.information import information
from pplebm.estimation.moments import Products
from pplebm.ppl.language import load_backend

QUICK = {"n_draws": 50, "n_warmup": 200, "progress": False}


def exact_of(case, names, data=None):
    """Gradients of every datum and minus second derivatives, of the exact log p(x), by the parameters named."""
    shapes = {name: case.values[name].shape for name in names}
    start = np.concatenate([np.asarray(case.values[name], float).ravel() for name in names])

    def function(v):
        values, at = dict(case.values), 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            values[name], at = v[at : at + size].reshape(shape), at + size
        return dataclasses.replace(case, values=values).log_evidence_of(case.data if data is None else data)

    return identifiable.derivatives(function, start)


def check(found, gradient, second, most=0.35):
    """Score, information and outer product within 4.5 of their errors, which are not large."""
    scale = np.sqrt(np.abs(np.outer(np.diag(second), np.diag(second)))) + 0.1 * np.abs(second).max()
    for got, expected, error in (
        (found.score, gradient.sum(0), np.sqrt(np.diag(found.score_covariance))),
        (found.observed, second, found.error_of(lambda score, observed, outer: observed)),
        (found.outer, gradient.T @ gradient, found.error_of(lambda score, observed, outer: outer)),
    ):
        assert (np.abs(got - expected) < 4.5 * error + 1e-3 * np.abs(expected).max()).all(), (got, expected, error)
    assert (found.error_of(lambda score, observed, outer: observed) < most * scale).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_of_rows_are_those_of_the_density(backend, float64):
    """Against central differences of log p̃ itself, of rows that have weights."""
    case = bed("coupled")
    program, rng = case.program(backend), np.random.default_rng(0)
    ppl, x, params = program.ppl, program.data(case.data), program.params
    z = {site.name: ppl.asarray(rng.normal(size=(4, *site.shape))) for site in program.latents}
    chosen, weights = Chosen(program, params), np.array([1.0, 0.5, 0.0, 2.0])
    step, near = (1e-4, 1e-5) if backend == "pyro" else (0.03, 0.01)  # single precision there

    def check_at(observed):
        terms = lambda v: program.log_terms(chosen.at(v), z, x, observed=observed)
        log_density = lambda v: ppl.to_numpy(program.total(terms(v))).astype(float)
        rows, second = derivatives(chosen, z, x, weights, observed)
        gradient, _ = identifiable.derivatives(log_density, chosen.value, step)
        _, curvature = identifiable.derivatives(lambda v: weights * log_density(v), chosen.value, step)
        np.testing.assert_allclose(rows, gradient, atol=near * 10, rtol=near)
        np.testing.assert_allclose(second, -curvature, atol=near * 30, rtol=near * 10)

    check_at(True)
    check_at(False)


def test_products_are_those_of_different_estimates():
    a = np.random.default_rng(0).normal(size=(4, 5, 3))
    pairs = lambda a: sum(a[k].T @ a[l] for k in range(len(a)) for l in range(len(a)) if k != l)
    found = Products.of(a[:, :2]) + Products.of(a[:, 2:])
    np.testing.assert_allclose(found.mean(), pairs(a) / 12)
    for k in range(4):
        np.testing.assert_allclose(found.without()[k], pairs(np.delete(a, k, 0)) / 6)


@pytest.mark.parametrize("name", ["skewed", "positive", "covariate", "coupled", "counts"])
def test_information_is_that_of_the_exact_likelihood(name):
    """A skewed tilt, a positive latent, a prior that reads covariates, a bounded tilt of two layers, counts."""
    case = bed(name)
    found = information(case.program("pyro"), case.data, n_prior_chains=None, **QUICK)
    names = list(dict.fromkeys(label.split("[")[0] for label in found.labels))
    check(found, *exact_of(case, names), most=0.6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_information_of_gaussians_is_their_closed_form(backend):
    """Some parameters of a hierarchy with quadratic tilts, the others held; chains in other coordinates."""
    case, names = bed("linear_2"), ["W", "b", "c2"]
    other = "noncentered" if backend == "pyro" else None
    found = information(case.program(backend), case.data, names=names, coordinates=other, **QUICK)
    assert found.labels == ("W[0,0]", "W[1,0]", "b[0]", "c2[0]")
    check(found, *exact_of(case, names))


def test_standard_errors_at_the_maximum_of_an_identifiable_hierarchy():
    """Eight parameters at the exact maximum: both kinds of standard errors, and a score of zero."""
    x, top = identifiable.case(120, seed=3)
    program = bed("identifiable").program("pyro")
    params = {name: program.ppl.asarray(np.array(v)) for name, v in zip(identifiable.NAMES, top, strict=True)}
    found = pplebm.estimates(program, x, params=params, n_draws=60, n_warmup=300, progress=False)
    gradient, second = identifiable.derivatives(lambda v: identifiable.log_evidence(v, x), top)
    inverse, order = np.linalg.inv(second), [found.labels.index(name) for name in identifiable.NAMES]
    exact = np.sqrt(np.diag(inverse))
    robust = np.sqrt(np.diag(inverse @ gradient.T @ gradient @ inverse))
    for got, error, expected in (
        (found.standard_error, found.standard_error_error, exact),
        (found.robust_error, found.robust_error_error, robust),
    ):
        assert (np.abs(got[order] - expected) < 4.5 * error[order]).all(), (got[order], expected, error[order])
    assert (np.abs(found.standard_error[order] / exact - 1.0) < 0.2).all()
    assert found.score.p_value > 1e-4 and abs(found.score.gain) < 4.0 * found.score.gain_error + 0.05


def test_latents_outside_the_plate_make_all_data_one_datum():
    """x_i = a + mean + noise, the tilted mean in common: H = 1'Σ⁻¹1 of the whole."""
    host = load_backend("numpyro")

    def model(x):
        a = host.param("a", np.float32(0.3))
        mean = host.sample("mean", host.dist.Normal(a, 2.0))
        host.tilt("f", -0.5 * mean**2)
        with host.plate("data", len(x)):
            host.sample("x", host.dist.Normal(mean, 0.5), obs=x)

    x = np.array([0.5, -1.0, 2.0, 3.0], np.float32)
    found = information(pplebm.Program(model, data=x, backend="numpyro"), x, n_draws=200, n_warmup=200, progress=False)
    # N(a, 4) tilted by -z²/2 is N(a / 5, 4 / 5), so x ~ N(a / 5, .25 I + .8 11')
    exact = 0.04 * np.ones(4) @ np.linalg.solve(0.25 * np.eye(4) + 0.8, np.ones(4))
    error = found.error_of(lambda score, observed, outer: observed)
    assert found.n_data == 1 and found.outer is None
    assert abs(found.observed[0, 0] - exact) < 4.5 * error[0, 0] < 0.3 * exact


def pushed(backend="pyro", t=0.5):
    """z ~ N(m, 1) tilted by a z: N(m + a, 1), so that data tell m + a alone."""
    host = load_backend(backend)

    def model(x):
        m, a = host.param("m", np.float32(0.0)), host.param("a", np.float32(t))
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(m, 1.0))
            host.tilt("f", a * z)
            host.sample("x", host.dist.Normal(z, 1.0), obs=x)

    x = np.random.default_rng(0).normal(t, 2.0**0.5, size=30).astype(np.float32)
    return pplebm.Program(model, data=x, backend=backend), x


def test_a_direction_that_data_do_not_determine_is_named():
    program, x = pushed()
    with pytest.raises(PplebmError, match=r"along [+-]0\.71 [ma] [+-]0\.71 [ma] it is"):
        pplebm.estimates(program, x, **QUICK)
    found = pplebm.estimates(program, x, names=["a"], **QUICK)
    assert found.standard_error[0] == pytest.approx((2 / 30) ** 0.5, rel=0.1)


def test_chains_that_are_under_way_are_told(monkeypatch):
    """Chains that start at the base of a tilt that moves it far, without any warm-up, by small steps."""
    from pplebm.kernels.mala import mala

    program, x = pushed(t=4.0)
    with pytest.warns(PplebmWarning, match="still under way"):
        information(program, x, kernel=mala(step_size=0.1), n_draws=20, n_warmup=0, progress=False)


def test_what_cannot_be_is_refused():
    program, x = pushed()
    for settings, words in (
        ({"names": ["b"]}, "'b' is no parameter of the program; names can be m, a"),
        ({"n_chains": 3}, "n_chains must be an integer from 4 on"),
        ({"n_draws": 1}, "n_draws must be an integer from 2 on"),
        ({"n_prior_chains": 20}, "a multiple of n_chains=16"),
    ):
        with pytest.raises(PplebmError, match=words):
            information(program, x, **settings)
    wide = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(MOST,)))
    with pytest.raises(PplebmError, match=r"are too many, the most are 300 \('W' has .*give names="):
        Chosen(wide, wide.params)


def test_batches_of_data_and_of_rows_change_nothing_but_random_numbers(monkeypatch):
    """Two of five data at once, the last batch filled up, each row with a prior of its own; parts of draws exactly."""
    case = bed("covariate")
    program = case.program("pyro")
    whole = information(program, case.data, **QUICK)
    monkeypatch.setattr("pplebm.estimation.derivatives.ROWS_AT_ONCE", 37)
    parts = information(program, case.data, **QUICK)
    np.testing.assert_allclose(parts.observed, whole.observed, rtol=1e-4)
    np.testing.assert_allclose(parts.score, whole.score, rtol=1e-3, atol=1e-4)
    monkeypatch.undo()
    monkeypatch.setattr("pplebm.estimation.information.NUMBERS_AT_ONCE", 2 * 16 * 50)
    found = information(program, case.data, **QUICK)
    check(found, *exact_of(case, ["effect", "height"]), most=0.6)
    assert not np.allclose(found.score, whole.score, rtol=1e-6)


def test_a_tilted_latent_in_common_and_one_of_every_row():
    """All data one datum, tilts inside and outside the plate, by quadrature within quadrature."""
    names = list(JOINT.values)
    found = information(JOINT.program("numpyro"), JOINT.data, n_prior_chains=64, **QUICK | {"n_draws": 100})
    gradient, second = exact_of(JOINT, names)
    order = [found.labels.index(name) for name in names]
    error = found.error_of(lambda score, observed, outer: observed)
    for got, expected, its in (
        (found.score[order], gradient.sum(0), np.sqrt(np.diag(found.score_covariance))[order]),
        (found.observed[np.ix_(order, order)], second, error[np.ix_(order, order)]),
    ):
        assert (np.abs(got - expected) < 4.5 * its).all(), (got, expected, its)
