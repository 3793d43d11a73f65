"""Draws in ArviZ, their diagnostics, predictive draws, and buffers of persistent chains."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from conjugate import BACKENDS, X, hierarchy, instance

import pplebm
from pplebm.errors import PplebmError
from pplebm.kernels.langevin import langevin
from pplebm.ppl.language import load_backend
from pplebm.sampling import buffers as persistent
from pplebm.sampling import chains
from pplebm.sampling.convergence import nested_r_hat
from pplebm.sampling.diagnostics import diagnose
from pplebm.sampling.predictive import log_likelihood, predictive
from pplebm.sampling.sampler import sample
from pplebm.sampling.to_arviz import has_inference_data, import_arviz

IS_OLD = has_inference_data()


@pytest.fixture(scope="module", params=BACKENDS)
def both(request):
    """A posterior of three data and a prior."""
    program, params, law = instance(request.param)
    settings = {"params": params, "n_chains": 8, "n_draws": 100, "n_warmup": 150}
    return sample(program, data=X, **settings), sample(program, **settings), law


def group(tree, name):
    return tree[name].to_dataset() if not IS_OLD else tree[name]


def test_groups_dimensions_and_values(both):
    posterior, prior, _ = both
    tree = pplebm.to_arviz(posterior, prior, n_base=50, n_predictive=20)
    names = {"posterior", "sample_stats", "observed_data", "posterior_predictive", "conditional_log_likelihood",
             "prior",
             "sample_stats_prior", "prior_predictive", "base_prior"}  # fmt: skip
    assert set(tree.groups() if IS_OLD else tree.children) == names
    assert group(tree, "posterior")["z1"].dims == ("chain", "draw", "data", "z1_dim_0")
    assert group(tree, "prior")["z1"].dims == ("chain", "draw", "z1_dim_0")
    assert group(tree, "base_prior")["z1"].shape == (1, 50, 3)
    np.testing.assert_array_equal(group(tree, "posterior")["z2"].values, posterior["z2"])
    stats = group(tree, "sample_stats")
    known = {"lp", "acceptance_rate", "diverging", "energy", "n_steps", "step_size"}
    assert known | {f"{name}_by_datum" for name in known} == set(stats.data_vars)
    assert stats["lp"].dims == ("chain", "draw") and stats["lp_by_datum"].dims == ("chain", "draw", "data")
    np.testing.assert_allclose(stats["lp"], stats["lp_by_datum"].sum("data"), rtol=1e-5)
    likelihood = group(tree, "conditional_log_likelihood")
    assert "no log likelihood for leave-one-out" in likelihood.attrs["warning"]
    assert set(likelihood.data_vars) == {"x"} and likelihood["x"].dims == ("chain", "draw", "data")  # no tilt
    assert group(tree, "posterior_predictive")["x"].dims == ("chain", "draw", "data", "x_dim_0")
    assert group(tree, "prior_predictive")["x"].dims == ("chain", "draw", "x_dim_0")
    np.testing.assert_allclose(group(tree, "observed_data")["x"].values, X)
    assert group(tree, "posterior").attrs["inference_library"] == "pplebm"


def test_log_likelihood_is_the_normal_density_and_leaves_the_tilt_out(both):
    posterior, _, _ = both
    weights = posterior.program.ppl.to_numpy(posterior.params["W"])
    mean = posterior["z1"] @ weights.T
    sigma = pplebm.load("conjugate_tilt").Hyper().sigma
    expected = -0.5 * (((X - mean) / sigma) ** 2 + np.log(2 * np.pi * sigma**2)).sum(-1)
    np.testing.assert_allclose(log_likelihood(posterior)["x"], expected, rtol=1e-3, atol=1e-2)


def test_predictive_has_the_moments_of_the_tilted_model(both):
    posterior, prior, law = both
    weights = prior.program.ppl.to_numpy(prior.params["W"])
    sigma = pplebm.load("conjugate_tilt").Hyper().sigma
    for draws, exact in ((prior, [law()]), (posterior, [law(x) for x in X])):
        x = predictive(draws)["x"].reshape(8, 100, -1, 4)
        for i, gaussian in enumerate(exact):
            by_chain = x[:, :, i].mean(1)
            mean = weights @ gaussian.mean[:3]
            assert (np.abs(by_chain.mean(0) - mean) < 6 * by_chain.std(0, ddof=1) / np.sqrt(8) + 1e-3).all()
            variance = np.diag(weights @ gaussian.covariance[:3, :3] @ weights.T) + sigma**2
            np.testing.assert_allclose(x[:, :, i].var((0, 1)), variance, rtol=0.4)
    assert predictive(posterior, 5, mean=True)["x"].shape == (8, 5, 3, 4)
    again = predictive(posterior, 5, seed=1)["x"]
    assert (again != predictive(posterior, 5, seed=2)["x"]).any()
    np.testing.assert_array_equal(again, predictive(posterior, 5, seed=1)["x"])


@pytest.mark.filterwarnings("ignore:rcParams")  # of more variables than are drawn
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")  # ArviZ 0.23 with Matplotlib 3.11
def test_netcdf_round_trip_and_known_plots(both, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    arviz = import_arviz()
    tree = pplebm.to_arviz(both[0], both[1], n_predictive=10)
    path = str(tmp_path / "draws.nc")
    if IS_OLD:
        tree.to_netcdf(path)
        back = arviz.from_netcdf(path)
        arviz.plot_trace(tree, var_names=["z2"])
        arviz.plot_rank(tree, var_names=["z2"])
        arviz.plot_energy(tree)
        arviz.plot_autocorr(tree, var_names=["z2"], max_lag=20)
        arviz.plot_posterior(tree, var_names=["z2"])
        arviz.plot_ppc(tree, num_pp_samples=5)
    else:
        import xarray

        tree.to_netcdf(path, engine="h5netcdf")
        back = xarray.open_datatree(path, engine="h5netcdf")
        arviz.plot_trace_dist(tree, var_names=["z2"], backend="matplotlib")
        arviz.plot_rank(tree, var_names=["z2"], backend="matplotlib")
        arviz.plot_autocorr(tree, var_names=["z2"], backend="matplotlib")
    np.testing.assert_array_equal(group(back, "posterior")["z1"].values, both[0]["z1"])
    assert "r_hat" in arviz.summary(tree, var_names=["z2"]).columns
    with pytest.raises(TypeError, match="log likelihood not found"):  # that of latents fitted to a datum is none
        arviz.loo(tree)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_joint_program_has_pointwise_likelihoods(backend):
    x = np.array([0.5, -1.0, 2.0, 3.0], np.float32)
    draws = sample(hierarchy(backend), data=x, n_chains=2, n_draws=20, n_warmup=100)
    tree = pplebm.to_arviz(draws, n_predictive=None)
    got = group(tree, "conditional_log_likelihood")["x"]
    assert got.dims == ("chain", "draw", "data") and got.shape == (2, 20, 4)
    expected = -0.5 * ((x - draws["z"]) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(got.values, expected, rtol=1e-4, atol=1e-4)
    assert group(tree, "posterior")["z"].dims == ("chain", "draw", "data")
    assert predictive(draws)["x"].shape == (2, 20, 4)


def test_statistics_have_the_names_of_arviz(both):
    """Of a kernel with trajectories of its own: the longest counts, since the others of the batch wait for it."""
    posterior = copy.copy(both[0])
    steps = np.random.default_rng(0).integers(1, 9, posterior.stats["energy"].shape)
    posterior._stats = [posterior.stats | {"num_steps": steps, "step_size": 0.1 * steps}]
    stats = group(pplebm.to_arviz(posterior, n_predictive=2), "sample_stats")
    np.testing.assert_array_equal(stats["n_steps"], steps.max(2))
    np.testing.assert_allclose(stats["step_size"], 0.1 * steps.mean(2))
    np.testing.assert_array_equal(stats["n_steps_by_datum"], steps)
    if IS_OLD:
        assert (import_arviz().bfmi(pplebm.to_arviz(posterior, n_predictive=2)) > 0.3).all()


def test_what_cannot_be_exported_is_said(both):
    posterior, prior, _ = both
    for wrong, word in (({}, "give to_arviz"), ({"posterior": prior}, "prior"), ({"prior": posterior}, "no prior")):
        with pytest.raises(PplebmError, match=word):
            pplebm.to_arviz(**wrong)
    with pytest.raises(PplebmError, match="no log likelihood"):
        log_likelihood(prior)
    with pytest.raises(PplebmError, match="'q'"):
        prior["q"]


# --- diagnostics


def test_diagnosis_of_good_chains_and_of_bad_ones(both):
    program, params, _ = instance("pyro")
    good = diagnose(sample(program, params=params, n_chains=8, n_draws=1500, n_warmup=200), n_elsewhere=0)
    assert good.verdict == [] and good.nested_r_hat < 1.02 and {r.name for r in good.rows} >= {"z1[0]", "z2[1]"}
    slow = sample(program, langevin(0.02), params=params, n_chains=8, n_draws=100, n_warmup=0, init="normal")
    bad = diagnose(slow)
    assert bad.causes == ["trajectories"] and "R-hat" in bad.verdict[0] and "langevin walks" in bad.verdict[0]
    assert bad.acceptance is None and bad.bfmi is None
    steep = sample(program, langevin(30.0), X, params=params, n_chains=2, n_draws=10, n_warmup=0)
    assert diagnose(steep).n_divergent > 0 and "divergences" in diagnose(steep).causes
    with pytest.raises(PplebmError, match="at least 4"):
        diagnose(sample(program, n_draws=2, n_warmup=0))


def test_figures_are_those_of_arviz(both):
    arviz, posterior = import_arviz(), both[0]
    row = next(r for r in diagnose(posterior, n_elsewhere=0).rows if r.name == "z1[2,0]")
    x = posterior["z1"][:, :, 2, 0]
    assert row.r_hat == pytest.approx(float(arviz.rhat(x, method="rank")))
    assert row.ess_tail == pytest.approx(float(arviz.ess(x, method="tail", prob=(0.05, 0.95))))
    assert row.mean == pytest.approx(x.mean(), abs=1e-6)


def test_nested_r_hat_sees_what_superchains_disagree_on():
    rng = np.random.default_rng(0)
    short = rng.normal(size=(256, 2))
    assert abs(nested_r_hat(short, 16) - 1.0) < 0.06
    apart = short + 0.8 * np.repeat(rng.normal(size=(16, 1)), 16, 0)
    exact = np.sqrt(1 + (0.64 + 1 / 32) / 1.0)
    assert nested_r_hat(apart, 16) == pytest.approx(exact, rel=0.2)
    if not IS_OLD:
        longer, labels = rng.normal(size=(256, 4)), np.repeat(np.arange(16), 16)
        theirs = import_arviz().rhat_nested(longer, superchain_ids=labels, method="identity")
        assert nested_r_hat(longer, 16) == pytest.approx(float(theirs), rel=1e-6)
    for wrong in (1, 7, 256):
        with pytest.raises(PplebmError, match="superchains"):
            nested_r_hat(short, wrong)


# --- persistent chains


@pytest.mark.parametrize("backend", BACKENDS)
def test_buffers_hold_rows_and_count_runs(backend):
    program, params, _ = instance(backend)
    ppl = program.ppl
    held = persistent.buffer(program, ppl.key(0), params, 20)
    index = ppl.asarray(np.array([3, 11]))
    moved = {site: a + 1.0 for site, a in persistent.take_rows(held, index).items()}
    after = persistent.put_rows(ppl, held, index, moved)
    changed = (ppl.to_numpy(after.z["z1"]) != ppl.to_numpy(held.z["z1"])).any(1)
    assert np.flatnonzero(changed).tolist() == [3, 11] == np.flatnonzero(ppl.to_numpy(after.age)).tolist()
    rows = ppl.to_numpy(persistent.shared_rows(program, ppl.key(1), held, 15))
    assert len(set(rows.tolist())) == 15
    with pytest.raises(PplebmError, match="buffer of 20"):
        persistent.shared_rows(program, ppl.key(1), held, 21)


@pytest.mark.parametrize("backend", BACKENDS)
def test_persistent_chains_forget_their_start_and_rejuvenation_is_a_share(backend):
    """Many short visits reach the law of the tilted prior; one does not."""
    program, params, law = instance(backend)
    ppl, kernel = program.ppl, langevin(0.3)
    start = {"z1": ppl.asarray(np.full((2000, 3), 4.0)), "z2": ppl.asarray(np.full((2000, 2), 4.0))}
    held, index = persistent.buffer(program, ppl.key(0), params, 2000, start), ppl.asarray(np.arange(2000))

    def visit(key, held):
        z = persistent.take_rows(held, index)
        state, _ = chains.advance(program, key, kernel.init(ppl, z, None), params, None, kernel, 10)
        return persistent.put_rows(ppl, held, index, state.z)

    visit = ppl.compiled(visit)
    for i in range(30):
        held = visit(ppl.key(i), held)
    z = program.constrain(params, held.z)
    got = np.concatenate([ppl.to_numpy(z["z1"]), ppl.to_numpy(z["z2"])], 1)
    error = np.sqrt(np.diag(law().covariance) / 2000)
    assert (np.abs(got.mean(0) - law().mean) < 5 * error + 0.03).all() and float(held.age[0]) == 30
    fresh = persistent.rejuvenate(program, ppl.key(5), params, held.z, 2000, 0.3)
    share = (ppl.to_numpy(fresh["z2"]) != ppl.to_numpy(held.z["z2"])).any(1).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.21 / 2000)
    with pytest.raises(PplebmError, match="share"):
        persistent.rejuvenate(program, ppl.key(5), params, held.z, 2000, 1.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_warm_start_is_near_the_mode_of_every_posterior(backend):
    program, params, law = instance(backend, "centered")
    z = chains.warm_start(program, program.ppl.key(0), params, program.ppl.asarray(X), n_steps=1500, learning_rate=0.2)
    got = np.concatenate([program.ppl.to_numpy(z["z1"]), program.ppl.to_numpy(z["z2"])], 1)
    for i, x in enumerate(X):
        assert (np.abs(got[i] - law(x).mean) < 0.3 * np.sqrt(np.diag(law(x).covariance)) + 0.02).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_observed_sites_are_exported_as_the_program_makes_them_of_the_data(backend):
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.sample("length", ppl.dist.Normal(z, 1.0), obs=x[:, 0])
            ppl.sample("rest", ppl.dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=2.0 * x[:, 1:])

    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    program = pplebm.Program(model, data=ppl.asarray(x), backend=backend)
    tree = pplebm.to_arviz(sample(program, data=x, n_chains=2, n_draws=10, n_warmup=10))
    observed = group(tree, "observed_data")
    np.testing.assert_allclose(observed["length"].values, x[:, 0])
    np.testing.assert_allclose(observed["rest"].values, 2.0 * x[:, 1:])
    assert observed["length"].dims == ("data",) and observed["rest"].dims == ("data", "rest_dim_0")
    assert set(group(tree, "conditional_log_likelihood").data_vars) == {"length", "rest"}
