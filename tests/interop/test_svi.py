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
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.hmc import hmc
from pplebm.kernels.mala import mala
from pplebm.kernels.tempering import parallel_tempering
from pplebm.numpyro import tilt
from pplebm.sampling import prior_pool
from pplebm.sampling.prior_pool import PriorPool

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
    loss = infer.Trace_ELBO() if plain else pyro_svi.TiltedELBO(program, n_chains=400, num_particles=2)
    svi = infer.SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.995}), loss=loss)
    values = [svi.step(x) for _ in range(n_updates)]
    assert np.isfinite(values).all()
    return pyro.param("slope").item()


def numpyro_slope(plain, n_updates=500):
    x = jnp.asarray(X)
    program = pplebm.Program(numpyro_model, data=x, backend="numpyro")
    loss = ninfer.Trace_ELBO() if plain else numpyro_svi.TiltedELBO(program, n_chains=400, num_particles=2)
    rates = numpyro.optim.Adam(lambda i: 0.03 * 0.995**i)
    living = numpyro_model if plain else loss.with_chains(numpyro_model)
    found = ninfer.SVI(living, numpyro_guide, rates, loss=loss).run(jax.random.key(0), n_updates, x, progress_bar=False)
    return float(found.params["slope"])


@pytest.mark.parametrize("slope", [pyro_slope, numpyro_slope])
def test_svi_of_the_hosts_finds_the_maximum_of_the_likelihood(slope):
    """log p(x) = log N(x; slope SCALE², SCALE² + SIGMA²), whose maximum is at mean(x) / SCALE²."""
    exact = X.mean() / SCALE**2
    learned = slope(plain=False)
    error = SCALE / np.sqrt(len(X)) / SCALE**2  # the chains' ends of one update move their mean by SCALE / sqrt(400)
    assert abs(learned - exact) < 4 * error
    assert slope(plain=True) > 2 * exact, "the plain bound of a factor has no maximum"


def gradient_of_constant(backend, log_slope, n, n_rows, weights=None):
    """Of the unconstrained parameter log slope, by n chains of a first call."""
    x = np.zeros(5, np.float32)
    if backend == "pyro":
        loss = pyro_svi.TiltedELBO(pplebm.Program(model, data=torch.as_tensor(x)), n_chains=n)
        leaf = torch.tensor(log_slope, requires_grad=True)
        value, _ = loss._negative(7, {"slope": leaf}, n_rows, weights)
        value.backward()
        return value.item(), leaf.grad.item()
    loss = numpyro_svi.TiltedELBO(pplebm.Program(numpyro_model, data=jnp.asarray(x), backend="numpyro"), n_chains=n)
    phase = lambda v: loss._negative(jax.random.key(2), {"slope": jnp.exp(v)}, n_rows, weights)[0]
    return [float(a) for a in jax.value_and_grad(phase)(log_slope)]


@pytest.mark.parametrize("weights", [1.0, 3.0, "rows"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_the_negative_phase_is_the_gradient_of_the_constant(backend, weights):
    """Σ w log Z, log Z = ½ slope² SCALE², for weights that are a number or one a row; 10,000 chains."""
    slope, n, n_rows = 0.5, 10_000, 300
    w = np.random.default_rng(0).uniform(0.0, 4.0, n_rows) if weights == "rows" else np.full(n_rows, weights)
    of_site = w.astype(np.float32) if weights == "rows" else weights
    of_site = zoo.host(backend).array(of_site) if weights == "rows" else of_site
    given = None if weights == 1.0 else {name: of_site for name in ("z", "f")}
    value, found = gradient_of_constant(backend, float(np.log(slope)), n, n_rows, given)
    exact, error = slope * SCALE**2 * slope, slope * SCALE * (2.0 / n) ** 0.5  # half the chains count after resampling
    assert value == 0.0 and abs(found / w.sum() - exact) < 4 * error


HEIGHTS, CENTRES, WIDTHS = np.array([7.0, 7.5]), (2.0, -1.6), (0.5, 0.25)
GRID = np.linspace(-8.0, 8.0, 20_001)


def bumps(z, exp=np.exp):
    return [exp(-0.5 * ((z - c) / w) ** 2) for c, w in zip(CENTRES, WIDTHS, strict=True)]


def masses(heights):
    """E bump of both modes under the tilted prior, by quadrature: d log Z / d height; and their deviations."""
    p = np.exp(-0.5 * GRID**2 + sum(h * b for h, b in zip(heights, bumps(GRID), strict=True)))
    mean = lambda a: (p * a).sum() / p.sum()
    means = np.array([mean(b) for b in bumps(GRID)])
    return means, np.sqrt([mean(b**2) - m**2 for b, m in zip(bumps(GRID), means, strict=True)])


def pool_of(backend, n, kernel=None):
    """A pool for a tilt of two narrow modes, and the host's compilation of its advance."""
    ppl = zoo.host(backend)

    def model(x):
        h = ppl.param("h", ppl.array(HEIGHTS.astype(np.float32)))
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", sum(h[i] * b for i, b in enumerate(bumps(z, ppl.xp.exp))))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    program = pplebm.Program(model, data=ppl.array(np.zeros(5, np.float32)), backend=backend)
    pool = PriorPool(program, FLOWS[backend], n, kernel=kernel)
    at = lambda heights: {"h": program.ppl.asarray(np.asarray(heights, np.float32))}
    go = program.ppl.compiled(lambda key, params, kept: pool.advance(key, params, 5, kept))

    def advance(seed, heights, kept):
        z, share, kept = go(program.ppl.key(seed), at(heights), pool.empty(5) if kept is None else kept)
        z, share = (program.ppl.to_numpy(a).astype(float).ravel() for a in (z["z"], share))
        return np.array([(share * b).sum() for b in bumps(z)]), kept

    return advance


FLOWS = {"pyro": pyro_svi.FLOW, "numpyro": numpyro_svi.FLOW}


@pytest.mark.parametrize("kernel", [None, mala(0.3), adaptive_hmc(0.3)], ids=["hmc", "mala", "adaptive_hmc"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_narrow_modes_get_their_masses(backend, kernel):
    """Of which one holds a twentieth of the base and half of the tilted prior."""
    means, deviations = masses(HEIGHTS)
    found, _ = pool_of(backend, 4000, kernel)(0, HEIGHTS, None)
    assert (abs(found - means) < 4 * deviations * (2.0 / 4000) ** 0.5).all()


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_masses_follow_a_tilt_that_no_chain_could(backend):
    """Heights trade places in 120 calls: chains do not travel between the modes, weights do."""
    advance = pool_of(backend, 2000)
    found, kept = advance(0, HEIGHTS, None)
    for i in range(120):
        heights = HEIGHTS + (i + 1) / 120 * np.array([1.5, -1.5])
        found, kept = advance(i + 1, heights, kept)
    means, deviations = masses(heights)
    assert abs(means - masses(HEIGHTS)[0]).min() > 0.3 and int(kept.age) == 121
    assert (abs(found - means) < 4 * deviations * (4.0 / 2000) ** 0.5).all()


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_pool_that_is_far_from_the_parameters_is_annealed_anew(backend):
    advance = pool_of(backend, 500)
    _, kept = advance(0, HEIGHTS, None)
    _, kept = advance(1, HEIGHTS + 0.01, kept)
    assert int(kept.age) == 2
    assert int(advance(2, [-30.0, -30.0], kept)[1].age) == 1


def test_a_tilt_without_mass_or_too_strong_and_bad_settings_are_refused(monkeypatch):
    advance = pool_of("pyro", 100)
    with pytest.raises(PplebmError, match="not finite at any draw of the base"):
        advance(0, [np.nan, 1.0], None)
    monkeypatch.setattr(prior_pool, "MOST", 3)
    with pytest.raises(PplebmError, match="the tilt is too strong"):
        advance(0, [30.0, 0.0], None)
    program = pplebm.Program(model, data=torch.as_tensor(X[:5]))
    with pytest.raises(PplebmError, match="n_chains must be a positive integer, got 0"):
        pyro_svi.TiltedELBO(program, n_chains=0)
    with pytest.raises(PplebmError, match="no replicas"):
        pyro_svi.TiltedELBO(program, kernel=parallel_tempering(hmc()))


def with_covariate(ppl, c, x):
    """The tilt makes the prior of a row N(c + slope c SCALE², SCALE²)."""
    slope = ppl.param("slope", 0.5)
    with ppl.plate("data", len(x)):
        z = ppl.sample("z", ppl.dist.Normal(c, SCALE))
        ppl.tilt("f", slope * c * z)
        ppl.sample("x", ppl.dist.Normal(z, SIGMA), obs=x)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_rows_have_constants_of_their_own_where_the_prior_reads_covariates(backend):
    """log Z(c) = slope c² + ½ slope² c² SCALE², of which weights count every row's own; other rows, other chains."""
    ppl, n, slope = zoo.host(backend), 200, 0.5
    rng = np.random.default_rng(1)
    c, w = rng.normal(size=(2, n, 2)).astype(np.float32), rng.uniform(0.5, 2.0, n).astype(np.float32)
    draw = lambda i: {"c": ppl.array(c[i, :, 0]), "x": ppl.array(c[i, :, 1])}
    program = pplebm.Program(functools.partial(with_covariate, ppl), data=draw(0), backend=backend)
    loss = (pyro_svi if backend == "pyro" else numpyro_svi).TiltedELBO(program, n_chains=8000)
    weights = {name: ppl.array(w) for name in ("z", "f")}

    def gradient(key, i, pool):
        def phase(values):
            return loss._negative(program.ppl.key(key), values, program.data(draw(i)), weights, pool)

        (_, pool), found = program.ppl.value_and_grad(phase, {"slope": ppl.array(np.float32(slope))}, has_aux=True)
        exact = (w * (c[i, :, 0] ** 2 * (1.0 + slope * SCALE**2))).sum()
        error = (w**2 * c[i, :, 0] ** 2 * SCALE**2 / 40 * 2.0).sum() ** 0.5
        return abs(float(found["slope"]) - exact) / error, pool

    off, pool = gradient(1, 0, None)
    assert off < 4 and len(pool.log_weight) == 40 * n and int(pool.age) == 1
    off, pool = gradient(2, 0, pool)
    assert off < 4 and int(pool.age) == 2
    off, pool = gradient(3, 1, pool)
    assert off < 4 and int(pool.age) == 1


def test_chains_live_on_in_the_state_of_numpyro_svi():
    x = jnp.asarray(X)
    loss = numpyro_svi.TiltedELBO(pplebm.Program(numpyro_model, data=x, backend="numpyro"), n_chains=400)
    svi = ninfer.SVI(loss.with_chains(numpyro_model), numpyro_guide, numpyro.optim.Adam(0.03), loss=loss)
    found = svi.run(jax.random.key(0), 300, x, progress_bar=False)
    pool = found.state.mutable_state[numpyro_svi.SITE]
    assert int(pool.age) == 300 and np.isfinite(found.losses).all()
    assert abs(found.params["slope"] - X.mean() / SCALE**2) < 4 / np.sqrt(len(X)) / SCALE


def test_differentiable_loss_has_the_gradients_of_a_step():
    pyro.clear_param_store()
    x = torch.as_tensor(X)
    loss = pyro_svi.TiltedELBO(pplebm.Program(model, data=x), n_chains=50)
    found = []
    for way in (loss.loss_and_grads, lambda *a: loss.differentiable_loss(*a).backward()):
        pyro.set_rng_seed(1)
        infer.Trace_ELBO().loss(model, guide, x)  # fills the store
        leaf = dict(pyro.get_param_store().named_parameters())["slope"]
        leaf.grad = loss.chains = None
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
            loss = pyro_svi.TiltedELBO(program, n_chains=10)
            return infer.SVI(model, guide, pyro.optim.Adam({}), loss=loss).step(*data)
        svi = ninfer.SVI(model, guide, numpyro.optim.Adam(0.1), loss=numpyro_svi.TiltedELBO(program, n_chains=10))
        return float(jax.jit(svi.update)(svi.init(jax.random.key(0), *data), *data)[1])

    if differs:
        with pytest.raises((PplebmError, jax.errors.JaxRuntimeError), match="differ within a datum of site 'z'"):
            update()
    else:
        assert np.isfinite(update())
