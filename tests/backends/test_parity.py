"""The same page on both backends: equal densities, gradients and, with the same noise, equal learning."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from changes import hyper_of, of_data

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.pages import takes_columns
from pplebm.learning.algorithm import Algorithm
from pplebm.networks.layers import mlp
from pplebm.ppl.language import load_backend
from pplebm.ppl.trees import tree_leaves, tree_map

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

MODELS, ALGORITHMS = (
    (*(m for m in pplebm.models_available() if not takes_columns(pplebm.load(m))), "_template"),
    (*pplebm.inference_available(), "_template"),
)
SMALL = {
    "batch_size": 6,
    "n_annealed": 2,
    "n_leapfrog": 4,
    "n_steps_posterior": 3,
    "n_steps_prior": 3,
    "n_steps": 3,
    "updates": 2,
    "first_stage": 0.5,
}


@pytest.fixture(autouse=True)
def double(float64):
    """Double precision on both sides."""
    with jax.enable_x64(True):
        yield


def page(shelf, name):
    return importlib.import_module(f"pplebm.{shelf}.{name}")


# A page, or a page with other networks: (name, event shape, hyperparameters).
CASES = {name: (name, (4,), {}) for name in MODELS} | {
    "joint_ebm, convolutions": ("joint_ebm", (6, 9), {"decoder": "conv", "channels": 3}),
}


def programs(case, **hyper):
    name, shape, more = CASES[case]
    bound = [pplebm.bind(page("models", name), b, shape=shape, **(more | hyper)) for b in ("pyro", "numpyro")]
    return [pplebm.Program(model) for model in bound]


@pytest.fixture
def same_noise(monkeypatch):
    """The Pyro side draws with JAX's keys."""
    import pplebm.backends.numpyro as numpyro_side
    import pplebm.backends.pyro as pyro_side

    def normal_like(key, tree):
        as_jax = tree_map(lambda a: jnp.asarray(a.numpy()), tree)
        return tree_map(lambda a: torch.as_tensor(np.array(a)), numpyro_side.normal_like(key, as_jax))

    monkeypatch.setattr(pyro_side, "key", numpyro_side.key)
    monkeypatch.setattr(pyro_side, "split", numpyro_side.split)
    monkeypatch.setattr(pyro_side, "normal_like", normal_like)


def on(program, tree):
    return {name: program.ppl.asarray(a) for name, a in tree.items()}


def assert_densities_and_gradients_agree(both, shape, coordinates):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, *shape))
    z = {s.name: rng.normal(size=(6, *s.shape)) for s in both[0].latents}
    found = []
    for program in both:
        moving, ppl = program.with_coordinates(coordinates), program.ppl
        at = {"params": program.params, "z": on(program, z)}
        joint = ppl.value_and_grad(lambda t, p=moving: p.log_joint(t["params"], t["z"], p.ppl.asarray(x)), at)
        prior = ppl.value_and_grad(lambda t, p=moving: p.log_prior(t["params"], t["z"]), at)
        found.append({path: ppl.to_numpy(leaf) for path, leaf in tree_leaves((*joint, *prior))})
    assert both[0].params.keys() == both[1].params.keys()
    assert found[0].keys() == found[1].keys()
    for path, value in found[0].items():
        np.testing.assert_allclose(value, found[1][path], rtol=1e-12, atol=1e-12, err_msg=path)


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
@pytest.mark.parametrize("name", CASES)
def test_densities_and_gradients_agree_to_1e_12(name, coordinates):
    assert_densities_and_gradients_agree(programs(name), CASES[name][1], coordinates)


def coupled(ppl, net, hyper, x=None, n=None):
    """Two layers whose tilts are functions of both together."""
    normal = lambda mean, size, scale: ppl.dist.Normal(mean, scale).expand([size]).to_event(1)
    with ppl.plate("data", len(x) if n is None else n):
        z2 = ppl.sample("z2", normal(0.0, 2, 1.0))
        z1 = ppl.sample("z1", ppl.dist.Normal(net["below"](z2), 0.7).to_event(1))
        ppl.tilt("f", net["tilt"](ppl.concat([z1, z2], -1))[..., 0], bound=8.0)
        ppl.tilt("pair", -0.5 * (ppl.stack([z1[..., 0], z2[..., 0]], -1).sum(-1) - 1.0) ** 2)
        ppl.sample("x", ppl.dist.Normal(net["decoder"](z1), 0.3).to_event(1), obs=x)


COUPLED = SimpleNamespace(
    __name__="coupled",
    model=coupled,
    nets=lambda hyper, shape: {"below": mlp(2, 3, 8, 1), "tilt": mlp(5, 1, 8, 1), "decoder": mlp(3, shape, 8, 1)},
)


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_a_tilt_may_couple_layers(coordinates):
    both = []
    for backend in ("pyro", "numpyro"):
        program = pplebm.Program(load_backend(backend).bind(COUPLED, None, (4,), 0), backend=backend)
        both.append(program)
        assert "tilt.weight_0" in program.tilt_params and not program.prior_reads
    assert_densities_and_gradients_agree(both, (4,), coordinates)


@pytest.mark.parametrize("name", CASES)
def test_structure_and_initial_weights_agree(name):
    a, b = programs(name)
    assert a.latents == b.latents and a.observed == b.observed and a.tilts == b.tilts
    assert a.tilt_params == b.tilt_params and a.prior_params == b.prior_params
    assert a.tilt_bounds == b.tilt_bounds and a.plate == b.plate
    for n in a.params:
        np.testing.assert_array_equal(a.params[n].numpy(), np.asarray(b.params[n]))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CASES)
def test_two_learning_steps_agree_to_1e_10(name, algorithm, same_noise):
    if not getattr(page("models", CASES[name][0]), "TILTED", True) and algorithm != "variational_joint":
        pytest.skip("chains begin at draws of the prior, and every backend draws labels of a mixture in its own way")
    module, found = page("inference", algorithm), []
    if of_data(module) and not programs(name)[0].given:
        pytest.skip("the page refuses latents")
    x = np.random.default_rng(1).normal(size=(6, *CASES[name][1]))
    for program in programs(name):
        ppl = program.ppl
        owner = Algorithm(module, program, hyper_of(module, SMALL))
        try:
            state, step = owner.init(ppl.key(0), ppl.asarray(x)), ppl.compiled(owner.step)
            for i in range(2):
                state, info = step(ppl.key(i + 1), state, ppl.asarray(x))
        except PplebmError as error:  # what the page learns beside the model is about latents
            assert program.given and "none is left that" in str(error), error
            continue
        learned = dict(tree_leaves(state._replace(optimizer=())))
        found.append(({n: ppl.to_numpy(a) for n, a in learned.items() if hasattr(a, "shape")}, info))
    if not found:
        return
    (params, info), (other, other_info) = found
    for n in params:
        np.testing.assert_allclose(params[n], other[n], atol=1e-10, err_msg=n)
    assert info.keys() == other_info.keys()
    for n, value in info.items():
        np.testing.assert_allclose(float(value), float(other_info[n]), rtol=1e-8, atol=1e-10, err_msg=n)


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_coordinates_values_and_means_agree(coordinates):
    rng, found = np.random.default_rng(0), []
    both = programs("joint_ebm", latent_dims=(3, 2))
    z = {s.name: rng.normal(size=(6, *s.shape)) for s in both[0].latents}
    for program in both:
        moving = program.with_coordinates(coordinates)
        at, params = on(program, z), program.params
        other = "noncentered" if coordinates == "centered" else "centered"
        values = moving.constrain(params, at)
        back = moving.unconstrain(params, values)
        for n in z:
            np.testing.assert_allclose(program.ppl.to_numpy(back[n]), z[n], atol=1e-10)
        found.append(moving.move(params, at, other) | {f"value {n}": v for n, v in values.items()})
        found[-1] |= moving.predict(params, at)
    for n, a in found[0].items():
        np.testing.assert_allclose(a.numpy(), np.asarray(found[1][n]), atol=1e-12)
