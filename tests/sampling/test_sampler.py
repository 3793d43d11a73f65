"""`pplebm.sample`: the law of its draws, many data at once, interruption, and what it keeps."""

from __future__ import annotations

import json

import numpy as np
import pyro
import pytest
import torch
from conjugate import BACKENDS, X, hierarchy, instance
from safetensors.numpy import save_file
from scipy import stats

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.kernels.hmc import hmc
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.tempering import parallel_tempering
from pplebm.kernels.underdamped import underdamped
from pplebm.ppl.language import load_backend
from pplebm.sampling import job as sampling
from pplebm.sampling.sampler import sample, sample_prior


def in_order(draws):
    """(chains, draws, ..., 5): z1 and z2 side by side."""
    return np.concatenate([draws["z1"], draws["z2"]], -1)


def assert_moments(x, law, sigmas=5.0):
    """Means and variances of (chains, draws, d) within `sigmas` of their error, by the means of the chains."""
    for values, exact in ((x, law.mean), ((x - law.mean) ** 2, np.diag(law.covariance))):
        by_chain = values.mean(1)
        error = by_chain.std(0, ddof=1) / np.sqrt(len(by_chain))
        assert (np.abs(by_chain.mean(0) - exact) < sigmas * error).all()
        assert (error < 0.1 * np.sqrt(np.diag(law.covariance)) + 0.05 * np.abs(exact)).all()  # it says something


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coordinates", ["noncentered", "centered"])
@pytest.mark.parametrize("make", [hmc, mala], ids=["hmc", "mala"])
def test_prior_and_every_posterior_against_the_closed_form(backend, coordinates, make):
    """Adapted by datum, in both coordinates: the same law."""
    program, params, law = instance(backend, coordinates)
    settings = {"n_chains": 40, "n_draws": 200, "n_warmup": 150, "params": params, "thin": 1 if make is hmc else 4}
    prior = sample_prior(program, make(), **settings)
    assert in_order(prior).shape == (40, 200, 5)
    assert_moments(in_order(prior), law())
    posterior = sample(program, make(), X, **settings)
    assert in_order(posterior).shape == (40, 200, 3, 5)
    for i, x in enumerate(X):
        assert_moments(in_order(posterior)[:, :, i], law(x))
    assert posterior.n_divergent == 0 and 0.4 < posterior.stats["accept_prob"].mean() < 0.97


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_tilt_is_noticed(backend):
    """The test above fails for the base, whose tilt is ignored."""
    program, params, law = instance(backend)
    base = program.constrain(params, program.draw_base(program.ppl.key(0), 4000, params))
    rows = np.concatenate([program.ppl.to_numpy(base["z1"]), program.ppl.to_numpy(base["z2"])], -1)
    with pytest.raises(AssertionError):
        assert_moments(rows.reshape(40, 100, 5), law())


def constrained(backend):
    """Tilted supports: a half line, an interval, a simplex."""
    host = load_backend(backend)

    def model(x):
        with host.plate("data", len(x)):
            g = host.sample("g", host.dist.Gamma(3.0, 2.0))
            b = host.sample("b", host.dist.Beta(2.0, 3.0))
            d = host.sample("d", host.dist.Dirichlet(host.asarray([2.0, 1.0, 3.0])))
            host.tilt("f", -1.0 * g + 2.0 * (b * 0.0) + 1.0 * d[..., 0] * 0.0)
            host.sample("x", host.dist.Normal(g, 1e3), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constrained_supports(backend):
    """Gamma(3, 2) tilted by -g is Gamma(3, 3); the others keep their laws."""
    program = constrained(backend)
    draws = sample(program, n_chains=100, n_draws=60, n_warmup=150, thin=2)
    laws = {"g": stats.gamma(3, scale=1 / 3), "b": stats.beta(2, 3)}
    for name, law in laws.items():
        for power in (1, 2, 3):
            means = (draws[name] ** power).mean(1)
            assert abs(means.mean() - law.moment(power)) < 5 * means.std(ddof=1) / 10
    assert draws["d"].shape == (100, 60, 3) and np.allclose(draws["d"].sum(-1), 1, atol=1e-5)
    means = draws["d"].mean(1)
    assert (np.abs(means.mean(0) - np.array([2, 1, 3]) / 6) < 5 * means.std(0, ddof=1) / 10).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_global_and_local_latents_together(backend, coordinates):
    x = np.array([0.5, -1.0, 2.0, 3.0])
    program = hierarchy(backend).with_coordinates(coordinates)
    draws = sample(program, None, x, n_chains=40, n_draws=150, n_warmup=200)
    assert draws["mean"].shape == (40, 150) and draws["z"].shape == (40, 150, 4)
    prior = np.block(
        [[np.array([[4.0]]), np.full((1, 4), 4.0)], [np.full((4, 1), 4.0), np.full((4, 4), 4.0) + np.eye(4)]]
    )
    gain = prior[:, 1:] @ np.linalg.inv(prior[1:, 1:] + 0.25 * np.eye(4))
    mean, covariance = 1.0 + gain @ (x - 1.0), prior - gain @ prior[1:]
    rows = np.concatenate([draws["mean"][..., None], draws["z"]], -1)
    by_chain = rows.mean(1)
    assert (np.abs(by_chain.mean(0) - mean) < 5 * by_chain.std(0, ddof=1) / np.sqrt(40)).all()
    squares = ((rows - mean) ** 2).mean(1)
    assert (np.abs(squares.mean(0) - np.diag(covariance)) < 5 * squares.std(0, ddof=1) / np.sqrt(40)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_matrix_without_factor_is_one_chains_trouble(backend):
    """Covariances (1, c; c, 1): beyond c = 1 there is none, and the law of c ends there."""
    host = load_backend(backend)

    def model(x):
        c = host.sample("c", host.dist.Normal(0.0, 1.0))
        corner = host.asarray(np.array([[0.0, 1.0], [1.0, 0.0]]))
        covariance = host.asarray(np.eye(2)) + 0.3 * c * corner
        host.sample("x", host.dist.MultivariateNormal(host.asarray(np.zeros(2)), covariance), obs=x)

    program = pplebm.Program(model, data=np.array([0.1, 0.2], np.float32), backend=backend)
    z = {"c": program.ppl.asarray(np.array([0.5, 9.0, -1.0]))}
    value = program.ppl.to_numpy(program.log_joint(program.params, z, program.ppl.asarray([0.1, 0.2])))
    assert np.isfinite(value).tolist() == [True, False, True]
    draws = sample(program, hmc(4), np.array([0.1, 0.2]), n_chains=8, n_draws=100, n_warmup=100)
    assert np.abs(draws["c"]).max() < 1 / 0.3 + 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_scales_that_differ_by_ten_thousand_are_adapted_to(backend):
    host, scales = load_backend(backend), np.array([1e-2, 1.0, 1e2], np.float32)

    def model(x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(host.asarray(np.zeros(3)), host.asarray(scales)).to_event(1))
            host.sample("x", host.dist.Normal(z[..., 0], 1e6), obs=x)

    program = pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)
    draws = sample(program, init="normal", n_chains=8, n_draws=300, n_warmup=400)
    found = pplebm.diagnose(draws)
    assert not [s for s in found.verdict if "R-hat" in s and found.rows[0].r_hat > 1.02]
    by_chain = (draws["z"] / scales).std(1)
    assert (np.abs(by_chain.mean(0) - 1) < 0.1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_tempering_draws_from_both_modes(backend):
    host = load_backend(backend)

    def model(x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 3.0))
            host.tilt("f", -0.08 * (z**2 - 16.0) ** 2)
            host.sample("x", host.dist.Normal(0.1 * z, 1.0), obs=x)

    program = pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)
    grid = np.linspace(-9, 9, 20_001)
    x = np.array([0.0, 0.5], np.float32)
    kernel = parallel_tempering(hmc(5, 0.3), (0.0, 0.02, 0.1, 0.4, 1.0))
    draws = sample(program, kernel, x, n_chains=60, n_draws=400, n_warmup=100, extra_fields=("is_swapped",))
    assert draws["z"].shape == (60, 400, 2) and draws.stats["is_swapped"].mean() > 0.1
    for i, datum in enumerate(x):
        log_density = -(grid**2) / 18 - 0.08 * (grid**2 - 16) ** 2 - 0.5 * (datum - 0.1 * grid) ** 2
        weights = np.exp(log_density - log_density.max())
        share = weights[grid > 0].sum() / weights.sum()
        by_chain = (draws["z"][:, :, i] > 0).mean(1)
        assert abs(by_chain.mean() - share) < 5 * by_chain.std(ddof=1) / np.sqrt(60)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", [1, 7], ids=["in warm-up", "in the draws"])
def test_interrupted_saved_and_resumed_is_the_same(backend, where, monkeypatch, tmp_path):
    program, params, _ = instance(backend)
    call = lambda **more: sample(
        program, mala(), X, params=params, n_chains=2, n_draws=50, n_warmup=150, thin=2, **more
    )  # fmt: skip
    monkeypatch.setattr(sampling, "DRAWS_PER_BLOCK", 10)
    whole, advance, done = call(), sampling.Job.advance, []

    def stopped(job, draws, block):
        if len(done) == where:
            raise KeyboardInterrupt
        done.append(block)
        advance(job, draws, block)

    monkeypatch.setattr(sampling.Job, "advance", stopped)
    with pytest.warns(PplebmWarning, match="resume="):
        part = call()
    monkeypatch.setattr(sampling.Job, "advance", advance)
    part.save(tmp_path / "draws.safetensors")
    assert part.n_draws < 50
    rest = call(resume=tmp_path / "draws.safetensors")
    for name in ("z1", "z2"):
        np.testing.assert_array_equal(rest[name], whole[name])
    np.testing.assert_array_equal(rest.stats["energy"], whole.stats["energy"])
    with pytest.raises(PplebmError, match="thin=2"):
        sample(program, mala(), X, params=params, n_chains=2, n_draws=50, n_warmup=150, resume=part)
    with pytest.raises(PplebmError, match="other data"):
        sample(
            program, mala(), X + 1.0, params=params, n_chains=2, n_draws=50, n_warmup=150, thin=2,
            resume=tmp_path / "draws.safetensors",
        )  # fmt: skip


def test_draws_of_another_version_are_refused(tmp_path):
    """Whose plan had other fields."""
    program, path = instance("pyro")[0], tmp_path / "draws.safetensors"
    save_file({}, path, metadata={"draws": json.dumps({"plan": {"key": 0, "extra_fields": []}})})
    with pytest.raises(PplebmError, match="another version"):
        sample_prior(program, n_draws=1, n_warmup=0, resume=path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extra_fields_and_thinning(backend):
    program, params, _ = instance(backend)
    kernel = underdamped(0.3)
    every = sample(program, kernel, X, params=params, n_chains=2, n_draws=30, n_warmup=0,
                            extra_fields=("momentum",))  # fmt: skip
    third = sample(program, kernel, X, params=params, n_chains=2, n_draws=10, n_warmup=0, thin=3)
    np.testing.assert_allclose(third["z1"], every["z1"][:, 2::3], rtol=1e-5, atol=1e-6)
    assert every.stats["momentum/z1"].shape == (2, 30, 3, 3) and every.stats["is_divergent"].dtype == bool
    with pytest.raises(PplebmError, match=r"'accept_prob'.*is_divergent"):
        sample(program, langevin(0.1), X, extra_fields=("accept_prob",))


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"n_chains": 0}, "n_chains"), ({"n_draws": 0}, "n_draws"), ({"n_warmup": -1}, "n_warmup"),
     ({"thin": 0}, "thin"), ({"init": "guess"}, "init"), ({"n_draws": 2.5}, "n_draws")],
)  # fmt: skip
def test_bad_arguments_are_named(settings, word):
    program, _, _ = instance("pyro")
    with pytest.raises(PplebmError, match=word):
        sample(program, **settings)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kernels_that_differ_in_scale_alone_are_told_apart(backend):
    """One program, sampled twice without adaptation: what is kept compiled is not the other kernel's."""
    program, params, _ = instance(backend)
    scales = {}
    for scale in (1.0, 0.25):
        draws = sample(program, mala(0.1, scale), params=params, n_draws=1, n_warmup=0)
        scales[scale] = float(program.ppl.to_numpy(draws.state.scale["z1"]).max())
    assert scales == {1.0: 1.0, 0.25: 0.25}


def test_given_starts_are_where_chains_start():
    program, params, _ = instance("pyro")
    start = {"z1": program.ppl.asarray(np.full((6, 3), 7.0)), "z2": program.ppl.asarray(np.full((6, 2), 7.0))}
    draws = sample(program, langevin(1e-4), X, params=params, init=start, n_chains=2, n_draws=1, n_warmup=0)
    assert np.abs(draws.latents["z1"] - 7.0).max() < 0.01
    with pytest.raises(PplebmError, match="z1"):
        sample(program, data=X, init={"z1": start["z1"][:2], "z2": start["z2"]}, n_chains=2)


@pytest.mark.parametrize("kernel", [None, hmc()], ids=["default", "hmc"])
def test_chains_keep_the_precision_of_their_latents_where_data_have_another(kernel):
    def model(y):
        b = pyro.sample("b", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", pyro.distributions.Normal((torch.ones(len(y), 2) @ b), 1.0), obs=y)

    y = np.random.default_rng(0).normal(size=20)  # double precision, as NumPy makes it
    draws = pplebm.sample(pplebm.Program(model, data=y), kernel, y, n_warmup=30, n_draws=10, progress=False)
    assert draws["b"].dtype == draws.stats["log_density"].dtype == np.float32
