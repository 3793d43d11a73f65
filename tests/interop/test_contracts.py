"""What the hosts' own HMC and NUTS can do inside their machinery, our kernels can do: starts, transforms, traced
settings, models without latents, inner kernels of Gibbs samplers, extra fields."""

from __future__ import annotations

import math

import arviz
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
from pyro.infer.autoguide import initialization
from torch.distributions import transforms as maps

from pplebm.errors import PplebmError
from pplebm.interop import numpyro as in_numpyro
from pplebm.interop import pyro as in_pyro

KERNELS = {
    "Langevin": {"step_size": 0.4}, "Underdamped": {}, "Anisotropic": {"step_size": 0.4, "threshold": 3.0},
    "AdjustedAnisotropic": {"step_size": 0.4, "threshold": 3.0}, "MALA": {}, "JitteredHMC": {},
}  # fmt: skip
D = 10


def model():
    z = numpyro.sample("z", ndist.Normal(1.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("w", ndist.Gamma(3.0, jnp.exp(0.1 * z[0])))


def pyro_model():
    z = pyro.sample("z", dist.Normal(torch.ones(3), 1.0).to_event(1))
    pyro.sample("w", dist.Gamma(3.0, (0.1 * z[0]).exp()))


def normal():
    numpyro.sample("z", ndist.Normal(0.0, 1.0).expand([D]).to_event(1))


def pyro_normal():
    pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))


def run(kernel, n_warmup, n_draws, *args, key=0, fields=(), **how):
    mcmc = ninfer.MCMC(kernel, num_warmup=n_warmup, num_samples=n_draws, progress_bar=False, **how)
    mcmc.run(jax.random.key(key), *args, extra_fields=fields)
    return mcmc


def run_pyro(kernel, n_warmup, n_draws, seed=0, **how):
    pyro.set_rng_seed(seed)
    mcmc = infer.MCMC(kernel, n_draws, n_warmup, disable_progbar=True, **how)
    mcmc.run()
    return mcmc


# --- starts

STRATEGIES = {
    "uniform": ninfer.init_to_uniform(radius=0.5), "median": ninfer.init_to_median, "sample": ninfer.init_to_sample,
    "value": ninfer.init_to_value(values={"z": jnp.array([3.0, 4.0, 5.0]), "w": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("n_chains", [None, 3])
def test_numpyro_chains_start_where_those_of_nuts_do(strategy, n_chains):
    key = jax.random.key(1) if n_chains is None else jax.random.split(jax.random.key(1), n_chains)
    nuts = ninfer.NUTS(model, init_strategy=strategy).init(key, 0, None, (), {})
    for name in ("Langevin", "MALA"):
        kernel = getattr(in_numpyro, name)(model, init_strategy=strategy, **KERNELS[name])
        jax.tree.map(np.testing.assert_array_equal, kernel.init(key, 0, None, (), {}).z, nuts.z)


@pytest.mark.parametrize("method", ["vectorized", "sequential", jax.vmap], ids=["vectorized", "sequential", "vmap"])
def test_numpyro_chains_of_every_method_begin_at_the_value(method):
    kernel = in_numpyro.MALA(model, step_size=1e-3, init_strategy=STRATEGIES["value"])
    draws = run(kernel, 0, 1, num_chains=2, chain_method=method).get_samples(group_by_chain=True)
    np.testing.assert_allclose(draws["z"], np.broadcast_to([3.0, 4.0, 5.0], (2, 1, 3)), atol=0.01)
    np.testing.assert_allclose(draws["w"], 2.0, atol=0.01)


PYRO_STRATEGIES = {
    "uniform": initialization.init_to_uniform(radius=0.5), "median": initialization.init_to_median(num_samples=3),
    "sample": initialization.init_to_sample,
    "value": initialization.init_to_value(values={"z": torch.tensor([3.0, 4.0, 5.0]), "w": torch.tensor(2.0)}),
}  # fmt: skip


@pytest.mark.parametrize("strategy", PYRO_STRATEGIES.values(), ids=PYRO_STRATEGIES)
def test_pyro_chains_start_where_those_of_nuts_do(strategy):
    starts = []
    kernels = [getattr(in_pyro, name)(pyro_model, init_strategy=strategy, **KERNELS[name]) for name in KERNELS]
    for kernel in [infer.NUTS(pyro_model, init_strategy=strategy), *kernels]:
        pyro.set_rng_seed(3)
        kernel.setup(0)
        starts.append(kernel.initial_params)
    for start in starts[1:]:
        assert all(torch.equal(a, starts[0][name]) for name, a in start.items()) and set(start) == {"z", "w"}


# --- transforms of Pyro


def exponential():
    pyro.sample("w", dist.Exponential(2.0))


def test_pyro_samples_in_the_coordinates_of_given_transforms():
    """w = softplus(u): the potential is that of u, the draws are of w, whose mean is 1/2."""
    transforms = {"w": maps.SoftplusTransform().inv}
    kernel = in_pyro.JitteredHMC(exponential, transforms=transforms)
    kernel.setup(0)
    u = torch.tensor(0.3)
    w, slope = torch.nn.functional.softplus(u), torch.sigmoid(u)
    torch.testing.assert_close(kernel._potential({"w": u}), 2.0 * w - math.log(2.0) - slope.log())
    draws = run_pyro(in_pyro.JitteredHMC(exponential, transforms=transforms), 200, 800).get_samples()["w"]
    assert (draws > 0).all() and abs(draws.mean() - 0.5) < 5 * 0.5 / math.sqrt(200)


def test_pyro_transforms_of_a_potential_fn_bring_draws_back():
    potential = lambda z: z["w"].exp() * 2.0 - z["w"]  # of Exponential(2) in log w
    kernel = in_pyro.JitteredHMC(potential_fn=potential, transforms={"w": maps.ExpTransform().inv})
    draws = run_pyro(kernel, 200, 800, initial_params={"w": torch.zeros(())}).get_samples()["w"]
    assert (draws > 0).all() and abs(draws.mean() - 0.5) < 5 * 0.5 / math.sqrt(200)


def test_pyro_transforms_that_lack_a_site_are_refused():
    with pytest.raises(PplebmError, match="lacks site 'z'"):
        in_pyro.MALA(pyro_model, transforms={"w": maps.ExpTransform().inv}).setup(0)


# --- traced settings of NumPyro


def one():
    numpyro.sample("z", ndist.Normal(0.0, 1.0))


def variance(kernel, n_draws):
    return run(kernel, 100, n_draws).get_samples()["z"].var()


def test_numpyro_langevin_takes_traced_step_sizes_and_temperatures():
    """Its variance on N(0, 1) is T / (1 - s²/4), for many step sizes in one compilation."""
    sizes, temperatures = jnp.array([0.8, 1.2, 1.6]), jnp.array([1.0, 0.5, 2.0])
    found = jax.jit(jax.vmap(lambda s, t: variance(in_numpyro.Langevin(one, step_size=s, temperature=t), 8000)))
    error = 5 * math.sqrt(2 / 8000 * 2.2)  # relative; draws of the first follow each other with correlation 0.68
    np.testing.assert_allclose(found(sizes, temperatures), temperatures / (1 - sizes**2 / 4), rtol=error)


@pytest.mark.parametrize("name", KERNELS)
def test_numpyro_kernels_draw_with_traced_numbers_as_with_known_ones(name):
    settings = KERNELS[name] | {"step_size": 0.37}
    others = {k: v for k, v in settings.items() if k != "step_size"}
    draw = lambda s: run(getattr(in_numpyro, name)(one, step_size=s, **others), 0, 20).get_samples()["z"]
    np.testing.assert_allclose(jax.jit(draw)(0.37), draw(0.37), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Some donated buffers")  # of NumPyro, with its own HMC as well
def test_numpyro_adapts_from_a_traced_step_size():
    ends = jax.vmap(lambda s: run(in_numpyro.MALA(normal, step_size=s), 400, 20).last_state.step_size)
    found = ends(jnp.array([0.05, 4.0]))
    assert abs(jnp.log(found[1] / found[0])) < 0.5, found


def test_numbers_that_are_known_are_checked():
    for wrong in (-1.0, jnp.array(-1.0), np.float32(-1.0)):
        with pytest.raises(PplebmError, match="step_size must be positive"):
            in_numpyro.MALA(one, step_size=wrong)
    assert in_numpyro.MALA(one, step_size=jnp.array(0.5)).kernel == in_numpyro.MALA(one, step_size=0.5).kernel
    with pytest.raises(PplebmError, match="n_leapfrog must be known"):
        jax.jit(lambda n: in_numpyro.JitteredHMC(one, n_leapfrog=n) and 0.0)(3)
    with pytest.raises(PplebmError, match="its settings are step_size, scale"):
        in_numpyro.MALA(one, step=0.5)


# --- models without latents


def empty():
    numpyro.deterministic("five", 5.0)
    numpyro.sample("x", ndist.Normal(0.0, 1.0), obs=1.0)


def pyro_empty():
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_numpyro_runs_a_model_without_latents_as_nuts_does(name, method):
    fields = ("potential_energy", "energy", "num_steps", "accept_prob")
    kernels = getattr(in_numpyro, name)(empty, **KERNELS[name]), ninfer.NUTS(empty)
    got, nuts = (run(k, 2, 3, fields=fields, num_chains=2, chain_method=method) for k in kernels)
    jax.tree.map(np.testing.assert_allclose, got.get_samples(), nuts.get_samples())
    jax.tree.map(np.testing.assert_allclose, got.get_extra_fields(), nuts.get_extra_fields())


@pytest.mark.parametrize("name", KERNELS)
def test_pyro_runs_a_model_without_latents_as_nuts_does(name):
    kernels = getattr(in_pyro, name)(pyro_empty, **KERNELS[name]), infer.NUTS(pyro_empty)
    got, nuts = (run_pyro(k, 2, 3) for k in kernels)
    assert got.get_samples() == nuts.get_samples() == {}
    assert nuts.diagnostics().items() <= got.diagnostics().items()
    assert got.diagnostics()["energy"]["chain 0"].tolist() == pytest.approx([0.5 + 0.5 * math.log(2 * math.pi)] * 3)


# --- inner kernels of NumPyro's Gibbs samplers


def pair():
    """(x, y) with x + y observed: Gaussian, both means 0.8 / 1.8 and variances 0.8 / (1 - 0.64)."""
    x, y = (numpyro.sample(name, ndist.Normal(0.0, 2.0)) for name in "xy")
    numpyro.sample("sum", ndist.Normal(x + y, 1.0), obs=1.0)


def draw_x(rng_key, gibbs_sites, hmc_sites):
    return {"x": ndist.Normal(0.8 * (1 - hmc_sites["y"]), math.sqrt(0.8)).sample(rng_key)}


@pytest.mark.parametrize("name", ["MALA", "JitteredHMC"])
def test_numpyros_hmc_gibbs_takes_our_kernels(name):
    kernel = ninfer.HMCGibbs(getattr(in_numpyro, name)(pair), gibbs_fn=draw_x, gibbs_sites=["x"])
    fields = ("hmc_state.energy", "hmc_state.accept_prob")
    mcmc = run(kernel, 300, 3000, fields=fields, num_chains=2, chain_method="sequential")
    draws, sd = mcmc.get_samples(), math.sqrt(0.8 / 0.36)
    for site in "xy":
        assert abs(draws[site].mean() - 0.8 / 1.8) < 5 * sd / math.sqrt(300)
        assert abs(draws[site].std() / sd - 1) < 5 / math.sqrt(600)
    assert np.isfinite(mcmc.get_extra_fields()["hmc_state.energy"]).all()


def mixture():
    c = numpyro.sample("c", ndist.Categorical(jnp.array([0.2, 0.8])))
    numpyro.sample("z", ndist.Normal(jnp.array([-1.0, 1.0])[c], 1.0))
    numpyro.sample("w", ndist.LogNormal(jnp.array([0.0, 0.5])[c], 0.5))


def test_numpyros_discrete_hmc_gibbs_samples_a_mixture_by_our_kernel():
    """The share of the second component is .8, E z = .6 and E log w = .4."""
    draws = run(ninfer.DiscreteHMCGibbs(in_numpyro.JitteredHMC(mixture), modified=True), 300, 6000).get_samples()
    found = [draws["c"].mean(), draws["z"].mean(), jnp.log(draws["w"]).mean()]
    error = 5 * np.array([0.4, math.sqrt(1.64), math.sqrt(0.25 + 0.04)]) / math.sqrt(600)
    assert (abs(np.array(found) - [0.8, 0.6, 0.4]) < error).all(), found


def test_numpyros_discrete_hmc_gibbs_without_continuous_latents():
    def discrete():
        numpyro.sample("c", ndist.Categorical(jnp.array([0.2, 0.8])))

    draws = run(ninfer.DiscreteHMCGibbs(in_numpyro.MALA(discrete), modified=True), 10, 4000).get_samples()
    assert abs(draws["c"].mean() - 0.8) < 5 * 0.4 / math.sqrt(1000)


def subsampled(x):
    mean = numpyro.sample("mean", ndist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x), subsample_size=50):
        numpyro.sample("x", ndist.Normal(mean, 1.0), obs=numpyro.subsample(x, event_dim=0))


def test_numpyros_hmcecs_takes_our_kernels():
    """The posterior of the mean is N(Σx / (n + 1), 1 / (n + 1)), the proxy exact: the likelihood is quadratic."""
    x = 1.5 + jax.random.normal(jax.random.key(0), (400,))
    inner = in_numpyro.MALA(subsampled, step_size=0.05)
    kernel = ninfer.HMCECS(inner, num_blocks=5, proxy=ninfer.HMCECS.taylor_proxy({"mean": x.mean()}))
    draws, sd = run(kernel, 300, 2000, x).get_samples()["mean"], 1 / math.sqrt(401)
    assert abs(draws.mean() - x.sum() / 401) < 5 * sd / math.sqrt(400)
    assert abs(draws.std() / sd - 1) < 5 / math.sqrt(800)


def test_numpyros_mixed_hmc_is_refused_in_one_sentence():
    with pytest.raises(PplebmError, match=r"use DiscreteHMCGibbs\(MALA\(model\)\)"):
        run(ninfer.MixedHMC(in_numpyro.MALA(mixture)), 2, 2)


def test_a_block_of_gibbs_begins_where_its_strategy_says():
    strategy = ninfer.init_to_value(values={"w": 7.0})
    kernel = ninfer.Gibbs([(in_numpyro.MALA(model, init_strategy=strategy), ["w"]), (ninfer.NUTS(model), ["z"])])
    state = kernel.init(jax.random.key(0), 0, None, (), {})
    np.testing.assert_allclose(state.z["w"], math.log(7.0), rtol=1e-6)


# --- extra fields


QUARTER = {"n_leapfrog": 8, "step_size": math.pi / 16, "jitter": 0.0}


def check_energies(energy, bfmi):
    """On N(0, I) a trajectory of a quarter period swaps place and momentum: E = K' + K, K ~ Gamma(d/2), BFMI = 1."""
    error = 5 / math.sqrt(energy.size)
    assert abs(energy.mean() - D - 0.5 * D * math.log(2 * math.pi)) < error * math.sqrt(2 * D)
    assert abs(energy.var() / D - 1) < error * 2 and abs(np.mean(bfmi) - 1) < error * 2.5, bfmi


def test_numpyro_fields_go_to_arviz():
    fields = ("energy", "num_steps", "accept_prob", "step_size", "potential_energy")
    kernel = in_numpyro.JitteredHMC(normal, **QUARTER)
    mcmc = run(kernel, 0, 2000, fields=fields, num_chains=2, chain_method="vectorized")
    stats = arviz.from_numpyro(mcmc).sample_stats
    check_energies(stats.energy.values[:, 1:], arviz.bfmi(arviz.from_numpyro(mcmc)))
    assert (stats.n_steps == 8).all() and np.allclose(stats.step_size, math.pi / 16)
    assert stats.acceptance_rate.mean() > 0.9 and not stats.diverging.any()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    np.testing.assert_allclose(stats.lp, ndist.Normal(0.0, 1.0).log_prob(z).sum(-1), rtol=1e-4)


def test_pyro_diagnostics_have_the_figures_of_every_draw():
    mcmc = run_pyro(in_pyro.JitteredHMC(pyro_normal, **QUARTER), 0, 400)
    found = {name: by_chain["chain 0"] for name, by_chain in mcmc.diagnostics().items() if "chain 0" in by_chain}
    energy = found["energy"].numpy()[1:]
    check_energies(energy, arviz.bfmi(energy[None]))
    assert (found["num_steps"] == 8).all() and np.allclose(found["step_size"], math.pi / 16)
    assert found["accept_prob"].mean() == pytest.approx(found["acceptance rate"], rel=1e-5)
    assert not arviz.from_pyro(mcmc, log_likelihood=False).sample_stats.diverging.any()


def test_step_sizes_of_unadjusted_kernels_are_told():
    fields = ("step_size", "energy", "num_steps", "accept_prob")
    for step_size, told in ((0.4, [0.4] * 3), ([0.1, 0.2, 0.3], [0.2, 0.3, 0.3]), ({"z": 0.4}, [math.nan] * 3)):
        found = run(in_numpyro.Langevin(one, step_size=step_size), 0, 3, fields=fields).get_extra_fields()
        np.testing.assert_allclose(found["step_size"], told, rtol=1e-6)
        assert np.isnan(found["energy"]).all() and (found["num_steps"] == 1).all() and (found["accept_prob"] == 1).all()


def test_a_site_keeps_its_diagnostics_where_a_figure_has_its_name():
    mcmc = run_pyro(in_pyro.MALA(lambda: pyro.sample("energy", dist.Normal(0.0, 1.0))), 10, 20)
    assert set(mcmc.diagnostics()["energy"]) == {"n_eff", "r_hat"}
