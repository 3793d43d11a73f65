"""Averages over data against the prior, replicated data against data, and a simulator for others."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from conjugate import BACKENDS, hierarchy, one_layer
from scipy import stats

import pplebm
from pplebm.calibration.averaged import _moment, data_averaged, k_hats
from pplebm.calibration.checks import leave_one_out_pit, predictive_checks
from pplebm.calibration.simulator import Simulator
from pplebm.calibration.uniformity import ranks_of
from pplebm.errors import PplebmError
from pplebm.guides.guide import Guide
from pplebm.ppl.language import load_backend
from pplebm.sampling.importance import effective_size, weighted_mean, weights
from pplebm.sampling.to_arviz import has_inference_data, import_arviz

backends = pytest.mark.parametrize("backend", BACKENDS)
SETTINGS = {"n_chains": 20, "n_draws": 25, "n_warmup": 150}


def skewed(tilt=-1.0, backend="pyro", noise=1.0):
    """z ~ Gamma(2, 1) tilted to Gamma(2, 1 - tilt), seen with noise."""
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Gamma(2.0, 1.0))
            ppl.tilt("f", tilt * z)
            ppl.sample("x", ppl.dist.Normal(z, noise), obs=x)

    return pplebm.Program(model, data=np.ones(3, np.float32), backend=backend)


def simulated(n, rate=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.gamma(2.0, 1.0 / rate, n) + rng.normal(size=n)).astype(np.float32)


# --- the posterior averaged over data


@pytest.fixture(scope="module")
def posterior():
    return pplebm.sample(skewed(), data=simulated(120), **SETTINGS)


@pytest.fixture(scope="module")
def prior():
    return pplebm.sample_prior(skewed(), **SETTINGS)


def test_the_averaged_posterior_of_simulated_data_is_the_tilted_prior(posterior, prior):
    found = {moment.name: moment for moment in data_averaged(posterior, prior)}
    assert set(found) == {"z", "(z - mean)²"} and max(abs(m.sigmas) for m in found.values()) < 4
    assert found["z"].prior == pytest.approx(1.0, abs=0.2) and found["(z - mean)²"].prior == pytest.approx(0.5, abs=0.2)
    for moment in found.values():
        assert moment.difference == moment.averaged - moment.prior and moment.error < 0.2


def test_a_prior_without_its_tilt_is_told(posterior):
    base = pplebm.sample_prior(skewed(tilt=0.0), **SETTINGS)
    worst = data_averaged(posterior, base)[0]
    assert abs(worst.sigmas) > 6


@pytest.mark.parametrize("is_paired", [False, True])
def test_the_error_of_a_moment_is_its_spread(is_paired):
    """Exact draws of a Gaussian program, again and again: standard scores have mean 0 and variance 1."""
    rng, scores = np.random.default_rng(0), []
    for _ in range(400):
        c = rng.normal(size=40) if is_paired else np.zeros(40)
        x = c + 1.5 * rng.normal(size=40)
        draws = c + (x - c) / 2.25 + (1.0 - 1.0 / 2.25) ** 0.5 * rng.normal(size=(2, 4, 40))
        of_prior = c + rng.normal(size=(2, 25, 40)) if is_paired else rng.normal(size=(2, 25))
        scores.append(_moment("z", draws, of_prior, is_paired).sigmas)
    assert abs(np.mean(scores)) < 4 / 20 and abs(np.var(scores) - 40 / 38) < 4 * (2 / 400) ** 0.5


def test_a_prior_given_covariates_is_paired_with_its_posteriors():
    program, _ = one_layer("pyro", slope=0.5)
    rng = np.random.default_rng(1)
    c = np.linspace(-3.0, 3.0, 40).astype(np.float32)
    x = (0.7 + 0.5 * c + 1.36**0.5 * rng.normal(size=40)).astype(np.float32)
    data = {"x": x, "c": c}
    draws = pplebm.sample(program, data=data, n_chains=4, n_draws=20, n_warmup=100)
    of_prior = pplebm.sample_prior(program, given=data, n_chains=4, n_draws=20, n_warmup=100)
    moment = next(m for m in data_averaged(draws, of_prior) if m.name == "z")
    assert abs(moment.sigmas) < 4 and moment.error < 1.2 * (1 / 1.36 / 40 + 1 / 80 / 40 * 2) ** 0.5
    with pytest.raises(PplebmError, match="drawn at 12 rows, the posteriors at 40"):
        few = {name: a[:12] for name, a in data.items()}
        data_averaged(draws, pplebm.sample_prior(program, given=few, n_chains=4, n_draws=4, n_warmup=10))


def test_what_has_no_average_is_refused(posterior, prior):
    with pytest.raises(PplebmError, match="in this order"):
        data_averaged(prior, posterior)
    few = pplebm.sample(skewed(), data=simulated(3), n_chains=2, n_draws=4, n_warmup=10)
    with pytest.raises(PplebmError, match="spread over 3 data"):
        data_averaged(few, prior)
    joint = hierarchy("pyro")
    short = {"n_chains": 2, "n_draws": 4, "n_warmup": 10}
    x = np.zeros(4, np.float32)
    with pytest.raises(PplebmError, match="global latent"):
        data_averaged(pplebm.sample(joint, data=x, **short), pplebm.sample_prior(joint, given=x, **short))


def test_k_hats_are_summed_up():
    ppl = load_backend("pyro")

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    def guide(x):  # right at x = 0, far too narrow at x = 3
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.5 * x, 0.7071 - 0.2 * x))

    x = np.array([0.0, 3.0, 0.0, 0.0], np.float32)
    program = pplebm.Program(model, data=x)
    found = k_hats(pplebm.sample_guide(program, x, Guide(program, guide)), 2)
    assert found.share_good == 0.75 and found.worst[0][0] == 1 and found.worst[0][1] > 0.7 > found.median
    assert len(found.worst) == 2 and found.ess_share > 0.99
    assert "at 25% of the data" in found.verdict and "at datum 1" in found.verdict
    good = k_hats(pplebm.sample_guide(program, x[:1], Guide(program, guide)))
    assert good.share_good == 1.0 and "can be trusted" in good.verdict


# --- data and replications


def test_predictions_of_the_prior_are_uniform_by_datum_and_those_of_the_base_are_not(prior):
    x = simulated(120, seed=3)
    statistics = {"x": lambda v: v["x"], "size": lambda v: abs(v["x"])}
    found = predictive_checks(prior, statistics, x, n=None)
    assert found["x"].replicated.shape == (500 // 120, 120)
    exact = skewed_cdf(x, 2.0)
    assert abs(leave_one_out_pit(prior, x)["x"] - exact).max() < 4 * 0.5 / 250**0.5
    assert stats.kstest(leave_one_out_pit(prior, x)["x"], "uniform").pvalue > 0.01
    base = pplebm.sample_prior(skewed(tilt=0.0), **SETTINGS)
    assert stats.kstest(leave_one_out_pit(base, x)["x"], "uniform").pvalue < 1e-4


def skewed_cdf(x, rate):
    """P(z + noise ≤ x) for z ~ Gamma(2, rate), by quadrature."""
    z = np.linspace(0.0, 12.0, 4001)
    mass = stats.gamma(2.0, scale=1.0 / rate).pdf(z) * (z[1] - z[0])
    return (mass * stats.norm.cdf(x[:, None] - z)).sum(1)


def test_checks_of_a_posterior_count_replications(posterior):
    found = predictive_checks(posterior, {"x": lambda v: v["x"], "below 0": lambda v: 1.0 * (v["x"] < 0)}, n=10)
    check = found["x"]
    np.testing.assert_array_equal(check.observed, simulated(120))
    np.testing.assert_allclose(check.by_datum, (check.replicated > check.observed).mean(0))
    assert check.overall == (check.replicated.mean(1) > check.observed.mean()).mean()
    assert check.by_datum.std() < 0.9 / 12**0.5  # each has seen its datum
    ties = found["below 0"]
    assert set(np.unique(ties.replicated)) == {0.0, 1.0}
    np.testing.assert_allclose(ties.by_datum, 0.5 + 0.5 * (ties.replicated.mean(0) - ties.observed))


def test_a_program_that_misses_the_spread_is_found_by_the_statistic_of_it():
    """Data of noise 1 under a program of noise 1/5: the spread is missed, the mean is not."""
    x = simulated(100, seed=5)
    wrong = pplebm.sample_prior(skewed(noise=0.2), n_chains=100, n_draws=20, n_warmup=100)
    square = {"x": lambda v: v["x"], "square": lambda v: (v["x"] - 1.0) ** 2}
    found = predictive_checks(wrong, square, x, n=None)
    assert found["square"].overall < 0.1 < found["x"].overall < 0.98


@pytest.mark.skipif(not has_inference_data(), reason="arrays as arguments are ArviZ 0.x")
def test_the_transform_is_that_of_arviz_and_its_plot_takes_the_same_arrays(prior):
    x = simulated(30, seed=4)
    y_hat = pplebm.predictive(prior, seed=7)["x"].reshape(1, -1).repeat(30, 0)
    arguments = {"y": x, "y_hat": y_hat, "log_weights": np.full(y_hat.shape, -np.log(y_hat.shape[1]))}
    theirs = import_arviz().loo_pit(**arguments)
    np.testing.assert_allclose(leave_one_out_pit(prior, x, seed=7)["x"], theirs, atol=1e-6)
    matplotlib.use("Agg")
    import_arviz().plot_loo_pit(**arguments)


def test_data_that_do_not_fit_are_refused(posterior, prior):
    with pytest.raises(PplebmError, match="have no data; give data="):
        predictive_checks(prior, {})
    with pytest.raises(PplebmError, match="shape \\(\\) for 120 rows"):
        predictive_checks(posterior, {"mean": lambda v: v["x"].mean()}, n=2)
    with pytest.raises(PplebmError, match="replicate no set of 900 data"):
        predictive_checks(prior, {"x": lambda v: v["x"]}, simulated(900))
    with pytest.raises(PplebmError, match="have seen the datum"):
        leave_one_out_pit(posterior, simulated(120))
    joint = pplebm.sample_prior(hierarchy("pyro"), given=np.zeros(4, np.float32), n_chains=2, n_draws=4, n_warmup=10)
    with pytest.raises(PplebmError, match="other data tell about global latents"):
        leave_one_out_pit(joint, np.zeros(4, np.float32))


# --- a simulator for others


@backends
def test_the_simulator_draws_data_given_latents(backend):
    program, data = one_layer(backend)
    simulator, z = Simulator(program, data), np.array([-2.0, 0.0, 1.0, 5.0])
    drawn = np.stack([simulator(z=z, seed=s, other=None)["x"] for s in range(200)])
    assert drawn.shape == (200, 4) and (simulator(z=z, seed=3)["x"] == drawn[3]).all()
    assert abs(drawn.mean(0) - z).max() < 4 * 0.6 / 200**0.5
    assert abs(drawn.std(0) / 0.6 - 1.0).max() < 4 / 400**0.5
    np.testing.assert_allclose(simulator.log_weights({"z": z[None]}), 0.7 * z[None], rtol=1e-5)


def test_a_package_that_calibrates_by_forward_runs_is_right_with_the_weights():
    """What simuk does: latents by a forward run of the host, data by `simulator(**latents, seed=)`, a rank for each.

    The posteriors are exact, z | x ~ N((0.7 + x / 0.36) / (1 + 1 / 0.36), 1 / (1 + 1 / 0.36)).
    """
    import numpyro.infer
    from jax import random

    program, data = one_layer("numpyro")
    simulator = Simulator(program, data)
    forward = numpyro.infer.Predictive(_forward, num_samples=150)(random.PRNGKey(0), **data)
    latents = {name: a for name, a in forward.items() if name == "z"}
    seeds = np.random.default_rng(0).integers(0, 2**30, 150)
    found = []
    for i, values in enumerate(zip(*latents.values(), strict=True)):
        made = simulator(**dict(zip(latents, values, strict=True)), seed=seeds[i])
        assert isinstance(made, dict) and made["x"].shape == data["x"].shape
        found.append(made["x"])
    x, rng, precision = np.stack(found).ravel(), np.random.default_rng(1), 1.0 + 1.0 / 0.36
    draws = (0.7 + x / 0.36) / precision + precision**-0.5 * rng.normal(size=(49, x.size))
    shares = (ranks_of(np.asarray(latents["z"]).ravel(), draws) + 0.5) / 50
    log_weights = simulator.log_weights(latents).ravel()
    weighted = weighted_mean(shares, log_weights)
    assert abs(weighted.mean - 0.5) < 4 * weighted.error < 0.1
    assert abs(shares.mean() - 0.5) > 4 * (12 * x.size) ** -0.5
    spread = weighted_mean((shares - 0.5) ** 2, log_weights)
    assert abs(spread.mean - 1 / 12) < 4 * spread.error
    assert effective_size(log_weights) > 250 and weights(log_weights).sum() == pytest.approx(1.0)


def _forward(x, c):
    """The program of `one_layer` as simuk runs it: without its tilt."""
    import numpyro
    import numpyro.distributions as dist

    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("f", 0.7 * z)
        numpyro.sample("x", dist.Normal(z, 0.6), obs=x)


def test_what_no_simulator_can_do_is_refused():
    program, data = one_layer("pyro")
    with pytest.raises(PplebmError, match="'z' has shape \\(3,\\); expected \\(4,\\)"):
        Simulator(program, data)(z=np.zeros(3), seed=0)
    with pytest.raises(PplebmError, match="'z' is missing; got w"):
        Simulator(program, data)(w=np.zeros(4), seed=0)
    with pytest.raises(PplebmError, match="global latent"):
        Simulator(hierarchy("pyro"))
    ppl = load_backend("pyro")

    def model(values):
        with ppl.plate("data", len(values)):
            ppl.sample("x", ppl.dist.Normal(ppl.sample("z", ppl.dist.Normal(0.0, 1.0)), 1.0), obs=values)

    with pytest.raises(PplebmError, match="'x' is named like no argument of the model \\(values\\)"):
        Simulator(pplebm.Program(model, data=np.zeros(2, np.float32)))
