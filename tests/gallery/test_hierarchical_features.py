"""A ladder generator with one tilt on all layers: its density, its closed form under a quadratic tilt, its guide."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import pplebm
from pplebm.gallery.hyper import override
from pplebm.gallery.pages import bind_guide
from pplebm.ppl.language import load_backend
from pplebm.runs.opening import with_guide

PAGE = pplebm.load("hierarchical_features")
SIGMA, WIDTH = 0.7, 4  # of x given z, and of h
LINE = np.linspace(-9.0, 9.0, 301)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2
X = np.array([[0.5, -1.0, 2.0], [-2.0, 0.3, 0.1], [0.0, 0.0, -1.5]])


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def moved(ppl, program, scale=0.6):
    """The program at parameters far from where they begin, and these."""
    rng = np.random.default_rng(1)
    params = {n: ppl.to_numpy(p) + scale * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in params.items()}), params


def quadratic(ppl, dims):
    """The page with affine nets, and -½ uᵀQu + cᵀu in the place of its tilt, u all latents side by side.

    Q couples every layer with every other, and makes some directions wider than the base.
    """
    rng, d = np.random.default_rng(len(dims)), sum(dims)
    a = rng.normal(size=(d, d)) / d**0.5
    q, c = 0.7 * (a + a.T) + 0.3 * np.eye(d), 0.5 * rng.normal(size=d)
    q += max(0.0, 0.6 - np.linalg.eigvalsh(q + np.eye(d)).min()) * np.eye(d)  # so that the prior is proper
    tilt = lambda u: (-0.5 * ((u @ ppl.asarray(q)) * u).sum(-1) + u @ ppl.asarray(c))[..., None]
    without = lambda hyper, shape: {n: net for n, net in PAGE.nets(hyper, shape).items() if n != "tilt"}
    model = lambda ppl, net, hyper, x=None, n=None: PAGE.model(ppl, {**net, "tilt": tilt}, hyper, x, n)
    page = SimpleNamespace(__name__="quadratic", nets=without, model=model)
    hyper = PAGE.Hyper(latent_dims=dims, width=WIDTH, depth=0, sigma=SIGMA, tilt_bound=1e7)
    program = pplebm.Program(ppl.bind(page, hyper, (3,), 0), data=X, backend=ppl.name)
    program, params = moved(ppl, program)
    return program, *affine(params, dims), np.eye(d) + q, c


def affine(params, dims):
    """Matrix and shift of the mean of x as a function of u, down the ladder."""
    matrix, shift, above = np.zeros((0, sum(dims))), np.zeros(0), sum(dims)
    for i in range(len(dims), 0, -1):
        above -= dims[i - 1]
        picked = np.eye(sum(dims))[above : above + dims[i - 1]]
        weight, bias = params[f"ladder{i}.weight_0"], params[f"ladder{i}.bias_0"]
        matrix = weight @ np.concatenate([picked, matrix])
        shift = weight @ np.concatenate([np.zeros(dims[i - 1]), shift]) + bias
    return matrix, shift


def closed_form(matrix, shift, precision, c):
    """log Z, laws of x, and mean and covariance of u given x, of the tilted prior N(Λ⁻¹c, Λ⁻¹)."""
    covariance = np.linalg.inv(precision)
    mean = covariance @ c
    log_z = 0.5 * c @ mean - 0.5 * np.linalg.slogdet(precision)[1]  # less the constant of the base
    law = multivariate_normal(matrix @ mean + shift, matrix @ covariance @ matrix.T + SIGMA**2 * np.eye(3))
    given = np.linalg.inv(precision + matrix.T @ matrix / SIGMA**2)
    return log_z, law, [given @ (c + matrix.T @ (x - shift) / SIGMA**2) for x in X], given


def test_the_coupled_layers_have_the_constant_of_their_closed_form(double):
    """log Z, log p(x) and posteriors of two layers by a plane of points; tilts per layer would have another."""
    program, *parts = quadratic(double, (1, 1))
    log_z, law, means, given = closed_form(*parts)
    precision, c = parts[2], parts[3]
    assert abs(log_z - closed_form(parts[0], parts[1], np.diag(np.diag(precision)), c)[0]) > 0.02
    ppl, at = double, {f"z{i}": double.asarray(PLANE[:, i - 1 : i]) for i in (1, 2)}
    found = logsumexp(ppl.to_numpy(program.log_prior(program.params, at))) + np.log(CELL)
    assert found == pytest.approx(log_z, abs=1e-6) and abs(log_z) > 0.1
    for x, mean in zip(X, means, strict=True):
        joint = ppl.to_numpy(program.log_joint(program.params, at, ppl.asarray(np.tile(x, (len(PLANE), 1)))))
        evidence = logsumexp(joint)
        assert evidence + np.log(CELL) - found == pytest.approx(law.logpdf(x), abs=1e-6)
        weights = np.exp(joint - evidence)
        np.testing.assert_allclose(weights @ PLANE, mean, atol=1e-6)
        off = PLANE - mean
        np.testing.assert_allclose((weights[:, None] * off).T @ off, given, atol=1e-6)


def test_estimators_and_chains_find_the_coupled_layers(float64):
    """Three layers of different dimensions: log Z, log p(x), posterior means and covariances across layers."""
    program, *parts = quadratic(load_backend("pyro"), (2, 1, 3))
    log_z, law, means, given = closed_form(*parts)
    found = pplebm.log_z(program, seed=1, progress=False)
    assert abs(found.value[0] - log_z) < 4.5 * found.error[0] < 0.5
    evidence = pplebm.log_evidence(program, X, seed=2, progress=False)
    assert (np.abs(evidence.value - law.logpdf(X)) < 4.5 * np.hypot(evidence.error, found.error[0])).all()
    draws = pplebm.sample(program, data=X, n_chains=200, n_draws=10, n_warmup=100, thin=2, seed=3, progress=False)
    u = np.concatenate([np.asarray(draws[f"z{i}"]) for i in (1, 2, 3)], -1)
    assert np.abs(given[:2, 3:]).max() > 0.05, "layers that depend on each other"
    for row, mean in enumerate(means):
        off = u[:, :, row] - mean
        for by_chain, exact in ((off.mean(1), 0.0), ((off[..., :, None] * off[..., None, :]).mean(1), given)):
            error = by_chain.std(0, ddof=1) / len(by_chain) ** 0.5
            assert (np.abs(by_chain.mean(0) - exact) < 4.5 * error).all()


def network(params, name, a):
    """A perceptron of one or two hidden layers, by its weights."""
    depth = sum(key.startswith(f"{name}.weight_") for key in params)
    for i in range(depth):
        a = a @ params[f"{name}.weight_{i}"].T + params[f"{name}.bias_{i}"]
        a = a if i == depth - 1 else np.where(a > 0, a, 0.2 * a)
    return a


@pytest.mark.parametrize("dims", [(3,), (2, 3), (4, 1, 2)])
def test_the_density_is_that_of_the_equation(double, dims):
    """Bent nets; the equations written once more in NumPy. The tilt reaches into its bound."""
    changes = {"latent_dims": dims, "width": 5, "tilt_width": 4, "tilt_bound": 0.5}
    hyper, rng, ppl = override(PAGE.Hyper(), changes, "page"), np.random.default_rng(0), double
    program, params = moved(ppl, pplebm.Program(pplebm.bind(PAGE, ppl.name, shape=(6,), **changes)))
    z, x = {f"z{i}": rng.normal(size=(20, d)) for i, d in enumerate(dims, start=1)}, rng.normal(size=(20, 6))
    u = np.concatenate([z[f"z{i}"] for i in range(1, len(dims) + 1)], 1)
    f, h = network(params, "tilt", u)[:, 0], np.zeros((20, 0))
    for i in range(len(dims), 0, -1):
        h = network(params, f"ladder{i}", np.concatenate([z[f"z{i}"], h], 1))
    prior = norm.logpdf(u).sum(1) + 0.5 * np.tanh(f / 0.5)
    at = {name: ppl.asarray(a) for name, a in z.items()}
    np.testing.assert_allclose(ppl.to_numpy(program.log_prior(program.params, at)), prior, rtol=1e-9)
    joint = ppl.to_numpy(program.log_joint(program.params, at, ppl.asarray(x)))
    np.testing.assert_allclose(joint, prior + norm.logpdf(x, h, hyper.sigma).sum(1), rtol=1e-9)
    assert np.abs(f).max() > 0.5


def test_the_guide_is_factorised_and_normalised(double):
    """log q integrates to 1 and is a sum over layers; noise of one layer moves no other, and all layers read x."""
    ppl, changes = double, {"latent_dims": (1, 1), "width": 6}
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape=(3,), **changes))
    program = with_guide(program, bind_guide(PAGE, ppl.name, (3,), 0, changes))
    guide, rng = program.guide, np.random.default_rng(2)
    params = program.params | {n: p + 0.5 * ppl.asarray(rng.normal(size=tuple(p.shape)))
                               for n, p in guide.params.items()}  # fmt: skip
    x = ppl.asarray(np.tile(X[0], (len(PLANE), 1)))
    log_q = guide.log_density(params, {f"z{i}": ppl.asarray(PLANE[:, i - 1 : i]) for i in (1, 2)}, x)
    q = np.exp(ppl.to_numpy(log_q)).reshape(len(LINE), len(LINE)) * CELL
    assert q.sum() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(q, np.outer(q.sum(1), q.sum(0)), atol=1e-12)
    rest, _ = guide.at(params, guide.noise(ppl.key(0), 3), ppl.asarray(X))
    noise = guide.noise(ppl.key(0), 3)
    other, _ = guide.at(params, noise | {"z1": noise["z1"] + 1.0}, ppl.asarray(X))
    assert (ppl.to_numpy(other["z2"]) == ppl.to_numpy(rest["z2"])).all()
    assert (ppl.to_numpy(other["z1"]) != ppl.to_numpy(rest["z1"])).all()
    _, slope = ppl.value_and_grad(
        lambda x: sum(a.sum() for a in guide.at(params, noise, x)[0].values()), ppl.asarray(X)
    )
    assert (ppl.to_numpy(slope) != 0).all()
