"""Losses for the hosts' own SVI: gradients and optima in closed form, where the plain bound runs off."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch
import zoo
from numpyro import infer as ninfer
from pyro import infer

import pplebm
from pplebm.errors import PplebmError
from pplebm.interop import numpyro_svi, pyro_svi
from pplebm.numpyro import tilt

X = np.random.default_rng(3).normal(1.5, 1.2, size=400).astype(np.float32)
SIGMA, SCALE = 0.6, 0.8  # of the likelihood and of the base


def model(x):
    """The tilt makes the prior N(slope SCALE², SCALE²); slope is positive, so that constraints take part."""
    slope = pyro.param("slope", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, SCALE))
        pplebm.tilt("f", slope * z)
        pyro.sample("x", dist.Normal(z, SIGMA), obs=x)


def guide(x):
    location, width = pyro.param("location", torch.tensor(0.0)), pyro.param("width", torch.tensor(-0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(location + SCALE**2 / (SCALE**2 + SIGMA**2) * x, width.exp()))


def numpyro_model(x):
    slope = numpyro.param("slope", 0.5, constraint=ndist.constraints.positive)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ndist.Normal(0.0, SCALE))
        tilt("f", slope * z)
        numpyro.sample("x", ndist.Normal(z, SIGMA), obs=x)


def numpyro_guide(x):
    location, width = numpyro.param("location", 0.0), numpyro.param("width", -0.5)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", ndist.Normal(location + SCALE**2 / (SCALE**2 + SIGMA**2) * x, jnp.exp(width)))


def pyro_slope(plain, n_updates=500):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    x = torch.as_tensor(X)
    program = pplebm.Program(model, data=x)
    loss = infer.Trace_ELBO() if plain else pyro_svi.TiltedELBO(program, n_steps=80, num_particles=2)
    svi = infer.SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.995}), loss=loss)
    values = [svi.step(x) for _ in range(n_updates)]
    assert np.isfinite(values).all()
    return pyro.param("slope").item()


def numpyro_slope(plain, n_updates=500):
    x = jnp.asarray(X)
    program = pplebm.Program(numpyro_model, data=x, backend="numpyro")
    loss = ninfer.Trace_ELBO() if plain else numpyro_svi.TiltedELBO(program, n_steps=80, num_particles=2)
    rates = numpyro.optim.Adam(lambda i: 0.03 * 0.995**i)
    found = ninfer.SVI(numpyro_model, numpyro_guide, rates, loss=loss).run(
        jax.random.key(0), n_updates, x, progress_bar=False
    )
    return float(found.params["slope"])


@pytest.mark.parametrize("slope", [pyro_slope, numpyro_slope])
def test_svi_of_the_hosts_finds_the_maximum_of_the_likelihood(slope):
    """log p(x) = log N(x; slope SCALE², SCALE² + SIGMA²), whose maximum is at mean(x) / SCALE²."""
    exact = X.mean() / SCALE**2
    learned = slope(plain=False)
    error = SCALE / np.sqrt(len(X)) / SCALE**2  # the chains' ends of one update move their mean by SCALE / sqrt(400)
    assert abs(learned - exact) < 4 * error
    assert slope(plain=True) > 2 * exact, "the plain bound of a factor has no maximum"


def test_the_negative_phase_is_the_gradient_of_the_constant():
    """log Z = ½ slope² SCALE², a mean over 20,000 chains; the unconstrained parameter is log slope."""
    x, slope = torch.zeros(20_000), 0.5
    loss = pyro_svi.TiltedELBO(pplebm.Program(model, data=x[:5]), n_steps=150, step_size=0.3)
    leaf = torch.tensor(slope).log().requires_grad_()
    phase = loss._negative(7, {"slope": leaf}, len(x))
    phase.backward()
    value, found = phase.item(), leaf.grad.item()
    exact, error = slope * SCALE**2 * slope, slope * SCALE / np.sqrt(len(x))
    assert value == 0.0 and abs(found / len(x) - exact) < 4 * error

    program = pplebm.Program(numpyro_model, data=jnp.zeros(5), backend="numpyro")
    loss = numpyro_svi.TiltedELBO(program, n_steps=150, step_size=0.3)
    phase = lambda v: loss._negative(jax.random.key(2), {"slope": jnp.exp(v)}, len(x))
    value, found = jax.value_and_grad(phase)(jnp.log(slope))
    assert value == 0.0 and abs(found / len(x) - exact) < 4 * error


@pytest.mark.parametrize("weights", [3.0, "rows"])
def test_the_constant_counts_as_often_as_a_datum_does(weights):
    """Σ w log Z, for a number and for one a row."""
    x, slope = torch.zeros(20_000), 0.5
    w = np.random.default_rng(0).uniform(0.0, 4.0, len(x)) if weights == "rows" else np.full(len(x), weights)
    exact, error = w.sum() * slope * SCALE**2 * slope, slope * SCALE * np.sqrt((w**2).sum())
    of_site = {name: torch.as_tensor(w) if weights == "rows" else weights for name in ("z", "f")}
    phase = pyro_svi.TiltedELBO(pplebm.Program(model, data=x[:5]), n_steps=150, step_size=0.3)._negative
    leaf = torch.tensor(slope).log().requires_grad_()
    phase(7, {"slope": leaf}, len(x), of_site).backward()
    assert abs(leaf.grad.item() - exact) < 4 * error

    phase = numpyro_svi.TiltedELBO(
        pplebm.Program(numpyro_model, data=jnp.zeros(5), backend="numpyro"), n_steps=150, step_size=0.3
    )._negative
    of_site = {name: jnp.asarray(w) if weights == "rows" else weights for name in ("z", "f")}
    found = jax.grad(lambda v: phase(jax.random.key(2), {"slope": jnp.exp(v)}, len(x), of_site))(jnp.log(slope))
    assert abs(found - exact) < 4 * error


def test_differentiable_loss_has_the_gradients_of_a_step():
    pyro.clear_param_store()
    x = torch.as_tensor(X)
    loss = pyro_svi.TiltedELBO(pplebm.Program(model, data=x), n_steps=5)
    found = []
    for way in (loss.loss_and_grads, lambda *a: loss.differentiable_loss(*a).backward()):
        pyro.set_rng_seed(1)
        infer.Trace_ELBO().loss(model, guide, x)  # fills the store
        leaf = dict(pyro.get_param_store().named_parameters())["slope"]
        leaf.grad = None
        pyro.set_rng_seed(2)
        way(model, guide, x)
        found.append(leaf.grad.item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_another_model_than_the_program_is_refused():
    pyro.clear_param_store()
    loss = pyro_svi.TiltedELBO(pplebm.Program(model, data=torch.as_tensor(X)))
    other = lambda x: pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
    with pytest.raises(PplebmError, match="slope are not among those given"):
        infer.SVI(other, other, pyro.optim.Adam({}), loss=loss).step(torch.as_tensor(X))


def ragged(ppl, x, counts):
    """Two latents a datum, of which a mask counts some; the tilt has a constant that no single weight would give."""
    with ppl.plate("data", len(x), dim=-2):
        with ppl.plate("time", 2, dim=-1), ppl.mask(counts):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
        slope = ppl.param("slope", 0.1)
        ppl.tilt("f", slope * z.sum(-1, keepdims=True))
        ppl.sample("x", ppl.dist.Normal(z.sum(-1, keepdims=True), 1.0), obs=x)


def ragged_guide(ppl, x, counts):
    with ppl.plate("data", len(x), dim=-2), ppl.plate("time", 2, dim=-1), ppl.mask(counts):
        ppl.sample("z", ppl.dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("differs", [False, True])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_weights_that_differ_within_a_datum_are_refused(backend, differs, float64):
    """Also inside a compiled update, where they are known only as it runs."""
    x, counts = X[:4, None], np.array([[True, not differs], [False, False], [True, True], [True, True]])
    pyro.clear_param_store()
    ppl = zoo.host(backend)
    data = ppl.array(x.astype(float)), ppl.array(counts)
    model, guide = functools.partial(ragged, ppl), functools.partial(ragged_guide, ppl)
    whole = data[0], data[1] | True
    program = pplebm.Program(model, data=whole, backend=backend)

    def update():
        if backend == "pyro":
            loss = pyro_svi.TiltedELBO(program, n_steps=2)
            return infer.SVI(model, guide, pyro.optim.Adam({}), loss=loss).step(*data)
        svi = ninfer.SVI(model, guide, numpyro.optim.Adam(0.1), loss=numpyro_svi.TiltedELBO(program, n_steps=2))
        return float(jax.jit(svi.update)(svi.init(jax.random.key(0), *data), *data)[1])

    if differs:
        with pytest.raises((PplebmError, jax.errors.JaxRuntimeError), match="differ within a datum of site 'z'"):
            update()
    else:
        assert np.isfinite(update())
