"""Inverse problems in a layer of the generator: closed forms, grids, and how parameters get there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import override
from pplebm.networks.decoders import conv_decoder
from pplebm.networks.halves import Whitened, activations, halves, handed, whitened
from pplebm.networks.operators import measured
from pplebm.ppl.language import load_backend

PAGE = pplebm.load("intermediate_layers")
LINEAR = {"split": 0, "depth": 0, "latent_dim": 3, "rank": 3, "image": (4, 4), "sigma": 0.5, "tilt_depth": 0,
          "tilt_bound": 1e7}  # fmt: skip
BENT = {"latent_dim": 3, "width": 6, "rank": 4, "image": (4, 4), "tilt_width": 5, "tilt_depth": 1}
MEAN = np.array([0.7, -0.4, 0.2])
COVARIANCE = np.array([[0.7, 0.3, 0.0], [0.3, 0.5, -0.1], [0.0, -0.1, 0.9]])


def program_of(ppl, hyper, params=None, scale=0.8):
    """A program at parameters far from where they begin but for those given; hyperparameters, and its parameters."""
    values = override(PAGE.Hyper(), hyper, "page")
    m = PAGE.instrument(values).n_measured
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape={"y": (m,)}, **hyper), data={"y": np.zeros((2, m))})
    rng = np.random.default_rng(1)
    at = {k: ppl.to_numpy(p) + scale * rng.normal(size=tuple(p.shape)) for k, p in sorted(program.params.items())}
    at |= {k: ppl.to_numpy(p) for k, p in (params or {}).items()}
    assert at.keys() == program.params.keys()
    return program.with_params({k: ppl.asarray(np.asarray(a)) for k, a in at.items()}), values, at


def check_means(draws, exact, error, bias=0.0):
    """Means over draws (chains, draws, ...) within 4.5 standard errors over chains, and a bias."""
    by_chain = draws.mean(1)
    se = by_chain.std(0, ddof=1) / len(by_chain) ** 0.5
    assert se.max() < error and (np.abs(by_chain.mean(0) - exact) < 4.5 * se + bias).all()


def solved(program, hyper, at, mean, precision, bias=0.0):
    """Moments of u given two y under a normal law of u, beside those of chains."""
    a, rng = PAGE.instrument(hyper).real, np.random.default_rng(5)
    jacobian = a @ at["decoder.weight_0"] @ at["base.weight_0"]
    offset = a @ (at["decoder.weight_0"] @ at["base.bias_0"] + at["decoder.bias_0"])
    u = rng.multivariate_normal(mean, np.linalg.inv(precision), 2)
    y = offset + u @ jacobian.T + hyper.sigma * rng.normal(size=(2, len(a)))
    covariance = np.linalg.inv(precision + jacobian.T @ jacobian / hyper.sigma**2)
    exact = (precision @ mean + (y - offset) @ jacobian / hyper.sigma**2) @ covariance
    draws = pplebm.sample(program, data={"y": y}, n_chains=100, n_draws=60, n_warmup=200, progress=False)
    moved = draws["u"] - exact
    check_means(moved, 0.0, 0.05, bias)
    check_means(moved[..., :, None] * moved[..., None, :], covariance, 0.05, bias)
    h = draws["u"] @ at["base.weight_0"].T + at["base.bias_0"]
    np.testing.assert_allclose(draws["h"], h, atol=1e-4)
    x = h @ at["decoder.weight_0"].T + at["decoder.bias_0"]
    np.testing.assert_allclose(draws["x"].reshape(x.shape), x, atol=2e-4)


def learned(ppl, folder, u, **hyper):
    """Parameters of a data_ebm that score matching learns, and its program."""
    run = pplebm.fit("data_ebm", u, "score_matching", folder, backend=ppl.name, scaling="none", progress=False,
                     held_out_fraction=0.0, compiled=False, hyper=hyper)  # fmt: skip
    return run.params, run.program


def test_a_layer_learned_by_its_score_has_its_exact_posterior(ppl, tmp_path):
    """u ~ N(m, I): a linear tilt of N(0, I) learns m, and a linear G₂ makes the posterior normal."""
    u = np.random.default_rng(0).normal(MEAN, 1.0, (4000, 3))
    tilt, _ = learned(ppl, tmp_path / "run", u, updates=200, batch_size=1000, depth=0, noise=0.3,
                      learning_rate_tilt=0.05, tilt_bound=1e7)  # fmt: skip
    slope = ppl.to_numpy(tilt["tilt.weight_1"])[0]
    np.testing.assert_allclose(slope, u.mean(0), atol=0.03)  # what noise of the last updates leaves
    white = Whitened(u, np.array([[1.0, 0.2, 0.0], [0.0, 0.8, 0.0], [0.3, 0.0, 1.2]]), np.array([0.1, 0.2, 0.3]))
    params = handed({}, white, 0, tilt, ppl.asarray)
    program, hyper, at = program_of(ppl, LINEAR | {"operator": "blur", "spread": 2.0}, params)
    solved(program, hyper, at, slope, np.eye(3))


def test_a_correlated_layer_has_its_score_and_posterior(tmp_path):
    """A perceptron learns N(m, S + τ² I) by its score, to 0.1 of it; posteriors are those of this law, to 0.05."""
    ppl, tau = load_backend("numpyro"), 0.3
    u = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, 6000)
    tilt, program = learned(ppl, tmp_path / "run", u, updates=1000, batch_size=256, noise=tau, tilt_bound=30.0,
                            learning_rate_tilt=1e-2, decay_share=0.8)  # fmt: skip
    precision = np.linalg.inv(np.cov(u.T) + tau**2 * np.eye(3))
    z = {"x": ppl.asarray(u[:500])}
    score = ppl.to_numpy(ppl.value_and_grad(lambda z: program.log_prior(tilt, z), z)[1]["x"])
    exact = -(u[:500] - u.mean(0)) @ precision
    assert ((score - exact) ** 2).mean() < 0.1**2 * (exact**2).mean()
    white = Whitened(u, np.eye(3), np.zeros(3))
    changes = {"tilt_width": 64, "tilt_depth": 2, "tilt_bound": 30.0, "operator": "downsample"}
    program, hyper, at = program_of(ppl, LINEAR | changes, handed({}, white, 0, tilt, ppl.asarray), scale=0.4)
    solved(program, hyper, at, u.mean(0), precision, bias=0.05)


# --- a random generator of one layer, far more units than latents

SIDE = np.linspace(-5.0, 5.0, 301)
PLANE = np.stack([a.ravel() for a in np.meshgrid(SIDE, SIDE, indexing="ij")], 1)
RANDOM = {"split": 0, "depth": 1, "latent_dim": 2, "rank": 2, "width": 100, "image": (3,), "operator": "phase",
          "sigma": 1.0, "tilt_depth": 0, "tilt_bound": 1e7}  # fmt: skip


def test_a_random_layer_has_both_modes_at_their_masses(ppl):
    """Squared moduli hardly tell z from -z: two modes, of different mass, on a grid and by chains."""
    rng = np.random.default_rng(0)
    generator = {"decoder.weight_0": rng.normal(size=(100, 2)), "decoder.bias_0": np.zeros(100),
                 "decoder.weight_1": rng.normal(size=(3, 100)) / 5.0, "decoder.bias_1": np.zeros(3)}  # fmt: skip
    white = Whitened(PLANE, np.array([[1.0, 0.3], [-0.2, 0.8]]), np.array([0.1, 0.0]))
    tilt = {"tilt.weight_1": np.array([[0.25, 0.15]]), "tilt.bias_1": np.zeros(1)}
    given = {k: ppl.asarray(a) for k, a in (generator | tilt).items()}
    program, hyper, at = program_of(ppl, RANDOM, handed(given, white, 0, given, ppl.asarray))
    truth = np.array([[0.5, 0.4]])
    h = truth @ at["base.weight_0"].T + at["base.bias_0"]
    whole = activations(PAGE.generator(hyper._replace(split=1))[0], generator, h) @ generator["decoder.weight_1"].T
    y = measured(PAGE.instrument(hyper), whole)
    data = program.data({"y": np.repeat(y, len(PLANE), 0)})
    log_p = ppl.to_numpy(program.log_joint(program.params, {"u": ppl.asarray(PLANE)}, data)).astype(float)
    mass = np.exp(log_p - logsumexp(log_p))
    side = lambda u: u @ np.array([0.5, 0.4]) > 0.0
    assert 0.15 < mass[~side(PLANE)].sum() < 0.45, "modes of different mass"
    draws = pplebm.sample(program, data={"y": y}, n_chains=200, n_draws=100, n_warmup=300, thin=2, progress=False)
    u = draws["u"][:, :, 0]
    for function in (side, lambda u: u[..., 0], lambda u: u[..., 1] ** 2, lambda u: u[..., 0] * u[..., 1]):
        check_means(1.0 * function(u), (mass * function(PLANE)).sum(), 0.06)


# --- parameters and densities


def test_both_backends_have_the_density_of_the_equation(ppl):
    program, hyper, at = program_of(ppl, BENT | {"tilt_bound": 2.0, "split": 1, "operator": "phase"})
    rng = np.random.default_rng(2)
    y, u = rng.normal(size=(3, PAGE.instrument(hyper).n_measured)), rng.normal(size=(3, 4))
    h = u @ at["base.weight_0"].T + at["base.bias_0"]
    leaky = lambda a: np.where(a > 0.0, a, 0.2 * a)
    x = leaky(h @ at["decoder.weight_0"].T + at["decoder.bias_0"]) @ at["decoder.weight_1"].T + at["decoder.bias_1"]
    f = u @ at["tilt.weight_1"].T + at["tilt.bias_1"]
    f = (f / (1.0 + np.exp(-f))) @ at["tilt.weight_2"][0] + at["tilt.bias_2"][0]
    exact = norm.logpdf(u).sum(1) + 2.0 * np.tanh(f / 2.0)
    exact += norm.logpdf(y, measured(PAGE.instrument(hyper), x), hyper.sigma).sum(1)
    got = program.log_joint(program.params, {"u": ppl.asarray(u)}, program.data({"y": y}))
    np.testing.assert_allclose(ppl.to_numpy(got), exact, rtol=2e-5)


@pytest.mark.parametrize("split", [0, 1, 2])
def test_halves_are_the_generator_that_was_cut(ppl, split):
    """Of a latent_ebm with all directions kept: images, and where nothing is below h the density of inverse_problem."""
    own = {"latent_dim": 3, "width": 6, "depth": 2}
    model = pplebm.bind("latent_ebm", ppl.name, shape=(4, 4), **own)
    generator = pplebm.Program(model)
    z = np.random.default_rng(3).normal(size=(400, 3))
    hyper = override(PAGE.Hyper(), BENT | {"split": split}, "page")
    params = {k: ppl.to_numpy(p) for k, p in generator.params.items()}
    h = activations(PAGE.generator(hyper)[0], params, z)
    white = whitened(h, min(h.shape[1], 3 if split == 0 else 6))
    changes = BENT | {"split": split, "rank": white.values.shape[1], "tilted": False, "operator": "identity"}
    given = handed(generator.params, white, split, asarray=ppl.asarray)
    program, hyper, _ = program_of(ppl, changes, given)
    found = program.constrain(program.params, {"u": ppl.asarray(white.values)})
    images = generator.predict(generator.params, {"z1": ppl.asarray(z)})["x"]
    np.testing.assert_allclose(ppl.to_numpy(found["h"]), h, atol=2e-5)
    np.testing.assert_allclose(ppl.to_numpy(found["x"]), ppl.to_numpy(images), atol=2e-5)
    if split == 0:
        still = program.with_params(program.params | handed({}, Whitened(z, np.eye(3), np.zeros(3)), 0, None,
                                                            ppl.asarray))  # fmt: skip
        y = np.random.default_rng(4).normal(size=(400, 16))
        bound = pplebm.bind("inverse_problem", ppl.name, shape={"y": (16,)}, image=(4, 4), operator="identity",
                            tilted=False, **own)  # fmt: skip
        other = pplebm.Program(bound, data={"y": y[:2]}).with_params(generator.params)
        got = still.log_joint(still.params, {"u": ppl.asarray(z)}, still.data({"y": y}))
        same = other.log_joint(other.params, {"z1": ppl.asarray(z)}, other.data({"y": y}))
        np.testing.assert_allclose(ppl.to_numpy(got), ppl.to_numpy(same), rtol=1e-5)


def test_whitened_vectors_are_the_best_of_their_rank():
    h = np.random.default_rng(6).multivariate_normal(MEAN, COVARIANCE, 500)
    u, factor, mean = whitened(h, 2)
    np.testing.assert_allclose(u.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(u.T), np.eye(2), atol=1e-12)
    left = ((h - mean - u @ factor.T) ** 2).sum(1).mean() * 500 / 499
    assert left == pytest.approx(np.linalg.eigvalsh(np.cov(h.T))[0])


def test_cuts_and_ranks_that_are_not_there_are_refused():
    net = conv_decoder(3, (8, 8))
    with pytest.raises(PplebmError, match=r"after 2 layers of the net an event has shape \(4, 4, 64\)"):
        halves(net, 2)
    with pytest.raises(PplebmError, match="cannot be cut after 9"):
        halves(net, 9)
    with pytest.raises(PplebmError, match=r"layer 0 is Reshape\(.* must be dense"):
        activations(net, {}, np.zeros((2, 3)))
    with pytest.raises(PplebmError, match="rank is 2, and 9 vectors of 4 numbers vary in 1 directions"):
        whitened(np.arange(9.0)[:, None] * [1.0, 0.0, -1.0, 0.0], 2)
