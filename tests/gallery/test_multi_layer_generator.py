"""A generator of several Gaussian layers in noise coordinates: its density, its short runs, their learned steps."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import erf, logsumexp
from scipy.stats import multivariate_normal, norm

import pplebm
from pplebm.gallery.hyper import override
from pplebm.learning.algorithm import algorithm_of

PAGE, LEARNER = pplebm.load("multi_layer_generator"), pplebm.load("short_run_learned_step")
SIGMA, K = 0.5, 20  # of x given z1, and steps
LINE = np.linspace(-9.0, 9.0, 301)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def linear(ppl, weights):
    """A program of one number in every layer, with affine nets; `weights` are those of its ε in the mean of x.

    Returns the program and the weights, (D, layers), from below, whose last column is that of the top.
    """
    dims, width = (1,) * weights.shape[1], len(weights)
    changes = {"latent_dims": dims, "depth": 0, "sigma": SIGMA, "scale_floor": 0.01}
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape=(width,), **changes))
    params = {n: np.zeros(tuple(p.shape)) for n, p in program.params.items()}
    params["decoder.weight_0"] = weights[:, :1]  # of z1 = ε1 · scale + slope · ε2 + ...
    for i in range(1, len(dims)):
        ratio = weights[:, i] / weights[:, i - 1]
        assert np.allclose(ratio, ratio[0]), "layers next to each other act on x along one direction"
        params[f"skip{i}.weight_0"][:] = 0.25 * ratio[0]
        params[f"layer{i}.weight_0"][0] = 0.75 * ratio[0]  # the other row is that of the scale, which is constant
        params[f"layer{i}.bias_0"][1] = np.log(np.expm1(1.0 - 0.01)) - 0.2  # a scale of 1
    return program.with_params({n: ppl.asarray(a) for n, a in params.items()})


def posterior(weights):
    """Precision of ε given x, and the matrix from x to its mean."""
    precision = np.eye(weights.shape[1]) + weights.T @ weights / SIGMA**2
    return precision, np.linalg.solve(precision, weights.T) / SIGMA**2


def short_run(precision, sizes):
    """What is left of the way to the mean after K steps from N(0, I), (d, d), and the covariance: both of closed form.

    With one latent ρ^K and ρ^2K + s²(1 - ρ^2K)/(1 - ρ²), ρ = 1 - s²λ/2.
    """
    squared = np.diag(np.broadcast_to(sizes, len(precision)) ** 2)
    move, covariance = np.eye(len(precision)) - 0.5 * squared @ precision, np.eye(len(precision))
    for _ in range(K):
        covariance = move @ covariance @ move.T + squared
    return np.linalg.matrix_power(move, K), covariance


def divergence(precision, sizes):
    """E KL(run || posterior) over data of the model, up to a constant; means of posteriors spread as I - Λ⁻¹."""
    left, covariance = short_run(precision, sizes)
    spread = covariance + left @ (np.eye(len(precision)) - np.linalg.inv(precision)) @ left.T
    return 0.5 * np.trace(precision @ spread) - 0.5 * np.linalg.slogdet(covariance)[1]


LAWS = {5.0: np.array([[1.0]]), 50.0: np.array([[3.5]]), "two layers": np.array([[1.6, 0.8], [-0.6, -0.3]])}


@pytest.mark.parametrize("case", LAWS, ids=str)
def test_learned_step_sizes_land_on_those_of_the_short_run_law(double, case):
    """The algorithm's own loss on the page has the closed form's slope in the step sizes: none at the best of them.

    At sizes that are too small, best and too large, to 4.5 standard errors over twelve sets of draws: where they are
    too small, an entropy with a tenth more weight would be told.
    """
    ppl, weights, rng = double, LAWS[case], np.random.default_rng(0)
    precision, _ = posterior(weights)
    d = len(precision)
    n = 24_000 // d
    expected = lambda v: divergence(precision, np.exp(v))
    entropy = lambda v: 0.5 * np.linalg.slogdet(short_run(precision, np.exp(v))[1])[1]
    best = minimize(expected, np.full(d, np.log(0.7) - 0.5 * np.log(precision.max())), tol=1e-12).x
    if case in (5.0, 50.0):
        assert precision[0, 0] == pytest.approx(case)
        assert np.exp(best[0]) == pytest.approx({5.0: 0.270, 50.0: 0.096}[case], rel=0.015)
    program, sites = linear(ppl, weights), [f"noise{i}" for i in range(1, d + 1)]
    owner = algorithm_of(LEARNER, program, {"posterior.n_steps": K, "n_learned": n})
    loss = lambda key, x, z, v: LEARNER.loss(owner, key, program.params | v, x, z, None)[0]
    slope_of = ppl.compiled(lambda key, x, z, v: ppl.value_and_grad(lambda v: loss(key, x, z, v), v)[1])
    for factor in (0.7, 1.0, 1.3):
        at, found = best + np.log(factor), []
        sizes = {f"step_size.{site}": ppl.asarray(a) for site, a in zip(sites, at, strict=True)}
        for seed in range(12):
            x = rng.normal(size=(n, d)) @ weights.T + SIGMA * rng.normal(size=(n, len(weights)))
            slope = slope_of(ppl.key(seed), ppl.asarray(x), program.draw_base(ppl.key(seed), n), sizes)
            found.append([float(slope[f"step_size.{site}"]) for site in sites])
        exact = approx_fprime(at, expected, 1e-6)
        error = np.std(found, axis=0, ddof=1) / len(found) ** 0.5
        assert (np.abs(np.mean(found, axis=0) - exact) < 4.5 * error).all() and (error < 0.05).all()
        tenth = 0.1 * np.abs(approx_fprime(at, entropy, 1e-6))
        assert factor != 0.7 or (tenth > 4.5 * error).any(), "a weight of the entropy that is off can be told"


def test_a_short_run_has_the_law_of_its_closed_form(double):
    """Runs that are far from their posterior, of two layers and another size in each: means and covariances."""
    ppl, weights, n = double, LAWS["two layers"], 20_000
    precision, to_mean = posterior(weights)
    program, sizes = linear(ppl, weights), np.array([0.15, 0.3])
    owner = algorithm_of(LEARNER, program, {"posterior.n_steps": K})
    params = program.params | {f"step_size.noise{i}": ppl.asarray(np.log(sizes[i - 1])) for i in (1, 2)}
    x = np.array([1.5, -0.5])
    drawn = owner.positive(ppl.key(4), params, ppl.asarray(np.tile(x, (n, 1)))).z
    left, covariance = short_run(precision, sizes)
    mean = to_mean @ x - left @ to_mean @ x
    assert np.abs(covariance - np.linalg.inv(precision)).max() > 0.1 and np.abs(left @ to_mean @ x).max() > 0.05
    off = np.concatenate([ppl.to_numpy(drawn[f"noise{i}"]) for i in (1, 2)], 1) - mean
    products = (off[:, :, None] * off[:, None, :]).reshape(n, -1) - covariance.ravel()
    for values in (off, products):
        assert (np.abs(values.mean(0)) < 4.5 * values.std(0) / n**0.5).all()


def test_the_evidence_of_affine_layers_is_a_normal_law(double):
    """By a plane of points; the prior is normalised."""
    ppl, weights = double, LAWS["two layers"]
    program, at = linear(ppl, weights), {f"noise{i}": double.asarray(PLANE[:, i - 1 : i]) for i in (1, 2)}
    prior = logsumexp(ppl.to_numpy(program.log_prior(program.params, at))) + np.log(CELL)
    assert prior == pytest.approx(0.0, abs=1e-6) and not program.tilts
    law = multivariate_normal(np.zeros(2), weights @ weights.T + SIGMA**2 * np.eye(2))
    for x in ([0.3, -1.0], [2.0, 0.5]):
        joint = program.log_joint(program.params, at, ppl.asarray(np.tile(x, (len(PLANE), 1))))
        assert logsumexp(ppl.to_numpy(joint)) + np.log(CELL) == pytest.approx(law.logpdf(x), abs=1e-6)


def network(params, name, a):
    """A perceptron by its weights, with GELU between."""
    depth = sum(key.startswith(f"{name}.weight_") for key in params)
    for i in range(depth):
        a = a @ params[f"{name}.weight_{i}"].T + params[f"{name}.bias_{i}"]
        a = a if i == depth - 1 else 0.5 * a * (1.0 + erf(a / 2**0.5))
    return a


@pytest.mark.parametrize("dims", [(3,), (3, 2), (4, 1, 2)])
def test_the_density_is_that_of_the_equation(double, dims):
    """Bent nets; the equations written once more in NumPy."""
    ppl, changes, rng = double, {"latent_dims": dims, "width": 5}, np.random.default_rng(0)
    hyper = override(PAGE.Hyper(), changes, "page")
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape=(6,), **changes))
    params = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    noise, x = {f"noise{i}": rng.normal(size=(20, d)) for i, d in enumerate(dims, 1)}, rng.normal(size=(20, 6))
    z = noise[f"noise{len(dims)}"]
    for i in range(len(dims) - 1, 0, -1):
        h, d = network(params, f"layer{i}", z), dims[i - 1]
        scale = np.log1p(np.exp(h[:, d:] + 0.2)) + hyper.scale_floor
        z = network(params, f"skip{i}", z) + h[:, :d] + scale * noise[f"noise{i}"]
    joint = sum(norm.logpdf(a).sum(1) for a in noise.values())
    joint = joint + norm.logpdf(x, network(params, "decoder", z), hyper.sigma).sum(1)
    theta, at = ({n: ppl.asarray(a) for n, a in values.items()} for values in (params, noise))
    np.testing.assert_allclose(ppl.to_numpy(program.log_joint(theta, at, ppl.asarray(x))), joint, rtol=1e-6)
