"""Importance sampling by proposals: weights whose mean is known, bounds below it, and proposals that will not do."""

from itertools import pairwise

import numpy as np
import pytest
from conjugate import BACKENDS, X, exact_one_layer, instance, one_layer

import pplebm
from pplebm.errors import PplebmError
from pplebm.evidence.importance import importance_sampling, importance_weights, laplace, lower_bound
from pplebm.guides.guide import Guide
from pplebm.ppl.language import load_backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("proposal", ["laplace", "short run"])
def test_posteriors_of_the_hierarchy(backend, proposal):
    program, params, form = instance(backend)
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    exact = np.array([form(row).log_constant for row in x])
    found = importance_sampling(program, params, program.data(x), True, proposal=proposal, seed=2)
    off = (found.value - exact) / found.error
    assert found.is_trusted.all() and abs(off.mean()) < 4 / 50**0.5 and 0.6 < off.std() < 1.5
    assert found.error.max() < 0.1 and found.ess.min() > 200


def test_laplace_of_a_gaussian_is_its_posterior():
    program, params, form = instance("numpyro")
    law, why = laplace(program, params, program.data(X), True, True, 0)
    moved = program.with_coordinates("centered")
    z = {"z1": law.mean[:, :3].astype(np.float32), "z2": law.mean[:, 3:].astype(np.float32)}
    noncentered = program.with_coordinates("noncentered")
    value = noncentered.move(params, {k: program.ppl.asarray(v, keep=True) for k, v in z.items()}, "centered")
    mean = np.concatenate([program.ppl.to_numpy(value[k]) for k in ("z1", "z2")], 1)
    np.testing.assert_allclose(mean, [form(row).mean for row in X], atol=0.02)
    scale = np.exp(np.asarray(params["log_s"]))  # z1 = A z2 + b + s e1, so e1 = (z1 - A z2 - b) / s
    jacobian = np.block(
        [[np.diag(1 / scale), -np.asarray(params["A"]) / scale[:, None]], [np.zeros((2, 3)), np.eye(2)]]
    )
    expected = jacobian @ form(X[0]).covariance @ jacobian.T
    np.testing.assert_allclose(law.root[0] @ law.root[0].T, expected, rtol=0.05, atol=0.01)
    assert why == ("", "", "") and moved.coordinates == "centered"


def test_bounds_rise_to_the_constant():
    program, data = one_layer("numpyro")
    weights, _ = importance_weights(program, program.params, program.data(data), True, proposal="base",
                                    n_particles=8000)  # fmt: skip
    exact = sum(exact_one_layer(data))
    bounds = [lower_bound(weights, k) for k in (1, 10, 100)]
    for low, high in pairwise(bounds):
        assert (high[0] > low[0]).all()
    assert (bounds[-1][0] < exact + 3 * bounds[-1][1]).all()
    elbo = -0.5 * np.log(2 * np.pi * 0.36) - 0.5 * (1.0 + data["x"] ** 2) / 0.36  # E of f + log p(x|z) under N(0, 1)
    assert (abs(bounds[0][0] - elbo) < 4 * bounds[0][1]).all()
    with pytest.raises(PplebmError, match="no two groups"):
        lower_bound(weights, 5000)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_programs_guide_is_a_proposal(backend):
    host, (program, data) = load_backend(backend), one_layer(backend)

    def guide(x, c):
        with host.plate("data", len(x)):
            host.sample("z", host.dist.Normal((0.7 + x / 0.36) / (1 + 1 / 0.36), (1 / (1 + 1 / 0.36)) ** 0.5))

    guided = program.with_guide(Guide(program, guide))
    found = importance_sampling(guided, program.params, program.data(data), True, proposal="guide", n_particles=200)
    np.testing.assert_allclose(found.value, sum(exact_one_layer(data)), atol=1e-3)  # the guide is the posterior
    with pytest.raises(PplebmError, match="posteriors of its own program"):
        importance_sampling(guided, program.params, None, False, proposal="guide")


def test_priors_from_their_base():
    program, data = one_layer("numpyro", slope=0.9)
    found = importance_sampling(program, program.params, program.data(data), False, n_particles=4000)
    assert (abs(found.value - exact_one_layer(data, slope=0.9)[0]) < 4 * found.error).all()


def test_proposals_that_will_not_do():
    """From the base to a sharp posterior, k-hat is bad; a tilt that is convex at its maximum has no Laplace law."""
    program, data = one_layer("numpyro")
    sharp = program.data(data | {"x": np.full(4, 8.0, np.float32)})
    found = importance_sampling(program, program.params, sharp, True, proposal="base", n_particles=200)
    assert not found.is_trusted.any() and "k-hat" in found.reasons[0]
    host = load_backend("numpyro")

    def flat(x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            host.tilt("f", 0.5 * z[:, 0] ** 2)  # no curvature is left in one direction
            host.sample("x", host.dist.Normal(z[:, 1], 1.0), obs=x)

    program = pplebm.Program(flat, data=np.zeros(3, np.float32), backend="numpyro")
    found = importance_sampling(program, program.params, program.example, True, proposal="laplace")
    assert not found.is_trusted.any() and "not negative definite" in found.reasons[0]
    with pytest.raises(PplebmError, match="choose one of auto, base, laplace, short run, guide"):
        importance_sampling(program, program.params, program.example, True, proposal="Laplace")
