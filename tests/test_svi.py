"""Losses for the hosts' own SVI: gradients and optima in closed form, where the plain bound runs off."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch
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
