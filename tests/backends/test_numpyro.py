"""Plain NumPyro programs: networks of every kind, constraints, refusals, learning, and runs across languages."""

from __future__ import annotations

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

from pplebm.numpyro import tilt  # noqa: E402

X = np.linspace(-1, 1, 12).reshape(6, 2)


def generator(decode, log_factor):
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
            if log_factor is not None:
                tilt("tilt", log_factor()(z)[..., 0])
            numpyro.sample("x", dist.Normal(decode()(z), 0.3).to_event(1), obs=x)

    return model


def nnx_program():
    from flax import nnx
    from numpyro.contrib.module import nnx_module

    decoder = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    f = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(1)), nnx.tanh, nnx.Linear(4, 1, rngs=nnx.Rngs(2)))
    return generator(lambda: nnx_module("decoder", decoder), lambda: nnx_module("f", f))


def linen_program():
    from flax import linen
    from numpyro.contrib.module import flax_module

    return generator(
        lambda: flax_module("decoder", linen.Dense(2), input_shape=(1, 3)),
        lambda: flax_module("f", linen.Dense(1), input_shape=(1, 3)),
    )


def equinox_program():
    equinox = pytest.importorskip("equinox")
    from numpyro.contrib.module import eqx_module

    keys = jax.random.split(jax.random.key(0), 2)
    decoder = equinox.nn.Linear(3, 2, key=keys[0])
    f = equinox.nn.MLP(3, 1, width_size=4, depth=1, activation=jnp.tanh, key=keys[1])

    def mapped(name, net):
        return lambda: jax.vmap(eqx_module(name, net))

    return generator(mapped("decoder", decoder), mapped("f", f))


def plain_program():
    def weights(name, shape):
        w = numpyro.param(name, 0.3 * np.random.default_rng(0).normal(size=shape).astype("float32"))
        return lambda z: z @ w

    return generator(lambda: weights("decoder", (3, 2)), lambda: weights("f", (3, 1)))


@pytest.mark.parametrize("make", [nnx_program, linen_program, equinox_program, plain_program])
def test_networks_of_every_kind_learn(make, tmp_path):
    model = make()
    program = pplebm.Program(model, data=X, backend="numpyro")
    assert program.tilt_params and all(n.startswith("f") for n in program.tilt_params)
    assert program.prior_params == program.tilt_params and program.reached_params == set(program.params)
    small = {"batch_size": 8, "n_steps_posterior": 3, "n_steps_prior": 3}
    data = np.random.default_rng(0).normal(size=(40, 2))
    run = pplebm.fit(model, data, out=tmp_path / "run", updates=3, hyper=small, backend="numpyro")
    assert any((np.asarray(run.params[n]) != np.asarray(program.params[n])).any() for n in program.params)
    assert run.sample_data(5).shape == (5, 2) and run.anomaly_score(
        data[:4], score="log_joint", posterior="learned"
    ).shape == (4,)
    assert run.manifest.settings.backend == "numpyro"


def test_constrained_parameters_and_sites_carry_log_jacobian():
    def model(x):
        s = numpyro.param("s", jnp.asarray(2.0), constraint=dist.constraints.positive)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.LogNormal(0.3, s))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = pplebm.Program(model, data=np.zeros(3), backend="numpyro")
    assert float(program.params["s"]) == pytest.approx(np.log(2.0), abs=1e-6)
    grid = jnp.linspace(-30, 30, 6001)
    density = np.exp(np.asarray(program.log_prior(program.params, {"z": grid})))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-4)


def outside(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])
    tilt("f", z.sum())


def discrete(x):
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(k, 1.0), obs=x[:, 0])


def factor(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("g", z)
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def subsampled(x):
    with numpyro.plate("data", 1000, subsample_size=len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def wide(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        tilt("f", z[:, :1])
        numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def summed(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        tilt("f", z.sum())
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


REFUSED = {
    "tilt outside": (outside, "tilt 'f'.*outside the data plate"),
    "discrete": (discrete, "'k'.*discrete"),
    "factor": (factor, "'g' is a numpyro.factor"),
    "subsampling": (subsampled, "'data'.*subsampling"),
    "tilt (B, 1)": (wide, r"'f'.*\(5, 1\)"),
    "tilt scalar": (summed, r"'f'.*\(\).*\(5,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case):
    model, words = REFUSED[case]
    with pytest.raises(PplebmError, match=words):
        pplebm.Program(model, data=X, backend="numpyro")


OWN = """
import numpyro, numpyro.distributions as dist
from pplebm.numpyro import tilt

def model(x):
    w = numpyro.param("w", 0.5)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        tilt("f", w * z[:, 0], bound=4.0)
        numpyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)
"""


def test_a_file_of_ones_own_is_checked_fitted_and_opened_by_path(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    data = np.random.default_rng(0).normal(size=(80, 2))
    small = {"batch_size": 16, "n_steps_posterior": 3, "n_steps_prior": 3}
    report = pplebm.check(tmp_path / "own.py", data, hyper=small, backend="numpyro")
    assert report.ok, str(report)
    run = pplebm.fit(tmp_path / "own.py", data, out=tmp_path / "run", updates=2, hyper=small, backend="numpyro")
    (tmp_path / "own.py").unlink()
    again = pplebm.open_run(tmp_path / "run")
    np.testing.assert_array_equal(again.sample_data(3), run.sample_data(3))
    with pytest.raises(PplebmError, match="only gallery pages"):
        pplebm.open_run(tmp_path / "run", backend="pyro")


def test_state_frozen_by_compilation_is_noticed():
    calls = []

    def model(x):
        calls.append(1)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(len(calls) * z, 1.0), obs=x[:, 0])

    with pytest.raises(PplebmError, match=r"'x'.*two runs of the model at the same latents disagree"):
        pplebm.Program(model, data=X, backend="numpyro")


def test_a_run_of_one_language_opens_in_the_other(tmp_path):
    small = {"batch_size": 64, "n_steps_posterior": 3, "n_steps_prior": 3, "width": 16, "tilt_width": 8}
    ours = pplebm.fit("joint_ebm", "digits", out=tmp_path / "run", updates=2, hyper=small)
    theirs = pplebm.open_run(tmp_path / "run", backend="numpyro")
    z = ours.prior_latents(6)
    x = np.zeros((6, 8, 8))
    for f in ("log_joint", "log_prior"):
        data = (x,) if f == "log_joint" else ()
        a = getattr(ours.program, f)(ours.params, z, *map(ours.program.ppl.asarray, data))
        at = {n: jnp.asarray(v.numpy()) for n, v in z.items()}
        b = getattr(theirs.program, f)(theirs.params, at, *map(jnp.asarray, data))
        np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=1e-5)
    assert theirs.sample_data(3).shape == (3, 8, 8)


def test_learning_resumes_bit_for_bit(tmp_path):
    settings = {"batch_size": 64, "n_steps_posterior": 2, "n_steps_prior": 2, "width": 16, "tilt_width": 8}
    whole = pplebm.fit("latent_ebm", "digits", out=tmp_path / "a", updates=4, hyper=settings, backend="numpyro")
    again = pplebm.fit("latent_ebm", "digits", out=tmp_path / "b", updates=4, hyper=settings, backend="numpyro")
    for n in whole.params:
        np.testing.assert_array_equal(np.asarray(whole.params[n]), np.asarray(again.params[n]))
    continued = pplebm.fit("latent_ebm", "digits", out=tmp_path / "a", resume=True)
    assert continued.manifest.updates == 4


def test_a_backend_that_is_not_there_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pplebm.backends.numpyro", None)
    with pytest.raises(PplebmError, match=r"pip install 'pplebm\[numpyro\]'"):
        pplebm.bind("latent_ebm", "numpyro")
