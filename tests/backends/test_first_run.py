"""How a NumPyro program is made: by few compilations, and as a plain run would make it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

from pplebm.numpyro import tilt  # noqa: E402

X = np.random.default_rng(0).normal(size=(23, 7)).astype("float32")  # shapes of no other test
FEW = 40  # operations one by one would be more than a hundred


def made(model, x=X):
    return pplebm.Program(model, data=x, backend="numpyro")


@functools.cache
def compilations():
    """Names of what JAX has compiled since the first call."""
    found = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: found.append(name) if name.endswith("backend_compile_duration") else None
    )
    return found


def test_a_program_is_made_by_few_compilations():
    def model(x):
        w = numpyro.param("w", jnp.ones(7))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
            s = numpyro.sample("s", dist.HalfNormal(1.0))
            tilt("f", -0.1 * jnp.tanh(w * z).sum(-1))
            numpyro.deterministic("mean", jnp.exp(-(z**2)) * w)
            numpyro.sample("x", dist.StudentT(4.0, jnp.sin(z), s[:, None]).to_event(1), obs=x)

    seen = compilations()
    before = len(seen)
    program = made(model)
    assert 0 < len(seen) - before < FEW
    before = len(seen)
    program.check_data(program.data(X))
    z = program.draw_base(jax.random.key(0), 23)
    program.predict(program.params, z, jax.random.key(1), program.data(X))
    assert len(seen) - before < FEW


def test_what_a_model_keeps_of_its_first_run_are_numbers():
    """A cache that a model fills as it runs would hold tracers, if it were only compiled."""

    @functools.cache
    def grid():
        return jnp.linspace(0.5, 1.5, 7)

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, grid()).to_event(1))
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    program = made(model)
    z = program.draw_base(jax.random.key(0), 23)
    expected = dist.Normal(0.0, np.linspace(0.5, 1.5, 7)).log_prob(z["z"]).sum(-1)
    np.testing.assert_allclose(program.log_prior(program.params, z), expected, rtol=1e-5)


def test_arguments_out_of_range_are_told_as_the_backend_tells_them():
    def model(x):
        scale = numpyro.param("scale", jnp.ones(7)) - 2.0
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
            numpyro.sample("x", dist.Normal(z, scale * x**2).to_event(1), obs=x)

    with pytest.raises(PplebmError, match="Normal distribution got invalid scale parameter"):
        made(model)


def test_arguments_that_leave_their_range_later_are_told_as_well():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
            numpyro.sample("x", dist.Normal(z, numpyro.param("scale", jnp.ones(7))).to_event(1), obs=x)

    program = made(model)
    z = program.draw_base(jax.random.key(0), 23)
    assert np.isfinite(program.predict(program.params, z)["x"]).all()
    with pytest.raises(PplebmError, match="invalid scale parameter"):
        program.predict({"scale": -jnp.ones(7)}, z)
