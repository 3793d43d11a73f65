"""What is asked of a run about its layers: laws of a linear model, and what must stay as it was."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

import pplebm
from pplebm.errors import PplebmError
from pplebm.ppl.trees import tree_map
from pplebm.runs.layers import between, decoded, hierarchy, traverse
from pplebm.runs.long_run import long_run

BACKENDS = ("pyro", "numpyro")


@pytest.fixture(scope="module", params=BACKENDS)
def run(request, tmp_path_factory):
    """The conjugate model after one update: tilted, its prior known."""
    few = {"batch_size": 8, "n_steps_posterior": 5, "prior.n_steps": 60, "prior.kernel": "mala"}
    out = tmp_path_factory.mktemp("layers") / request.param
    return tiny.fit(out, hyper=few, backend=request.param, inference="short_run_mle")


def numpy(run, z):
    return {name: run.program.ppl.to_numpy(a) for name, a in z.items()}


def law(run):
    """Mean and covariance of (z1, z2), and the weight that decodes z1 to the user's units."""
    page = pplebm.load("conjugate_tilt")
    params = tree_map(run.program.ppl.to_numpy, dict(run.params))
    found = page.closed_form(params, page.Hyper())
    scale = run.site_to_user("x", np.ones((1, 4))) - run.site_to_user("x", np.zeros((1, 4)))
    return found.mean, found.covariance, scale[0][:, None] * np.asarray(params["W"], float)


def test_layers_held_are_held_exactly_and_settle_the_share_that_is_known(run):
    found = hierarchy(run, n=150, n_redraws=12, seed=1, n_warmup=75, n_steps_redrawn=15)
    (upper, none), z = found.redrawn, numpy(run, found.latents)
    new = numpy(run, upper.latents)
    assert (upper.held, none.held) == (("z2",), ())
    np.testing.assert_array_equal(new["z2"], np.tile(z["z2"], (12, 1)))
    assert (np.abs(new["z1"] - np.tile(z["z1"], (12, 1))).max(1) > 0).all()
    assert upper.decoded.shape == none.decoded.shape == (150, 12, 4) and found.decoded.shape == (150, 4)
    np.testing.assert_array_equal(upper.decoded[3, 5], decoded(run, upper.latents)[5 * 150 + 3])
    _, covariance, weight = law(run)
    given = covariance[:3, :3] - covariance[:3, 3:] @ np.linalg.solve(covariance[3:, 3:], covariance[3:, :3])
    share = 1.0 - np.trace(weight @ given @ weight.T) / np.trace(weight @ covariance[:3, :3] @ weight.T)
    assert 0.1 < share < 0.95 and upper.share_error < 0.1
    assert abs(upper.share - share) < 4.5 * upper.share_error
    assert abs(none.share) < 1e-12 + 4.5 * none.share_error


def test_a_layer_alone_is_drawn_anew(run):
    found = hierarchy(run, n=3, n_redraws=2, free="only", n_warmup=25, n_steps_redrawn=3)
    z = numpy(run, found.latents)
    assert [part.held for part in found.redrawn] == [("z2",), ("z1",), ()]
    below = found.redrawn[1]
    np.testing.assert_array_equal(numpy(run, below.latents)["z1"], np.tile(z["z1"], (2, 1)))
    np.testing.assert_array_equal(below.decoded[:, 0], below.decoded[:, 1])  # z2 speaks to the data through z1 alone
    assert below.share == pytest.approx(1.0)


def test_a_traversal_changes_its_own_latent_alone_and_reaches_the_quantiles(run):
    draws = run.prior_latents(4000, seed=3)
    start = numpy(run, run.program.move(run.params, draws, "noncentered"))
    found = traverse(run, "z2", [1], n=2, quantiles=(0.25, 0.5, 0.9), latents=draws)
    moved = {name: a.reshape(3, 2, -1) for name, a in numpy(run, found.latents).items()}
    np.testing.assert_array_equal(moved["z1"], np.broadcast_to(start["z1"][:2], (3, 2, 3)))
    np.testing.assert_array_equal(moved["z2"][..., 0], np.broadcast_to(start["z2"][:2, 0], (3, 2)))
    np.testing.assert_allclose(moved["z2"][..., 1], np.broadcast_to(found.values[0][:, None], (3, 2)), rtol=1e-6)
    mean, covariance, weight = law(run)  # the top layer is the same in both coordinates
    sd = covariance[4, 4] ** 0.5
    exact = mean[4] + sd * np.array([-0.6745, 0.0, 1.2816])
    density = np.exp(-0.5 * np.array([0.6745, 0.0, 1.2816]) ** 2) / np.sqrt(2.0 * np.pi)
    error = sd * np.sqrt(np.array([0.25 * 0.75, 0.25, 0.09]) / 4000) / density  # of a quantile of 4000 draws
    assert (np.abs(found.values[0] - exact) < 4.5 * error).all()
    a = run.program.ppl.to_numpy(run.params["A"]).astype(float)
    slope = (found.decoded[0, 2] - found.decoded[0, 0]) / (found.values[0, 2] - found.values[0, 0])
    np.testing.assert_allclose(slope, np.broadcast_to(weight @ a[:, 1], (2, 4)), rtol=2e-3, atol=2e-4)
    change = np.sqrt(found.values[0].var() * ((weight @ a[:, 1]) ** 2).mean())
    np.testing.assert_allclose(found.change, [change], rtol=2e-3)


def test_long_chains_have_the_energy_of_the_prior_and_its_level(run):
    found = long_run(run, n_steps=200, shown=[0, 60, 200], n_chains=400, n_shown=2, seed=2)
    assert found.steps.tolist() == list(range(0, 201, 20)) and found.learned == 60
    assert found.strip_steps.tolist() == [0, 60, 200] and found.strip.shape == (3, 2, 4)
    np.testing.assert_allclose(found.energy, -(found.log_base + found.tilt), rtol=1e-4, atol=1e-4)
    covariance = law(run)[1]
    params = tree_map(lambda a: run.program.ppl.to_numpy(a).astype(float), dict(run.params))
    jacobian = params["log_s"].sum()  # the chains move in noncentered coordinates
    page = pplebm.load("conjugate_tilt")
    constant = page.closed_form(params, page.Hyper()).log_constant
    level = 2.5 + 0.5 * np.linalg.slogdet(2.0 * np.pi * covariance)[1] - jacobian - constant  # d/2 nats above the mode
    last = found.energy[-1]
    assert abs(last.mean() - level) < 4.5 * np.sqrt(2.5 / 400)  # half a chi square of 5 degrees of freedom
    assert abs(found.level[0] - level) < 0.3 and found.level[0] != level


def test_ways_lead_from_one_datum_to_the_other(run):
    found = between(run, tiny.data()[:2], n_points=9, seed=4)
    moving = run.program.with_coordinates("noncentered")
    for way in found.values():
        energy = -run.program.ppl.to_numpy(moving.log_prior(run.params, way.latents))
        np.testing.assert_allclose(way.energies.energy, energy, rtol=1e-5)
        assert way.decoded.shape == (9, 4)
    ends = [{name: a[[0, -1]] for name, a in numpy(run, way.latents).items()} for way in found.values()]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    assert found["prior"].length < 1.0 and found["straight"].length == 1.0
    free = between(run, n_points=3, seed=1)
    assert len(free["prior"].latents["z1"]) == 3


def test_covariates_have_their_rows(tmp_path):
    import torch

    def model(c, x):
        import pyro
        import pyro.distributions as dist

        with pyro.plate("data", len(c)):
            z2 = pyro.sample("z2", dist.Normal(c, 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2, 0.5))
            pplebm.tilt("f", -0.5 * z1**2)
            pyro.sample("x", dist.Normal(z1 + pyro.param("w", torch.tensor(1.0)), 0.5), obs=x)

    rng = np.random.default_rng(0)
    rows = {"c": np.linspace(-3.0, 3.0, 30).astype(np.float32), "x": rng.normal(size=30).astype(np.float32)}
    run = pplebm.fit(model, rows, out=tmp_path / "run", updates=1, compiled=False, progress=False,
                     hyper={"batch_size": 8, "n_steps_posterior": 1, "prior.n_steps": 10})  # fmt: skip
    given = {name: a[[0, 15, 29]] for name, a in rows.items()}
    found = hierarchy(run, n_redraws=200, given=given, n_warmup=50, n_steps_redrawn=10)
    held = np.asarray(found.latents["z2"])
    centre = found.redrawn[0].decoded.mean(1) - decoded(run, {k: 0 * v for k, v in found.latents.items()})[0]
    np.testing.assert_allclose(centre, held / 0.25 / (1.0 / 0.25 + 1.0), atol=4.5 * np.sqrt(0.2 / 200))
    assert traverse(run, "z2", given=given, quantiles=(0.5,)).decoded.shape == (1, 1, 3)
    with pytest.raises(PplebmError, match="reads the covariates c"):
        traverse(run, "z2")
    with pytest.raises(PplebmError, match="reads the covariates c"):
        long_run(run, 10)
    with pytest.raises(PplebmError, match="no way between them"):
        between(run)
    assert long_run(run, 10, n_shown=2, given=given).energy.shape == (2, 3)


def test_what_cannot_be_asked_is_refused_by_name(run, tmp_path):
    for question, words in {
        lambda: hierarchy(run, free="above"): "free 'above' is not known; choose one of below, only",
        lambda: hierarchy(run, n=1): "variances need two draws",
        lambda: hierarchy(run, 40, latents=run.prior_latents(5)): "takes 360 draws or more .* got 5",
        lambda: traverse(run, "z9"): "no latent site 'z9'; there are z2, z1",
        lambda: traverse(run, "z2", [2]): r"'z2' has latents 0 to 1; got index=\[2\]",
        lambda: traverse(run, "z2", quantiles=(0.0,)): "between 0 and 1",
        lambda: long_run(run, 10, [20]): "steps from 0 to n_steps=10",
        lambda: between(run, tiny.data()[:3]): "got 3 data",
    }.items():
        with pytest.raises(PplebmError, match=words):
            question()
    small = {**tiny.FEW, "latent_dim": 2, "width": 4, "tilt_width": 4}
    one = tiny.fit(tmp_path / "one", model="latent_ebm", hyper=small)
    with pytest.raises(PplebmError, match="one layer of latents, 'z1'"):
        hierarchy(one)
