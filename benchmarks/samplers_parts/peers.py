"""Samplers of Pyro, NumPyro and BlackJAX on a target; each returns draws, (chains, draws, D), and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from samplers_parts.targets import D2, D, Target, tilt, weights

STEPS = 8  # of a trajectory of HMC
RATE = 0.05  # of Adam for the trajectory length; at 0.02 the shorter warm-up ends before it is learned
ACCEPTANCE = 0.65  # that BlackJAX tunes MAMS to
Found = tuple[np.ndarray, int | None]  # draws, and gradients after warm-up where they are counted
Runner = Callable[[int], Found]  # of a seed


def starts(n_chains: int) -> Any:
    """Standard normal numbers."""
    import jax

    return jax.random.normal(jax.random.key(9), (n_chains, D))


def pyro_nuts(target: Target, n_chains: int, n_draws: int) -> Runner:
    """Pyro's own NUTS on the tilted target, chain after chain."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    torch.set_num_threads(1)
    w = {name: torch.as_tensor(a) for name, a in weights().items()}

    def model() -> None:
        z2 = pyro.sample("z2", pyro.distributions.Normal(torch.zeros(D2), 1.0).to_event(1))
        z1 = pyro.sample("z1", pyro.distributions.Normal(z2 @ w["mean"], w["scale"]).to_event(1))
        pyro.factor("f", tilt(w, "f1", z1, torch.tanh) + tilt(w, "f2", z2, torch.tanh))

    def run(seed: int) -> Found:
        chains = []
        for chain in range(n_chains):
            pyro.set_rng_seed(1000 * seed + chain)
            mcmc = MCMC(NUTS(model), n_draws, target.n_warmup, disable_progbar=True)
            mcmc.run()
            z = mcmc.get_samples()
            chains.append(torch.cat([z["z1"], z["z2"]], -1).numpy())
        return np.stack(chains), None

    return run


def numpyro(kind: str, target: Target, n_chains: int, n_draws: int) -> Runner:
    """NumPyro's NUTS or HMC, vectorised over chains; a second `run` of one MCMC object, compiled by the first."""
    import jax
    from numpyro.infer import HMC, MCMC, NUTS

    log_density = target.by_hand()
    energy = lambda z: -log_density(z)
    fixed = {"num_steps": STEPS, "trajectory_length": None}
    kernel = NUTS(potential_fn=energy) if kind == "nuts" else HMC(potential_fn=energy, **fixed)
    mcmc = MCMC(
        kernel, num_warmup=target.n_warmup, num_samples=n_draws, num_chains=n_chains, chain_method="vectorized",
        progress_bar=False, jit_model_args=True,
    )  # fmt: skip

    def run(seed: int) -> Found:
        mcmc.run(jax.random.key(seed), init_params=starts(n_chains), extra_fields=("num_steps",))
        return np.asarray(mcmc.get_samples(group_by_chain=True)), int(mcmc.get_extra_fields()["num_steps"].sum())

    return run


def finished(compiled: Callable[[Any], Any]) -> Runner:
    """Positions by chain, and steps of the integrator, of a compiled function of a key."""
    import jax

    def run(seed: int) -> Found:
        positions, steps = compiled(jax.random.key(seed))
        return np.asarray(positions), int(steps.sum())

    return run


def blackjax(kind: str, target: Target, n_chains: int, n_draws: int) -> Runner:
    """BlackJAX's NUTS or HMC by its window adaptation, every chain for itself, vmapped and compiled as a whole."""
    import blackjax
    import jax

    log_density, extra = target.by_hand(), {} if kind == "nuts" else {"num_integration_steps": STEPS}
    algorithm = getattr(blackjax, kind)
    warmup = blackjax.window_adaptation(algorithm, log_density, **extra)

    def chain(key: Any, start: Any) -> Any:
        k_warmup, k_run = jax.random.split(key)
        (state, found), _ = warmup.run(k_warmup, start, num_steps=target.n_warmup)
        return drawn(algorithm(log_density, **found).step, state, jax.random.split(k_run, n_draws))

    start = starts(n_chains)
    return finished(jax.jit(lambda key: jax.vmap(chain)(jax.random.split(key, n_chains), start)))


def drawn(kernel: Any, state: Any, keys: Any) -> Any:
    """Positions after a step for each key, and steps of the integrator in it."""
    import jax

    def step(state: Any, key: Any) -> Any:
        state, info = kernel(key, state)
        return state, (state.position, info.num_integration_steps)

    return jax.lax.scan(step, state, keys)[1]


def blackjax_chees(target: Target, n_chains: int, n_draws: int) -> Runner:
    """BlackJAX's HMC whose step, trajectory length and diagonal metric all chains adapt together."""
    import blackjax
    import jax
    import optax

    log_density = target.by_hand()
    warmup = blackjax.chees_adaptation(log_density, n_chains, mass_matrix_estimation="diagonal")

    def run(key: Any) -> Any:
        k_warmup, k_run = jax.random.split(key)
        (states, found), _ = warmup.run(
            k_warmup, starts(n_chains), 0.1, optax.adam(RATE), target.n_warmup, max_sampling_steps=n_draws
        )
        kernel = blackjax.dynamic_hmc(log_density, **found).step
        keys = jax.vmap(lambda key: jax.random.split(key, n_draws))(jax.random.split(k_run, n_chains))
        return jax.vmap(lambda state, keys: drawn(kernel, state, keys))(states, keys)

    return finished(jax.jit(run))


def blackjax_mams(target: Target, n_chains: int, n_draws: int) -> Runner:
    """BlackJAX's adjusted microcanonical sampler by its own tuner, every chain for itself."""
    import blackjax
    import jax
    from blackjax.mcmc.adjusted_mclmc_dynamic import make_random_trajectory_length_fn

    log_density, algorithm = target.by_hand(), blackjax.adjusted_mclmc_dynamic
    lengths = make_random_trajectory_length_fn(True)
    kernel = algorithm.build_kernel(integration_steps_fn=lengths)
    tuned = {"frac_tune1": 0.5, "frac_tune2": 0.5, "frac_tune3": 0.0}  # all of the steps it is given

    def chain(key: Any, start: Any) -> Any:
        k_init, k_warmup, k_run = jax.random.split(key, 3)
        state = algorithm.init(start, log_density, k_init)
        state, found, _ = blackjax.adjusted_mclmc_find_L_and_step_size(
            kernel, log_density, target.n_warmup, state, k_warmup, ACCEPTANCE, **tuned
        )
        step = lambda key, state: kernel(
            key, state, log_density, found.step_size, inverse_mass_matrix=found.inverse_mass_matrix,
            integration_steps_params=(found.L / found.step_size,),
        )  # fmt: skip
        return drawn(step, state, jax.random.split(k_run, n_draws))

    start = starts(n_chains)
    return finished(jax.jit(lambda key: jax.vmap(chain)(jax.random.split(key, n_chains), start)))
