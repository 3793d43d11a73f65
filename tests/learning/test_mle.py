"""Page mle: weighted chains that follow changing parameters, gradients without bias at the maximum, and the end."""

from __future__ import annotations

import identifiable
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import skewed_scale
from scipy.optimize import minimize
from scipy.special import logsumexp

import pplebm
import pplebm.numpyro
from pplebm.errors import PplebmError
from pplebm.learning import stopping
from pplebm.learning.algorithm import algorithm_of
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import load_backend
from pplebm.sampling import particles, weighted

GRID = np.linspace(-9.0, 9.0, 6001)
SETTINGS = weighted.Settings(n_steps=2, n_leapfrog=12, n_annealed=10)


def tilted(x):
    """z ~ N(0, 1), tilted by a tanh(2 z), which is no even function."""
    a = numpyro.param("a", jnp.zeros(()))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        pplebm.numpyro.tilt("f", a * jnp.tanh(2.0 * z))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def law(a):
    """log Z and E tanh(2 z) under the tilted prior, by quadrature."""
    log_p = -0.5 * GRID**2 - 0.5 * np.log(2.0 * np.pi) + a * np.tanh(2.0 * GRID)
    log_z = logsumexp(log_p) + np.log(GRID[1] - GRID[0])
    return log_z, float((np.exp(log_p) * np.tanh(2.0 * GRID)).sum() / np.exp(logsumexp(log_p)))


@pytest.mark.parametrize("n_steps", [1, 4])
def test_weights_follow_the_parameters(n_steps):
    """a rises by steps so large that chains lag: weights make up for it, log Z and means are those of the law."""
    program = pplebm.Program(tilted, data=np.zeros(4, np.float32), backend="numpyro").with_coordinates("noncentered")
    ppl, n = program.ppl, 4000
    chains, index = weighted.begin(program, n, 1, 0.3), ppl.asarray(range(n))
    settings = SETTINGS._replace(n_steps=n_steps)
    move = ppl.compiled(
        lambda key, params, chains: weighted.advance(
            program, key, params, None, chains, index, settings, observed=False, is_shared=True
        )
    )
    for k, a in enumerate([0.0, 0.5, 1.2, 2.0, 3.0]):
        chains, moved = move(ppl.key(k), {"a": ppl.asarray(a)}, chains)
        log_z, mean = law(a)
        error = ((1.0 / float(moved.ess) - 1.0) / n + 1.0 / n) ** 0.5
        assert abs(float(moved.log_mean_weight[0]) - log_z) < 4.0 * error + 1e-3
        found = float((moved.weight * jnp.tanh(2.0 * moved.z["z"])).sum())
        assert abs(found - mean) < 4.0 * error
    assert abs(float(moved.weight.sum()) - 1.0) < 1e-4


def scaled(x):
    """z ~ N(0, e^2s), x ~ N(z, 0.6²)."""
    s = numpyro.param("s", jnp.zeros(()))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, jnp.exp(s)))
        numpyro.sample("x", dist.Normal(z, 0.6), obs=x)


def test_weights_of_posteriors_follow_the_parameters():
    """The scale jumps: log mean weights are log p(x), and weighted means those of the posteriors, datum by datum."""
    x, m, scales, repeats = np.array([0.2, -1.0, 2.5], np.float32), 500, (0.0, 0.4, 0.8, 0.3), 8
    program = pplebm.Program(scaled, data=x, backend="numpyro").with_coordinates("noncentered")
    ppl, data = program.ppl, program.data(x)
    move = ppl.compiled(
        lambda key, params, chains: weighted.advance(
            program, key, params, data, chains, ppl.asarray(range(len(x))), SETTINGS, observed=True
        )
    )
    found = np.zeros((repeats, len(scales), 2, len(x)))
    for r in range(repeats):
        chains = weighted.begin(program, len(x), m, 0.3)
        for k, s in enumerate(scales):
            chains, moved = move(ppl.key(100 * r + k), {"s": ppl.asarray(s)}, chains)
            weight, z = (np.asarray(a, float).reshape(len(x), m) for a in (moved.weight, moved.z["z"]))
            found[r, k] = moved.log_mean_weight, (weight * z).sum(1) / weight.sum(1)
    wide = np.exp(2.0 * np.array(scales))[:, None] + 0.6**2
    exact = np.stack([-0.5 * (x**2 / wide + np.log(2.0 * np.pi * wide)), x * (1.0 - 0.6**2 / wide)], 1)
    error = found.std(0, ddof=1) / repeats**0.5
    assert (np.abs(found.mean(0) - exact) < 5.5 * error).all() and error.max() < 0.05  # t of 7 degrees, 24 of them


def in_turns(scales, order, n=400, at_once=20):
    """Acceptance at every move of blocks of chains, which take their turns at scales that change; and the chains."""
    x = np.random.default_rng(0).normal(0.0, 20.0, n).astype(np.float32)
    program = pplebm.Program(scaled, data=x, backend="numpyro").with_coordinates("noncentered")
    ppl = program.ppl
    move = ppl.compiled(
        lambda key, params, data, chains, index: weighted.advance(
            program, key, params, data, chains, index, SETTINGS, observed=True
        )
    )
    chains, accepted = weighted.begin(program, n, 1, 0.3), []
    for k, (s, block) in enumerate(zip(scales, order, strict=True)):
        index = np.arange(at_once) + at_once * block
        chains, moved = move(ppl.key(k), {"s": ppl.asarray(s)}, program.data(x[index]), chains, ppl.asarray(index))
        accepted.append(float(moved.accept_prob))
    return np.array(accepted), chains


def test_chains_that_wait_follow_the_step_sizes_of_those_that_move():
    """The scale grows e^4-fold while the last of four blocks waits: its steps have become as small as the others'.

    Left as they were they are forty times too long, and nothing is accepted.
    """
    order = [*([0, 1, 2, 3] * 5), *([0, 1, 2] * 30), 3, 3]
    accepted, chains = in_turns([*([0.0] * 20), *np.linspace(0.0, 4.0, 60), *([4.0] * 32)], order, n=80)
    steps = np.asarray(chains.log_step)[:, 0]
    assert accepted[-1] > 0.3 and abs(steps[60:].mean() - steps[:60].mean()) < 0.5, (accepted[-2:], steps)


def test_chains_that_begin_take_the_step_size_that_others_found():
    """Twenty blocks begin one after the other at narrow posteriors, with steps at first that are far too long."""
    accepted, _ = in_turns([3.5] * 20, range(20))
    assert accepted[0] < 0.1 and accepted[10:].mean() > 0.6, accepted


def test_a_latent_that_data_settle_stays_where_it_is():
    """The scale changes by a fifth: chains of narrow posteriors are not carried off, a step brings them home."""
    x = np.full(200, 40.0, np.float32)
    program = pplebm.Program(scaled, data=x, backend="numpyro").with_coordinates("noncentered")
    ppl, data = program.ppl, program.data(x)
    chains, index = weighted.begin(program, len(x), 1, 0.3), ppl.asarray(range(len(x)))
    move = ppl.compiled(
        lambda key, params, chains: weighted.advance(program, key, params, data, chains, index, SETTINGS, observed=True)
    )
    for k in range(60):
        chains, _ = move(ppl.key(k), {"s": ppl.asarray(3.0)}, chains)
    chains, moved = move(ppl.key(99), {"s": ppl.asarray(3.2)}, chains)
    off = np.asarray(moved.z["z"]) - 40.0
    assert abs(off.mean()) < 0.1 and off.std() < 0.9


def test_systematic_resampling_has_the_weights_as_means(ppl):
    rng, m, n = np.random.default_rng(0), 5, 4000
    weight = rng.dirichlet(0.5 * np.ones(m))
    log_weight = ppl.asarray(np.tile(np.log(weight)[:, None], (1, n)))
    picked = ppl.to_numpy(particles.resampled(ppl, ppl.key(0), log_weight, 1.1)[0])
    count = np.stack([(picked == j).sum(0) for j in range(m)], 1)
    assert (np.abs(count - m * weight) < 1.0 + 1e-4).all()  # systematic: never off by one or more
    assert np.abs(count.mean(0) - m * weight).max() < 5.0 * 0.5 / n**0.5


def declared(start):
    def model(x):
        t = {k: numpyro.param(k, jnp.asarray(float(v))) for k, v in start.items()}
        with numpyro.plate("data", len(x)):
            z2 = numpyro.sample("z2", dist.Normal(t["m"], 1.0))
            z1 = numpyro.sample("z1", dist.Normal(jnp.sin(2.0 * z2), jnp.exp(t["ls"])))
            bumps = jnp.exp(-((z2 - 1.5) ** 2) / 0.5), jnp.exp(-((z2 + 1.0) ** 2) / 0.3)
            pplebm.numpyro.tilt("f", t["b1"] * bumps[0] + t["b2"] * bumps[1])
            mean = jnp.stack([t["v1"] * z1, t["v2"] * z2, t["v3"] * z1 * z2], -1)
            numpyro.sample("x", dist.Normal(mean, jnp.exp(t["lsig"])).to_event(1), obs=x)

    return model


def gradients(x, at, n_updates, n_blocks=20, **changes):
    """Means over updates of the gradient at fixed parameters, by name, and their errors by blocks."""
    program = pplebm.Program(declared(dict(zip(identifiable.NAMES, at, strict=True))), data=x, backend="numpyro")
    ppl, data = program.ppl, program.data(x)
    owner = algorithm_of(pplebm.load("mle"), program, {"batch_size": len(x), **changes})
    state, index = owner.init(ppl.key(0), data, len(x)), ppl.asarray(range(len(x)))
    m = owner.hyper.posterior.particles

    def one(state, key):
        k_positive, k_negative = ppl.split(key)
        positive, negative = owner.both_phases((k_positive, k_negative), state, data, index)
        rows, weights = weighted.repeated(ppl, data, m), (positive.weight, negative.weight)
        loss = lambda p: -contrast(program, p, rows, positive.z, negative.z, weights=weights)[0]
        return state._replace(positive=positive.kept, negative=negative.kept), jax.grad(loss)(program.params)

    run = jax.jit(lambda state, keys: jax.lax.scan(one, state, keys)[1])
    found = np.stack([np.asarray(run(state, ppl.split(ppl.key(1), n_updates))[name]) for name in identifiable.NAMES], 1)
    blocks = found[n_updates // 5 :].reshape(n_blocks, -1, len(identifiable.NAMES)).mean(1)
    return blocks.mean(0), blocks.std(0, ddof=1) / n_blocks**0.5


@pytest.mark.parametrize(("n_particles", "n_updates"), [(1, 500), (3, 250)])
def test_gradient_at_the_exact_maximum_is_zero(n_particles, n_updates):
    x, maximum = identifiable.case(300)
    mean, error = gradients(x, maximum, n_updates, **{"posterior.particles": n_particles})
    assert (np.abs(mean) < 4.0 * error).all(), dict(zip(identifiable.NAMES, mean / error, strict=True))
    assert error.max() < 0.04


def test_learning_reaches_the_exact_maximum_and_ends(tmp_path):
    x, maximum = identifiable.case(300)
    held_out = identifiable.simulate(1000, 11)
    np.savez(tmp_path / "x.npz", train=x, held_out=held_out)
    start = {"m": 0.0, "ls": 0.0, "b1": 0.0, "b2": 0.0, "v1": 0.5, "v2": 0.5, "v3": 0.2, "lsig": 0.0}
    run = pplebm.fit(
        declared(start), tmp_path / "x.npz", inference="mle", backend="numpyro", out=tmp_path / "run", progress=False,
        hyper={"learning_rate": 0.02, "learning_rate_tilt": 0.02, "batch_size": 128},
    )  # fmt: skip
    at = np.array([float(run.params[name]) for name in identifiable.NAMES])
    gap = (identifiable.log_evidence(maximum, x) - identifiable.log_evidence(at, x)).mean()
    assert -1e-6 < gap < 0.005
    loss = (identifiable.log_evidence(maximum, held_out) - identifiable.log_evidence(at, held_out)).mean()
    assert loss < 0.01
    assert run.manifest.stopped_early == run.metrics[-1]["update"] < 3000
    assert {"log_z", "log_z_error", "log_evidence", "gain", "ess_negative"} <= set(run.metrics[-1])
    assert not run.manifest.rollbacks


def test_learning_reaches_the_maximum_with_a_latent_scale_and_a_covariate(tmp_path):
    """Some data settle their latent to a hundredth of its prior's width, in the tail of a skewed law."""
    data = skewed_scale.simulate(400, 3)
    start = {"m": 0.0, "ls": -0.5, "b": 0.0, "e": 0.0, "d": 0.0, "lsig": 0.0}
    params = lambda: {k: numpyro.param(k, jnp.asarray(v)) for k, v in start.items()}
    model = skewed_scale.declare(load_backend("numpyro"), jnp, params)
    run = pplebm.fit(
        model, data, "mle", backend="numpyro", out=tmp_path / "run", progress=False,
        hyper={"learning_rate": 0.02, "learning_rate_tilt": 0.02, "batch_size": 128},
    )  # fmt: skip
    at = np.array([float(run.params[name]) for name in skewed_scale.NAMES])
    train = run.load(data).train
    best = minimize(lambda v: -skewed_scale.log_evidence(v, train).mean(), at, method="BFGS")
    gap = skewed_scale.log_evidence(best.x, train).mean() - skewed_scale.log_evidence(at, train).mean()
    assert -1e-6 < gap < 0.005


def climbed(slope, noise, n_updates, window=100, rate=0.01, rising=0.0):
    """A `ClimbingState` after plain steps on a quadratic or a slope, its gradients noisy."""
    import torch

    import pplebm.backends.pyro as ppl
    from pplebm.learning.algorithm import State

    generator = torch.Generator().manual_seed(0)
    state = stopping.begin(ppl, State({"a": torch.tensor(5.0)}, (), 0), window)
    for k in range(n_updates):
        a = state.params["a"]
        gradient = {
            "a": (a if slope is None else -slope * torch.ones(())) + noise * torch.randn((), generator=generator)
        }
        params = {"a": a - rate * gradient["a"]}
        climb = stopping.follow(ppl, state, params, gradient, window, rising)
        state = state._replace(params=params, climb=climb, update=k + 1)
        if stopping.has_arrived(state):
            break
    return state


def test_the_end_comes_at_a_maximum_and_not_on_a_slope():
    arrived = climbed(None, 0.5, 6000)
    assert 300 < float(arrived.climb.over_at) < 2500 and arrived.update == 3 * int(arrived.climb.over_at)
    climbing = climbed(1.0, 0.5, 3000)
    assert float(climbing.climb.over_at) == 0.0 and climbing.update == 3000
    assert abs(float(climbing.climb.gain) - 1.0) < 4.0 * float(climbing.climb.gain_error) + 0.1  # 100 steps of 0.01


@pytest.mark.parametrize("noise", [5.0, 12.0])
def test_noise_in_which_nothing_can_be_told_is_no_end(noise):
    """A slope of a nat in every window, beside noise of about as much: the climb goes on."""
    climbing = climbed(1.0, noise, 3000)
    assert float(climbing.climb.gain_error) > stopping.TOLD and float(climbing.climb.over_at) == 0.0


def test_no_end_is_looked_for_while_rates_of_tilts_rise():
    """At a maximum from the first update on, the end comes so much later as the rates rise."""
    ends = [float(climbed(None, 0.5, 6000, rising=rising).climb.over_at) for rising in (0.0, 1500.0)]
    assert ends[0] < 1500.0 and 1500.0 + 300.0 < ends[1] < 2500.0, ends


def test_parameter_noise_needs_plain_steps():
    program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
    owner = algorithm_of(pplebm.load("mle"), program, {"parameter_noise": 1.0})
    with pytest.raises(PplebmError, match="rule=sgd"):
        owner.init(0, program.data(np.zeros((4, 3), np.float32)), 4)


def shifted(x):
    """z ~ N(a, 1), x ~ N(z, 1)."""
    a = numpyro.param("a", jnp.zeros(()))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(a, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("n_particles", [1, 4])
def test_parameters_with_noise_have_the_law_of_the_likelihood_to_the_number_of_particles(n_particles):
    """p(x)^N is N(mean of x, 2 / (n N)) in a; steps of rate r on means over data leave it wider by 1 + r / 2, about."""
    x, rate, n_updates = np.random.default_rng(0).normal(2.0, 1.4, size=20).astype(np.float32), 0.2, 12_000
    program = pplebm.Program(shifted, data=x, backend="numpyro")
    ppl, data = program.ppl, program.data(x)
    owner = algorithm_of(pplebm.load("mle"), program, {
        "parameter_noise": 1.0, "optimizer.rule": "sgd", "optimizer.learning_rate": rate, "optimizer.decay_share": 0.0,
        "batch_size": len(x), "posterior.particles": n_particles, "window": 10**6, "updates": n_updates,
    })  # fmt: skip
    state, index = owner.init(ppl.key(0), data, len(x)), ppl.asarray(range(len(x)))

    def one(state, key):
        state, _ = owner.step(key, state, data, index)
        return state, state.params["a"]

    a = np.asarray(jax.jit(lambda s, k: jax.lax.scan(one, s, k)[1])(state, ppl.split(ppl.key(1), n_updates)), float)
    blocks = a[2000:].reshape(20, -1)
    mean, square = blocks.mean(1), (blocks**2).mean(1) - 2.0 * x.mean() * blocks.mean(1) + x.mean() ** 2
    error = lambda b: b.std(ddof=1) / len(b) ** 0.5
    assert abs(mean.mean() - x.mean()) < 4.0 * error(mean)
    exact = 2.0 / (len(x) * n_particles) * (1.0 + rate / 4.0) / (1.0 - rate / 4.0)
    assert abs(square.mean() - exact) < 4.0 * error(square) < 0.4 * exact
