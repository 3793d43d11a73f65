"""Leave-one-out and comparison by evidence, against closed forms and ArviZ's own tables."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pytest
from conjugate import hierarchy
from scipy import stats

import pplebm
from pplebm.calibration.compare import compare
from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.ppl.language import load_backend
from pplebm.sampling.to_arviz import has_inference_data, import_arviz

IS_OLD = has_inference_data()
TILTS = {"tilted": 1.5, "twin": 0.0}
X = (1.5 + 1.09**0.5 * np.random.default_rng(0).normal(size=40)).astype(np.float32)


def program_of(tilt):
    """z ~ N(0, 1) tilted by `tilt` z, seen with noise 0.3: p(x) is N(tilt, 1.09)."""
    ppl = load_backend("pyro")

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", tilt * z)
            ppl.sample("x", ppl.dist.Normal(z, 0.3), obs=x)

    return pplebm.Program(model, data=X)


def exact(tilt):
    return stats.norm(tilt, 1.09**0.5).logpdf(X)


def evidence_of(tilt):
    return Evidence.of("closed form", exact(tilt), np.full(len(X), 0.01), 100.0, 0.1)


@pytest.fixture(scope="module")
def trees():
    """Containers of a program and its twin, with their evidence."""
    settings = {"n_chains": 4, "n_draws": 100, "n_warmup": 100}
    found = {}
    for name in ("tilted", "twin"):
        program = program_of(TILTS[name])
        posterior = pplebm.sample(program, data=X, **settings)
        prior = pplebm.sample_prior(program, **settings)
        found[name] = pplebm.to_arviz(posterior, prior, evidence=evidence_of(TILTS[name]), n_predictive=None)
    return found


def group(tree, name):
    return tree[name].to_dataset() if not IS_OLD else tree[name]


def quietly(function, *args, **kwargs):
    """ArviZ 0.x takes weights that are all equal for ones with an infinite tail, and warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def test_the_log_likelihood_is_the_integrated_one(trees):
    tree = trees["tilted"]
    integrated, conditional = group(tree, "log_likelihood")["x"], group(tree, "conditional_log_likelihood")["x"]
    assert integrated.dims == conditional.dims == ("chain", "draw", "data") and integrated.shape == (4, 100, 40)
    assert (integrated.values == exact(1.5)).all()
    np.testing.assert_allclose(group(tree, "evidence")["error"].values, 0.01)
    expected = stats.norm(group(tree, "posterior")["z"].values, 0.3).logpdf(X)
    np.testing.assert_allclose(conditional.values, expected, rtol=1e-3, atol=1e-3)
    assert "no log likelihood for leave-one-out" in group(tree, "conditional_log_likelihood").attrs["warning"]


def test_leave_one_out_is_the_sum_of_the_evidence(trees):
    """The conditional likelihood, which ArviZ finds no longer, is off by many standard errors."""
    arviz, tree = import_arviz(), trees["tilted"]
    found = quietly(arviz.loo, tree, pointwise=True)
    assert found.elpd_loo == pytest.approx(exact(1.5).sum(), abs=1e-6) and found.p_loo == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found.loo_i.values, exact(1.5), atol=1e-9)
    assert found.se == pytest.approx((40 * exact(1.5).var()) ** 0.5)
    other = {"x": group(tree, "conditional_log_likelihood")["x"].values}
    wrong = quietly(arviz.loo, arviz.from_dict({"z": group(tree, "posterior")["z"].values}, log_likelihood=other))
    assert wrong.elpd_loo - exact(1.5).sum() > 5.0


@pytest.mark.skipif(not IS_OLD, reason="columns of ArviZ 0.x")
def test_the_table_is_that_of_arviz(trees):
    theirs = quietly(import_arviz().compare, trees)
    ours = compare({name: evidence_of(TILTS[name]) for name in ("twin", "tilted")})
    assert list(ours.index) == list(theirs.index) == ["tilted", "twin"]
    for column in ("rank", "elpd_loo", "p_loo", "elpd_diff", "se", "dse"):
        np.testing.assert_allclose(ours[column].astype(float), theirs[column].astype(float), atol=1e-6)
    assert not ours.warning.any() and list(ours.scale) == ["log", "log"]
    matplotlib.use("Agg")
    quietly(import_arviz().plot_compare, ours)


def test_estimated_evidence_is_ranked_with_its_errors():
    """The difference is the exact one within what estimators add, which is told."""
    found = {name: pplebm.log_evidence(program_of(tilt), X) for name, tilt in TILTS.items()}
    table = compare(found)
    assert list(table.index) == ["tilted", "twin"] and list(table["rank"]) == [0, 1]
    for name, tilt in TILTS.items():
        row, off = table.loc[name], exact(1.5) - exact(tilt)
        assert abs(row.elpd_diff - off.sum()) <= 4 * row.estimator_dse
        own = (found[name].error ** 2 - found[name].common_error ** 2).sum()
        assert row.estimator_se == pytest.approx((own + (40 * found[name].common_error) ** 2) ** 0.5)
    paired = (40 * (exact(1.5) - exact(0.0)).var()) ** 0.5
    assert table.loc["twin", "dse"] == pytest.approx(paired, rel=0.05)
    assert table.loc["twin", "estimator_dse"] == pytest.approx(np.hypot(*table.estimator_se))


def test_standard_errors_are_those_over_data_sets():
    """Over fresh data sets the difference of two normals has the spread that `dse` tells of one of them."""
    rng = np.random.default_rng(3)
    x = 1.5 + 1.09**0.5 * rng.normal(size=(2000, 60))
    a, b = (stats.norm(m, 1.09**0.5).logpdf(x) for m in (1.5, 1.0))
    told = [
        compare({"a": Evidence.of("", p, 0 * p), "b": Evidence.of("", q, 0 * q)}).dse.max()
        for p, q in zip(a[:200], b[:200], strict=True)
    ]
    spread = (a - b).sum(1).std()
    assert np.mean(told) == pytest.approx(spread, rel=0.03 + 4 / 4000**0.5)


def test_global_latents_keep_their_pointwise_likelihood():
    ppl = load_backend("pyro")

    def regression(x):
        mean = ppl.sample("mean", ppl.dist.Normal(0.0, 2.0))
        with ppl.plate("data", len(x)):
            ppl.sample("x", ppl.dist.Normal(mean, 1.0), obs=x)

    draws = pplebm.sample(pplebm.Program(regression, data=X), data=X, n_chains=4, n_draws=300, n_warmup=100)
    tree = pplebm.to_arviz(draws, n_predictive=None)
    assert "conditional_log_likelihood" not in (tree.groups() if IS_OLD else tree.children)
    found = import_arviz().loo(tree)
    n, precision = len(X), len(X) + 0.25
    mean = (X.sum() - X) / (precision - 1.0)  # of the others' posterior
    expected = stats.norm(mean, (1.0 + 1.0 / (precision - 1.0)) ** 0.5).logpdf(X).sum()
    assert found.elpd_loo == pytest.approx(expected, abs=0.3) and not found.warning and n == 40
    with pytest.raises(PplebmError, match="one number for all data"):
        pplebm.to_arviz(draws, evidence=Evidence.of("", [-1.0], [0.1]))


@pytest.mark.skipif(not IS_OLD, reason="plots of ArviZ 0.x")
def test_plots_that_pair_prior_and_posterior(trees):
    matplotlib.use("Agg")
    arviz, tree = import_arviz(), trees["tilted"]
    axes = quietly(arviz.plot_dist_comparison, tree.sel(data=0), var_names=["z"])
    assert axes.size == 3
    quietly(arviz.plot_loo_pit, tree, y="x")


def test_what_cannot_be_compared_is_refused():
    one = evidence_of(1.5)
    with pytest.raises(PplebmError, match="two programs or more, got 1"):
        compare({"a": one})
    with pytest.raises(PplebmError, match="40 of 'a', 3 of 'b'"):
        compare({"a": one, "b": one.take(np.arange(3))})
    lost = Evidence.of("ais", np.zeros(40), np.ones(40), reasons=["", "k-hat"] + 38 * [""])
    with pytest.raises(PplebmError, match="'b' cannot be trusted at 1 of 40 data, datum 1"):
        compare({"a": one, "b": lost})
    draws = pplebm.sample(program_of(0.0), data=X[:3], n_chains=2, n_draws=4, n_warmup=10)
    with pytest.raises(PplebmError, match="evidence of 40 data for draws at 3"):
        pplebm.to_arviz(draws, evidence=one)
    joint = pplebm.sample(hierarchy("pyro"), data=X[:4], n_chains=2, n_draws=4, n_warmup=10)
    with pytest.raises(PplebmError, match="global latents"):
        pplebm.to_arviz(joint, evidence=one.take(np.arange(4)))
