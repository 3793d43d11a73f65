"""Priors that read covariates have a constant of their own in every row: gradients, chains, draws, refusals."""

from __future__ import annotations

import contextlib
import importlib

import jax
import numpy as np
import pytest
from changes import taken
from scipy import stats

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.kernels.hmc import hmc
from pplebm.kernels.langevin import langevin
from pplebm.objectives.contrast import contrast
from pplebm.sampling.chains import short_run

N, RNG = 40, np.random.default_rng(0)
LABEL, C = RNG.integers(0, 3, N), RNG.normal(size=N)
THETA = {"a": np.array([0.8, -0.5, 0.2]), "b": np.array(0.7), "w": np.array(1.3), "v": np.array(0.4)}
X = RNG.normal(THETA["w"] * (THETA["a"][LABEL] + THETA["v"] * C) + THETA["b"] * C, 1.5)
DATA = {"label": LABEL, "c": C, "x": X}


def model_of(ppl):
    """z ~ N(v c, 1) tilted by a[label] z is N(v c + a[label], 1), with log Z = a v c + a²/2; x ~ N(w z + b c, 1)."""

    def model(label, c, x=None):
        theta = {name: ppl.param(name, value) for name, value in THETA.items()}
        with ppl.plate("data", len(c)):
            z = ppl.sample("z", ppl.dist.Normal(theta["v"] * c, 1.0))
            ppl.tilt("f", theta["a"][label] * z)
            ppl.sample("x", ppl.dist.Normal(theta["w"] * z + theta["b"] * c, 1.0), obs=x)

    return model


@pytest.fixture
def double(ppl, float64):
    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield


def exact(theta):
    """Mean of log p(x | c, label) over rows."""
    mean = theta["v"] * C + theta["a"][LABEL]
    return stats.norm.logpdf(X, theta["w"] * mean + theta["b"] * C, np.hypot(theta["w"], 1.0)).mean()


def sigma_points(ppl, mean, variance):
    """Two points a row, whose mean and square are those of the normal law: exact for what is quadratic in z."""
    return {"z": ppl.asarray(np.concatenate([mean - np.sqrt(variance), mean + np.sqrt(variance)]))}


def gradient_at(ppl, negative_mean):
    program = pplebm.Program(model_of(ppl), data=DATA, backend=ppl.name)
    x = program.data({name: np.concatenate([a, a]) for name, a in DATA.items()})
    prior_mean = THETA["v"] * C + THETA["a"][LABEL]
    precision = 1.0 + THETA["w"] ** 2
    posterior_mean = (prior_mean + THETA["w"] * (X - THETA["b"] * C)) / precision
    positive = sigma_points(ppl, posterior_mean, 1.0 / precision)
    negative = sigma_points(ppl, negative_mean, 1.0)
    loss = lambda params: contrast(program, params, x, positive, negative)
    _, gradient = ppl.value_and_grad(loss, program.params, has_aux=True)
    return {name: -ppl.to_numpy(g) for name, g in gradient.items()}


def finite_differences():
    found = {}
    for name, value in THETA.items():
        found[name] = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            step = np.zeros(value.shape)
            step[index] = 1e-5
            found[name][index] = (exact(THETA | {name: value + step}) - exact(THETA | {name: value - step})) / 2e-5
    return found


def test_two_phases_are_the_gradient_of_the_exact_conditional_likelihood(ppl, double):
    got = gradient_at(ppl, THETA["v"] * C + THETA["a"][LABEL])
    for name, wanted in finite_differences().items():
        np.testing.assert_allclose(got[name], wanted, atol=1e-8)


def test_negatives_that_ignore_covariates_are_seen(ppl, double):
    got = gradient_at(ppl, np.roll(THETA["v"] * C + THETA["a"][LABEL], 1))
    assert max(np.abs(got[name] - wanted).max() for name, wanted in finite_differences().items()) > 0.01


@pytest.mark.parametrize("how", ["short run", "sample_prior"])
def test_prior_chains_are_those_of_each_row(ppl, how):
    program = pplebm.Program(model_of(ppl), data=DATA, backend=ppl.name)
    assert program.prior_reads and program.covariates == ("label", "c")
    mean, copies = THETA["v"] * C + THETA["a"][LABEL], 400
    if how == "short run":
        many = program.data({name: np.tile(a, copies) for name, a in DATA.items()})
        kernel = langevin(0.3)
        z, _ = short_run(program, ppl.key(0), program.params, program.prior_rows(many), kernel, 100, observed=False)
        draws = ppl.to_numpy(z["z"]).reshape(copies, N)
        bias = 0.0
    else:
        given = {name: DATA[name] for name in ("label", "c")}  # x is missing, and is not needed
        prior = pplebm.sample_prior(
            program, hmc(), given=given, n_chains=100, n_draws=10, n_warmup=100, thin=5, progress=False
        )
        draws, bias = prior["z"].reshape(-1, N), 0.0
    error = 5.0 / np.sqrt(len(draws))  # five standard errors of a mean of unit variance, N rows
    np.testing.assert_allclose(draws.mean(0), mean, atol=error + bias)
    np.testing.assert_allclose(draws.std(0), 1.0, atol=1.2 * error)


def slopes_of(ppl):
    """z ~ N(0, I) tilted by a c (z₁ + z₂) is N(a c, I); x ~ N(z, 1/4)."""

    def model(c, x=None):
        a = ppl.param("a", np.float32(0.1))
        with ppl.plate("data", len(c)):
            z = ppl.sample("z", ppl.dist.Normal(np.zeros(2, np.float32), 1.0).to_event(1))
            ppl.tilt("f", a * c * z.sum(-1))
            ppl.sample("x", ppl.dist.Normal(z, 0.5).to_event(1), obs=x)

    return model


def slope_learned(page, tmp_path):
    """By 200 updates of an algorithm, and the maximum Σ c x̄ / Σ c²."""
    ppl, n = importlib.import_module("pplebm.backends.numpyro"), 300
    rng = np.random.default_rng(0)
    c = rng.normal(size=n).astype(np.float32)
    x = (1.2 * c[:, None] + rng.normal(size=(n, 2)) * np.sqrt(1.25)).astype(np.float32)
    wanted = {"updates": 200, "batch_size": 240, "pool": 240, "learning_rate": 0.03, "learning_rate_tilt": 0.03}
    hyper = taken(pplebm.load(page), wanted | {"tilt_penalty": 0.0})
    run = pplebm.fit(
        slopes_of(ppl), {"c": c, "x": x}, page, out=tmp_path / "run", backend="numpyro", hyper=hyper, progress=False
    )
    return float(run.params["a"]), (c * x.mean(1)).sum() / (c**2).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted(set(pplebm.inference_available()) - {"flow_posterior", "score_matching"})
)  # which learn no prior of latents
def test_every_page_learns_a_tilt_of_covariates(page, tmp_path):
    """As near the maximum as short chains, guides and base draws let it."""
    found, best = slope_learned(page, tmp_path)
    assert 0.4 * best < found < 1.4 * best


@pytest.mark.slow
@pytest.mark.parametrize("page", ["short_run_mle", "variational_joint"])
def test_learning_with_the_negatives_of_other_rows_runs_off(page, tmp_path, monkeypatch):
    rows_of = pplebm.Program.prior_rows
    rolled = lambda a: jax.numpy.roll(a, 1, 0)
    monkeypatch.setattr(pplebm.Program, "prior_rows", lambda self, x: jax.tree.map(rolled, rows_of(self, x)))
    with pytest.raises(PplebmWarning, match="went back to update"):
        slope_learned(page, tmp_path)


def test_predictions_at_other_covariates(ppl):
    program = pplebm.Program(model_of(ppl), data=DATA, backend=ppl.name)
    new = {"label": np.array([0, 2]), "c": np.array([3.0, -2.0])}
    prior = pplebm.sample_prior(program, given=new, n_chains=100, n_draws=20, n_warmup=100, progress=False)
    drawn = pplebm.predictive(prior)["x"].reshape(-1, 2)
    mean = THETA["v"] * new["c"] + THETA["a"][new["label"]]
    wanted = THETA["w"] * mean + THETA["b"] * new["c"]
    np.testing.assert_allclose(drawn.mean(0), wanted, atol=0.25)


def test_a_prior_without_its_covariates_is_refused(ppl):
    program = pplebm.Program(model_of(ppl), data=DATA, backend=ppl.name)
    with pytest.raises(PplebmError, match=r"'f' reads label, c.*given=data"):
        pplebm.sample_prior(program, n_chains=2, n_draws=2, n_warmup=0)
    with pytest.raises(PplebmError, match=r"needs the covariates label, c"):
        program.draw_base(ppl.key(0), 3)
    with pytest.raises(PplebmError, match=r"needs the covariates label, c"):
        program.log_prior(program.params, {"z": ppl.asarray(np.zeros(3))})
