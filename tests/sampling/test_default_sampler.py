"""`pplebm.sample` with nothing set by hand, against laws that are known."""

from __future__ import annotations

import numpy as np
import pytest
from conjugate import BACKENDS
from scipy import stats

import pplebm
from pplebm.errors import PplebmWarning
from pplebm.kernels.hmc import hmc
from pplebm.kernels.mala import mala
from pplebm.kernels.mams import mams
from pplebm.kernels.tempering import parallel_tempering
from pplebm.ppl.language import load_backend
from pplebm.sampling import job as sampling
from pplebm.sampling.convergence import figures

SHORT = {"n_warmup": 400, "n_draws": 500}


def moments(law):
    """Mean and standard deviation of densities on a grid, (data, grid)."""
    grid, log_density = law
    weight = np.exp(log_density - log_density.max(-1, keepdims=True))
    mean = (weight * grid).sum(-1) / weight.sum(-1)
    return mean, np.sqrt((weight * (grid - mean[..., None]) ** 2).sum(-1) / weight.sum(-1))


def assert_law(x, mean, sd, sigmas=5.0, r_hat=1.03, least_ess=100):
    """Means and standard deviations of (chains, draws, ...) agree within Monte Carlo errors, and chains among them."""
    mean, sd = (np.broadcast_to(a, x.shape[2:]).reshape(-1) for a in (mean, sd))
    x = x.reshape(*x.shape[:2], -1).astype(float)
    for values, exact in ((x, mean), ((x - mean) ** 2, sd**2)):
        found = figures(values)
        assert (np.abs(found.mean - exact) < sigmas * found.mcse_mean).all()
        assert found.ess_bulk.min() > least_ess and found.r_hat.max() < r_hat


# --- Gaussians


def regression(backend, width, conditions, sizes=1.0):
    """A rotated design for every datum, coefficients N(0, 1e4²), and the posterior's mean and standard deviations."""
    host, rng, n = load_backend(backend), np.random.default_rng(width), len(conditions)
    turn = np.linalg.qr(rng.normal(size=(n, width, width)))[0]
    sd = np.sqrt([np.geomspace(1.0 / c, 1.0, width) for c in conditions]) * np.reshape(sizes, (-1, 1))
    design = (np.swapaxes(turn, 1, 2) / sd[:, :, None]).astype(np.float32)
    y = rng.normal(size=(n, width)) + np.einsum("nij,nj->ni", design, np.reshape(sizes, (-1, 1)) + np.zeros((n, width)))

    def model(design, y):
        with host.plate("data", len(y)):
            b = host.sample("b", host.dist.Normal(host.asarray(np.zeros(width)), 1e4).to_event(1))
            host.sample("y", host.dist.Normal((design * b[..., None, :]).sum(-1), 1.0).to_event(1), obs=y)

    data = {"design": design, "y": y.astype(np.float32)}
    covariance = np.linalg.inv(np.swapaxes(design, 1, 2).astype(float) @ design + 1e-8 * np.eye(width))
    mean = np.einsum("nij,nkj,nk->ni", covariance, design.astype(float), data["y"])
    program = pplebm.Program(model, data=data, backend=backend)
    return program, data, mean, np.sqrt(np.einsum("nii->ni", covariance))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [2, 10, 50])
def test_rotated_gaussians(backend, width):
    program, data, mean, sd = regression(backend, width, [10.0, 1e3, 1e5])
    draws = pplebm.sample(program, data=data, **SHORT)
    assert_law(draws["b"], mean, sd)
    assert draws.facts["n_redrawn"] == 0 and draws.n_divergent == 0 and draws.stats["num_steps"].mean() < 12
    assert 0.5 < stats.hmean(draws.stats["accept_prob"].reshape(-1) + 1e-3) < 0.9


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [None, mams], ids=["default", "mams"])
def test_every_datum_adapts_for_itself(backend, make):
    """Posteriors of sizes 1e-3 to 1e3 in one batch: their metrics differ as they do, and their steps in it do not."""
    sizes = np.geomspace(1e-3, 1e3, 4)
    program, data, mean, sd = regression(backend, 3, [100.0, 10.0, 1.0, 30.0], sizes)
    draws = pplebm.sample(program, make and make(), data, **SHORT)
    assert_law(draws["b"], mean, sd)
    scale = program.ppl.to_numpy(draws.state.metric.scale).reshape(4, 4, 3)
    assert (scale == scale[0]).all() and (np.abs(np.log(scale[0] / sd)) < 0.5).all()
    step = program.ppl.to_numpy(draws.state.step_size).reshape(4, 4)
    assert (step == step[0]).all() and len(set(step[0])) == 4 and step.max() / step.min() < 2


# --- other shapes


def curved(backend):
    """A funnel, which coordinates make round, and a banana, by a tilt."""
    host = load_backend(backend)

    def model(x):
        with host.plate("data", len(x)):
            v = host.sample("v", host.dist.Normal(0.0, 3.0))
            w = host.sample("w", host.dist.Normal(0.0 * v, host.exp(0.5 * v)))
            a = host.sample("a", host.dist.Normal(0.0, 1.0))
            b = host.sample("b", host.dist.Normal(0.0, 1.0))
            host.tilt("f", -2.0 * (b - 0.5 * a**2) ** 2 + 0.5 * b**2)
            host.sample("x", host.dist.Normal(1e-4 * a * w / (1.0 + w**2), 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(2, np.float32), backend=backend, coordinates="noncentered")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_noncentered_funnel_and_a_banana(backend):
    """The banana has E b = 1/2, and variance Var(a²) / 4 + 1/4."""
    draws = pplebm.sample(curved(backend), data=np.zeros(2, np.float32), **SHORT)
    assert_law(draws["v"], 0.0, 3.0)
    assert_law(draws["w"] / np.exp(0.5 * draws["v"]), 0.0, 1.0)
    assert_law(draws["a"], 0.0, 1.0)
    assert_law(draws["b"], 0.5, 0.75**0.5, r_hat=1.05)
    assert draws.facts["n_redrawn"] == 0


def supports(backend):
    """A half line, a simplex, and positive numbers twice; tilted, and each seen through its own observation."""
    host = load_backend(backend)

    def model(n, c, y, w):
        with host.plate("data", len(y)):
            g = host.sample("g", host.dist.Gamma(3.0, 2.0))
            d = host.sample("d", host.dist.Dirichlet(host.asarray([2.0, 1.0, 3.0])))
            m = host.sample("m", host.dist.LogNormal(0.0, 1.0))
            s = host.sample("s", host.dist.HalfNormal(2.0))
            host.tilt("f", -1.0 * g)
            host.sample("n", host.dist.Poisson(g), obs=n)
            host.sample("c", host.dist.Multinomial(7, d), obs=c)
            host.sample("y", host.dist.LogNormal(0.0 * m, m), obs=y)
            host.sample("w", host.dist.Normal(0.0 * s, s), obs=w)

    data = {"n": np.array([0.0, 6.0], np.float32), "c": np.array([[1, 2, 4], [7, 0, 0]], np.float32),
            "y": np.array([1.5, 20.0], np.float32), "w": np.array([0.1, -3.0], np.float32)}  # fmt: skip
    return pplebm.Program(model, data=data, backend=backend), data


@pytest.mark.parametrize("backend", BACKENDS)
def test_supports_of_many_kinds(backend):
    """Gamma and Dirichlet in closed form, LogNormal and HalfNormal by quadrature over their logarithms."""
    program, data = supports(backend)
    draws = pplebm.sample(program, data=data, **SHORT)
    shape = 3.0 + data["n"]
    assert_law(draws["g"], shape / 4.0, shape**0.5 / 4.0)
    alpha = np.array([2.0, 1.0, 3.0]) + data["c"]
    laws = [stats.dirichlet(row) for row in alpha.astype(float)]
    assert_law(draws["d"], [law.mean() for law in laws], [law.var() ** 0.5 for law in laws])
    t = np.linspace(-9.0, 5.0, 4001)
    for name, log_prior, value in (("m", -0.5 * t**2, np.log(data["y"])), ("s", t - np.exp(2 * t) / 8.0, data["w"])):
        log_density = log_prior - t - 0.5 * value[:, None] ** 2 * np.exp(-2.0 * t)
        mean, sd = moments((t, log_density))
        assert_law(np.log(draws[name]), mean, sd)


def two_modes(backend, height=0.0, at=3.0):
    """N(-at, 1), and e^height times as much of N(at, 1), by a tilt of N(0, 3²)."""
    host = load_backend(backend)

    def model(x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 3.0))
            modes = host.stack([-0.5 * (z + at) ** 2, -0.5 * (z - at) ** 2 + height], 0)
            host.tilt("f", host.logsumexp(modes, 0) + z**2 / 18.0)
            host.sample("x", host.dist.Normal(1e-5 * z, 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(1, np.float32), backend=backend)


def in_both(program, n_right, at):
    """Two chains in the left mode, others in the right one."""
    return {"z": program.ppl.asarray(np.array([-at, -at] + [at] * n_right))}


@pytest.mark.parametrize("backend", BACKENDS)
def test_tempering_finds_the_shares_of_modes_six_standard_deviations_apart(backend):
    kernel, x = parallel_tempering(hmc(5, 0.5), (0.0, 0.3, 0.6, 1.0)), np.zeros(1, np.float32)
    draws = pplebm.sample(two_modes(backend, 1.0), kernel, x, n_chains=60, n_draws=300, n_warmup=100)
    by_chain = (draws["z"][:, :, 0] > 0).mean(1)
    share = np.exp(1.0) / (1.0 + np.exp(1.0))
    assert abs(by_chain.mean() - share) < 5 * by_chain.std(ddof=1) / 60**0.5 < 0.15


# --- chains that are stuck


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [None, mala, lambda: hmc(4)], ids=["default", "mala", "hmc"])
def test_chains_in_a_mode_of_no_mass_are_moved_and_counted(backend, make):
    """Two of eight start 50 nats below, 60 standard deviations away; where modes are alike, none is moved."""
    x = np.zeros(1, np.float32)
    for height, n in ((50.0, 2), (0.7, 0)):
        program = two_modes(backend, height, 30.0)
        start = in_both(program, 6, 30.0)
        draws = pplebm.sample(program, make and make(), x, n_chains=8, init=start, n_warmup=150, n_draws=50)
        assert min(n, 1) <= draws.facts["n_redrawn"] <= n  # one may have leapt there while its step was large
        assert set(np.sign(draws["z"][:2, :, 0]).reshape(-1)) == ({1.0} if n else {-1.0})


def steep(backend):
    """Gamma x Dirichlet, tilted, seen so sharply that chains of the prior start thousands of nats below."""
    host = load_backend(backend)

    def model(x):
        g = host.sample("g", host.dist.Gamma(2.0, 0.1))
        d = host.sample("d", host.dist.Dirichlet(host.asarray([2.0, 1.0, 3.0])))
        host.tilt("f", 2.0 * d[..., 0] - g)
        with host.plate("data", len(x)):
            host.sample("x", host.dist.Normal(g * d[..., 1], 0.02), obs=x)

    return pplebm.Program(model, data=np.ones(5, np.float32), backend=backend), np.ones(5, np.float32), mala


def necked(backend):
    """LogNormal and HalfNormal, with a neck where the standard deviation vanishes."""
    host = load_backend(backend)

    def model(x):
        m = host.sample("m", host.dist.LogNormal(0.0, 2.0))
        s = host.sample("s", host.dist.HalfNormal(5.0))
        with host.plate("data", len(x)):
            host.sample("x", host.dist.Normal(m, s), obs=x)

    x = np.array([0.01], np.float32)
    return pplebm.Program(model, data=x, backend=backend), x, hmc


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [steep, necked])
def test_no_chain_of_32_stands_still_while_acceptance_is_on_target(backend, make):
    program, x, kernel = make(backend)
    moved = 0
    for seed in range(3):
        draws = pplebm.sample(program, kernel(), x, n_chains=32, n_warmup=300, n_draws=100, seed=seed, init="base")
        moved += draws.facts["n_redrawn"]
        assert min(len(np.unique(chain)) for chain in draws.stats["log_density"]) > 10
    assert moved > 0


# --- interruption


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [None, mala], ids=["default", "mala"])
def test_a_warm_up_goes_on_bit_for_bit(backend, make, monkeypatch, tmp_path):
    """From the end of a window, from inside one, and from the draws; chains are moved on the way."""
    program, path, advance = two_modes(backend, 50.0, 30.0), tmp_path / "draws.safetensors", sampling.Job.advance
    call = lambda **more: pplebm.sample(
        program, make and make(), np.zeros(1, np.float32), n_chains=6, n_warmup=100, n_draws=30, **more
    )  # fmt: skip
    start = {"init": in_both(program, 4, 30.0)}
    whole = call(**start)
    assert whole.facts["n_redrawn"] > 0
    ends = [i for i, block in enumerate(sampling.warm_up(whole.plan, True, make is None)) if block.ends]
    for n_blocks in (ends[-2] + 1, ends[-1] - (make is None), ends[-1] + 1):
        done = []

        def stopped(job, draws, block, done=done, n_blocks=n_blocks):
            if len(done) == n_blocks:
                raise KeyboardInterrupt
            done.append(block)
            advance(job, draws, block)

        monkeypatch.setattr(sampling.Job, "advance", stopped)
        with pytest.warns(PplebmWarning, match="resume="):
            call(**start).save(path)
        monkeypatch.setattr(sampling.Job, "advance", advance)
        rest = call(resume=path)
        np.testing.assert_array_equal(rest["z"], whole["z"])
        assert rest.facts["n_redrawn"] == whole.facts["n_redrawn"]
