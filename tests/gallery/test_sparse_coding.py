"""Sparse codes with atoms at zero: posteriors by quadrature, exact moments at the truth, atoms of bars found again."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import laplace, norm

import pplebm
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.ppl.language import load_backend
from pplebm.sampling.chains import run

PAGE = pplebm.load("sparse_coding")
LINE = np.linspace(-8.0, 8.0, 1601)


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def soft(u, t):
    return np.sign(u) * np.maximum(np.abs(u) - t, 0.0)


def program_of(ppl, columns, offset, **hyper):
    """A program whose atoms are the rows of `columns`, at another length than one, and whose offset is this."""
    n_atoms, width = columns.shape
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape=(width,), n_atoms=n_atoms, **hyper))
    lengths = np.linspace(0.5, 3.0, n_atoms)[:, None]
    params = {"atoms.weight_0": (lengths * columns).T, "atoms.bias_0": offset}
    return program.with_params(program.params | {name: ppl.asarray(a) for name, a in params.items()})


def one(ppl):
    """One atom: λ = t = 1, σ = 0.5."""
    return program_of(ppl, np.ones((1, 1)), np.zeros(1), rate=1.0, threshold=1.0, sigma=0.5)


def zeros_and_means(draws):
    """Share of zeros and mean of the code by chain."""
    s = draws["s"][:, :, 0]
    return {"zero": (s == 0.0).mean(1), "mean": s.mean(1)}


def exact_of_one(x=0.9):
    density = np.exp(laplace.logpdf(LINE) + norm.logpdf(x, soft(LINE, 1.0), 0.5))
    density /= density.sum()
    return {"zero": density[np.abs(LINE) <= 1.0].sum(), "mean": (density * soft(LINE, 1.0)).sum()}


@pytest.mark.parametrize("kernel", [None, mala(0.8)], ids=["default", "mala"])
def test_the_share_of_zeros_and_the_mean_are_those_of_quadrature(ppl, kernel):
    """P(s = 0 | x = 0.9) is 0.549; a gradient that passes through zeros as through codes would give 0.125."""
    draws = pplebm.sample(one(ppl), kernel, np.array([[0.9]]), n_chains=400, n_draws=60, n_warmup=200, thin=4,
                          progress=False)  # fmt: skip
    exact = exact_of_one()
    assert exact["zero"] == pytest.approx(0.549, abs=2e-3)
    for name, by_chain in zeros_and_means(draws).items():
        error = by_chain.std(ddof=1) / 400**0.5
        assert error < 0.015 and abs(by_chain.mean() - exact[name]) < 4.5 * error


def langevin_chains(ppl, passes_zeros, n_chains=4000, n_steps=2000):
    """Codes at the end of Langevin chains of small steps towards the posterior of `one`, by this gradient."""

    def log_density(z):
        u = z["u"][:, 0]
        s = ppl.where(u > 1.0, u - 1.0, ppl.where(u < -1.0, u + 1.0, 0.0 * u))
        s = u + ppl.stop_gradient(s - u) if passes_zeros else s
        return -abs(u) - 0.5 * ((0.9 - s) / 0.5) ** 2

    kernel, start = langevin(0.1), {"u": ppl.normal_like(ppl.key(0), {"u": ppl.asarray(np.zeros((n_chains, 1)))})["u"]}
    end, _ = run(ppl, ppl.key(1), kernel.init(ppl, start, log_density), log_density, kernel, n_steps)
    return soft(ppl.to_numpy(end.z["u"])[:, 0], 1.0)


def test_plain_langevin_needs_the_derivative_of_the_threshold():
    """As the card of the paper says: with it P(s = 0 | x) is 0.549 but for the bias of the steps, without it 0.125."""
    ppl = load_backend("numpyro")
    assert (langevin_chains(ppl, False) == 0.0).mean() == pytest.approx(exact_of_one()["zero"], abs=0.05)
    assert (langevin_chains(ppl, True) == 0.0).mean() == pytest.approx(0.125, abs=0.03)


COLUMNS = np.array([[0.8, 0.6, 0.0], [0.6, 0.48, 0.64]])  # cosine 0.768: codes compete
OFFSET = np.array([0.1, -0.2, 0.3])
HYPER = {"rate": 0.8, "threshold": 1.0, "sigma": 0.4}
X = np.array([[1.3, 0.4, 0.5], [-0.6, -0.5, 1.2], [0.2, 0.0, 0.3]])
SIDE = np.linspace(-9.0, 9.0, 601)
PLANE = np.stack([a.ravel() for a in np.meshgrid(SIDE, SIDE, indexing="ij")], 1)


def equation(u, x):
    """log p(x, u), written once more."""
    mean = soft(u, HYPER["threshold"]) @ COLUMNS + OFFSET
    return laplace.logpdf(u, scale=1.0 / HYPER["rate"]).sum(1) + norm.logpdf(x, mean, HYPER["sigma"]).sum(1)


FUNCTIONS = {
    "both are zero": lambda s: (s == 0.0).all(-1),
    "first alone": lambda s: (s[..., 0] != 0.0) & (s[..., 1] == 0.0),
    "second": lambda s: s[..., 1],
    "product": lambda s: s[..., 0] * s[..., 1],
    "skewed": lambda s: np.exp(0.5 * s[..., 0]),
}


def test_the_posterior_of_two_codes_is_that_of_quadrature(double):
    program = program_of(double, COLUMNS, OFFSET, **HYPER)
    u = np.random.default_rng(0).normal(scale=2.0, size=(3, 2))
    got = program.log_joint(program.params, {"u": double.asarray(u)}, double.asarray(X))
    np.testing.assert_allclose(double.to_numpy(got), equation(u, X), rtol=1e-10)
    draws = pplebm.sample(program, data=X, n_chains=200, n_draws=100, n_warmup=300, thin=3, progress=False)
    for row, x in enumerate(X):
        weights = equation(PLANE, x)
        weights = np.exp(weights - logsumexp(weights))
        for name, function in FUNCTIONS.items():
            exact = (weights * function(soft(PLANE, HYPER["threshold"]))).sum()
            by_chain = function(draws["s"][:, :, row]).mean(1)
            error = by_chain.std(ddof=1) / 200**0.5
            assert error < 0.03 and abs(by_chain.mean() - exact) < 4.5 * error + 1e-3, (row, name)


def test_the_evidence_of_sparse_codes_is_that_of_quadrature():
    program = program_of(load_backend("pyro"), COLUMNS, OFFSET, **HYPER)
    found = pplebm.log_evidence(program, X, progress=False)
    cell = (SIDE[1] - SIDE[0]) ** 2
    exact = np.array([logsumexp(equation(PLANE, x)) + np.log(cell) for x in X])
    assert (found.error < 0.1).all() and (np.abs(found.value - exact) < 5.0 * found.error + 1e-3).all()


def test_the_gradient_of_every_parameter_vanishes_at_the_truth():
    """Of the mean log likelihood of draws of the model, by draws of the codes; by their means it does not vanish."""
    ppl, n_groups = load_backend("pyro"), 20
    program = program_of(ppl, COLUMNS, OFFSET, **HYPER)
    z = program.draw_base(ppl.key(1), 60 * n_groups)
    x = ppl.to_numpy(program.predict(program.params, z, key=ppl.key(2))["x"])
    draws = pplebm.sample(program, data=x, n_chains=4, n_draws=5, n_warmup=200, thin=10, progress=False).latents["u"]
    at = lambda u, x: {
        name: ppl.to_numpy(g).ravel()
        for name, g in ppl.value_and_grad(lambda p: program.log_joint(p, {"u": ppl.asarray(u)}, ppl.asarray(x)).mean(),
                                          program.params)[1].items()}  # fmt: skip
    flat, rows = draws.reshape(20, -1, 2), np.arange(60 * n_groups).reshape(n_groups, 60)
    repeated = lambda r: (flat[:, r].reshape(-1, 2), np.tile(x[r], (20, 1)))
    gradients = [at(*repeated(r)) for r in rows]
    of_means = [at(flat[:, r].mean(0), x[r]) for r in rows]
    z_score = lambda found, name: np.abs(
        (a := np.stack([g[name] for g in found])).mean(0) / (a.std(0, ddof=1) / n_groups**0.5))  # fmt: skip
    for name in program.params:
        assert (z_score(gradients, name) < 5.0).all(), name
    assert max(z_score(of_means, name).max() for name in program.params) > 10.0


def mean_evidence(x, columns, offset, rate, threshold, sigma):
    """Mean of log p(x) over rows by quadrature, at steps of a tenth."""
    line = np.linspace(-12.0, 12.0, 241)
    u = np.stack([a.ravel() for a in np.meshgrid(line, line, indexing="ij")], 1)
    mean = soft(u, threshold) @ columns + offset
    prior = laplace.logpdf(u, scale=1.0 / rate).sum(1) - 0.5 * (mean**2).sum(1) / sigma**2
    terms = prior[:, None] + mean @ x.T / sigma**2
    rest = -0.5 * (x**2).sum(1) / sigma**2 - x.shape[1] * np.log(sigma * (2.0 * np.pi) ** 0.5)
    return (logsumexp(terms, 0) + rest).mean() + 2.0 * np.log(0.1)


def test_atoms_are_found_again_and_the_likelihood_is_that_of_the_truth(tmp_path):
    """From draws of the model, whose atoms have a cosine of 0.77, at its λ, t and σ.

    Nine numbers from 480 data cost 9 / 960 nats a datum, and twice that is allowed.
    """
    rng, n, hyper = np.random.default_rng(5), 600, {"rate": 1.0, "threshold": 1.5, "sigma": 0.2}
    s = soft(rng.laplace(size=(n, 2)), hyper["threshold"])
    x = s @ COLUMNS + hyper["sigma"] * rng.normal(size=(n, 3))
    begin = hyper | {"n_atoms": 2, "held": True, "learning_rate": 0.03, "batch_size": 480, "posterior.n_steps": 6}
    fitted = pplebm.fit("sparse_coding", x, "mle", tmp_path / "run", updates=400, hyper=begin, backend="numpyro",
                        progress=False)  # fmt: skip
    at = {name: np.asarray(a, float) for name, a in fitted.params.items()}
    cosine = np.abs(PAGE.atoms(at) @ COLUMNS.T)
    assert cosine[linear_sum_assignment(-cosine)].min() > 0.99
    likelihood = lambda columns, offset: mean_evidence(x, columns, offset, *hyper.values())
    truth, turned = likelihood(COLUMNS, np.zeros(3)), likelihood(COLUMNS[:, ::-1], np.zeros(3))
    assert likelihood(PAGE.atoms(at), at["atoms.bias_0"]) > truth - 9 / 480 > turned + 0.2


def test_scales_that_are_held_are_no_parameters(ppl):
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape=(4,), held=True, sigma=0.7))
    assert set(program.params) == {"atoms.weight_0", "atoms.bias_0"}
