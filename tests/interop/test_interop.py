"""Our kernels inside the hosts' MCMC, point by point of their contracts, and the hosts' NUTS on tilted programs."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpyro.infer import MCMC as NumPyroMCMC
from numpyro.infer import NUTS as NumPyroNUTS
from numpyro.infer import Gibbs
from pyro.infer import HMC, MCMC, NUTS

import pplebm
from pplebm.errors import PplebmError
from pplebm.interop import numpyro as in_numpyro
from pplebm.interop import pyro as in_pyro

SETTINGS = {
    "Langevin": {"step_size": 0.4}, "Underdamped": {"step_size": 0.4}, "MALA": {}, "JitteredHMC": {"n_leapfrog": 4},
    "Anisotropic": {"step_size": 0.4, "threshold": 3.0}, "AdjustedAnisotropic": {"step_size": 0.4, "threshold": 3.0},
}  # fmt: skip


def tilted():
    """z ~ N(0, 1) tilted by 3z is N(3, 1); w > 0 is untouched."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.factor("f", 3.0 * z[0])
    pyro.sample("w", dist.Exponential(1.0))


def tilted_numpyro():
    z = numpyro.sample("z", ndist.Normal(np.zeros(2), 1.0).to_event(1))
    numpyro.factor("f", 3.0 * z[0])
    w = numpyro.sample("w", ndist.Exponential(1.0))
    numpyro.deterministic("twice", 2.0 * w)


def close(draws, exact, ess, sigmas=5.0):
    assert abs(draws.mean() - exact) < sigmas * draws.std() / np.sqrt(ess), (draws.mean(), exact)


# --- Pyro


@pytest.mark.parametrize("name", SETTINGS)
def test_pyro_mcmc_runs_each_kernel(name):
    pyro.set_rng_seed(1)
    mcmc = MCMC(getattr(in_pyro, name)(tilted, **SETTINGS[name]), 300, 200, num_chains=1, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples()
    assert draws["z"].shape == (300, 2) and (draws["w"] > 0).all()
    close(draws["z"][:, 0].numpy(), 3.0, 15)
    found = mcmc.diagnostics()
    assert set(found) >= {"z", "w", "divergences", "acceptance rate"} and found["divergences"]["chain 0"] == []
    mcmc.summary()


def test_pyro_chains_start_apart_forget_each_other_and_adapt_again():
    """The same instance, as Pyro's sequential sampler uses it."""
    pyro.set_rng_seed(2)
    kernel, starts, sizes = in_pyro.MALA(tilted), [], []
    for _ in range(2):
        kernel.setup(30)
        params = dict(kernel.initial_params)
        starts.append(params["z"])
        for _ in range(50):
            params = kernel.sample(params)
        assert kernel._t == 50 and all(isinstance(v, str) for v in kernel.logging().values())
        assert kernel.diagnostics()["acceptance rate"] > 0.2
        sizes.append(float(kernel._state.inner.step_size[0]))
        kernel.cleanup()
        kernel.cleanup()
    assert not torch.equal(*starts) and sizes[0] != sizes[1] and 0.5 not in sizes


def test_pyro_keeps_the_users_start_and_survives_pickling():
    kernel = in_pyro.Langevin(tilted, step_size=1e-4)
    kernel.initial_params = {"z": torch.full((2,), 9.0), "w": torch.tensor(0.0)}
    kernel.setup(0)
    assert kernel.initial_params["z"][0] == 9.0
    kernel.setup(0)
    assert kernel.initial_params["z"][0] == 9.0 and kernel.transforms is not None
    buffer = io.BytesIO()
    pickle.dump(kernel, buffer)
    other = pickle.loads(buffer.getvalue())
    other.setup(0)
    moved = other.sample(other.initial_params)
    assert (moved["z"] - 9.0).abs().max() < 0.01 and not moved["z"].requires_grad


def test_pyro_potential_fn():
    pyro.set_rng_seed(0)
    kernel = in_pyro.JitteredHMC(potential_fn=lambda z: 0.5 * ((z["u"] - 2.0) ** 2).sum())
    mcmc = MCMC(kernel, 300, 100, initial_params={"u": torch.zeros(3)}, disable_progbar=True)
    mcmc.run()
    close(mcmc.get_samples()["u"][:, 0].numpy(), 2.0, 100)
    with pytest.raises(PplebmError, match="one of them"):
        in_pyro.MALA()
    with pytest.raises(PplebmError, match="step_size"):
        in_pyro.MALA(tilted, step_size=-1.0)


def gallery(n=2):
    """A tilted page whose posterior is known, and data."""
    page = pplebm.load("conjugate_tilt")
    return page, np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda m: NUTS(m), lambda m: HMC(m, step_size=0.1, num_steps=8)], ids=["NUTS", "HMC"])
def test_pyros_own_kernels_sample_a_tilted_program(make):
    page, x = gallery()
    model = pplebm.bind("conjugate_tilt", "pyro", shape=(4,), d1=2, d2=1)
    program = pplebm.Program(model)
    params = {name: p.detach().numpy() for name, p in program.params.items()}
    pyro.set_rng_seed(0)
    mcmc = MCMC(make(model), 250, 150, disable_progbar=True)
    mcmc.run(torch.as_tensor(x))
    exact = page.closed_form(params, page.Hyper(d1=2, d2=1), x[1])
    close(mcmc.get_samples()["z1"][:, 1, 0].numpy(), exact.mean[0], 40)


# --- NumPyro


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("ignore:Some donated buffers")  # of NumPyro, with its own HMC as well
@pytest.mark.parametrize("method", ["vectorized", "sequential", jax.vmap], ids=["vectorized", "sequential", "vmap"])
def test_numpyro_mcmc_runs_each_kernel(name, method):
    kernel = getattr(in_numpyro, name)(tilted_numpyro, **SETTINGS[name])
    mcmc = NumPyroMCMC(
        kernel, num_warmup=150, num_samples=100, num_chains=4, chain_method=method, thinning=2, progress_bar=False
    )
    mcmc.run(jax.random.key(0), extra_fields=("potential_energy", "accept_prob", "step_size"))
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["z"].shape == (4, 50, 2) and (draws["w"] > 0).all()
    np.testing.assert_allclose(draws["twice"], 2 * draws["w"], rtol=1e-6)
    close(np.asarray(draws["z"][..., 0]), 3.0, 15)
    assert mcmc.get_extra_fields()["potential_energy"].shape == (200,)
    assert mcmc.get_extra_fields()["diverging"].sum() == 0
    mcmc.print_summary()


def test_numpyro_resumes_and_takes_old_keys():
    mcmc = NumPyroMCMC(in_numpyro.MALA(tilted_numpyro), num_warmup=100, num_samples=50, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(0))
    settled = mcmc.last_state.step_size
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(jax.random.PRNGKey(1))
    assert mcmc.last_state.step_size == settled and int(mcmc.last_state.i) == 200
    mcmc.run(mcmc.post_warmup_state.rng_key)


def test_numpyro_kernel_is_a_block_of_gibbs():
    """Langevin for one site, NUTS for the other: the joint law of both."""

    def model():
        a = numpyro.sample("a", ndist.Normal(1.0, 1.0))
        numpyro.sample("b", ndist.Normal(a, 0.5))
        numpyro.factor("f", 0.5 * a)

    kernel = Gibbs([(in_numpyro.MALA(model), ["a"]), (NumPyroNUTS(model), ["b"])])
    mcmc = NumPyroMCMC(
        kernel, num_warmup=200, num_samples=2000, num_chains=2, chain_method="sequential", progress_bar=False
    )
    mcmc.run(jax.random.key(0))
    draws = mcmc.get_samples()
    for name, exact, sd in (("a", 1.5, 1.0), ("b", 1.5, np.sqrt(1.25))):
        close(np.asarray(draws[name]), exact, 150)
        assert abs(np.std(draws[name]) - sd) < 0.15


def test_numpyro_kernel_pickles_and_potential_needs_a_start():
    kernel = pickle.loads(pickle.dumps(in_numpyro.MALA(potential_fn=quadratic, step_size=0.7)))
    mcmc = NumPyroMCMC(kernel, num_warmup=50, num_samples=200, progress_bar=False)
    mcmc.run(jax.random.key(0), init_params={"u": np.zeros(3)})
    close(np.asarray(mcmc.get_samples()["u"][:, 0]), 2.0, 20)
    with pytest.raises(PplebmError, match="init_params"):
        NumPyroMCMC(kernel, num_warmup=5, num_samples=5, progress_bar=False).run(jax.random.key(0))


def quadratic(z):
    return 0.5 * ((z["u"] - 2.0) ** 2).sum()


def test_numpyros_nuts_samples_a_tilted_program():
    page, x = gallery()
    model = pplebm.bind("conjugate_tilt", "numpyro", shape=(4,), d1=2, d2=1)
    program = pplebm.Program(model)
    params = {name: np.asarray(p) for name, p in program.params.items()}
    mcmc = NumPyroMCMC(NumPyroNUTS(model), num_warmup=200, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(0), x)
    exact = page.closed_form(params, page.Hyper(d1=2, d2=1), x[1])
    close(np.asarray(mcmc.get_samples()["z1"][:, 1, 0]), exact.mean[0], 100)


IN_PROCESSES = """
import sys, warnings
import torch, pyro, pyro.distributions as dist
from pyro.infer import MCMC
import pplebm
from pplebm.interop.pyro import MALA

def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pplebm.tilt("f", 0.5 * z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

if __name__ == "__main__":
    mcmc = MCMC(MALA(model), 200, 100, num_chains=2, mp_context="spawn", disable_progbar=True)
    mcmc.run(torch.tensor([0.0, 2.0]))
    draws = mcmc.get_samples(group_by_chain=True)["z"]
    assert not torch.equal(draws[0], draws[1])
    print(tuple(draws.shape))
"""


@pytest.mark.slow
def test_pyro_mcmc_runs_chains_in_processes_of_their_own(tmp_path):
    script = tmp_path / "chains.py"
    script.write_text(IN_PROCESSES)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 200, 2)"
