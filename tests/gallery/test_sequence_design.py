"""Sequences given a property: prompts in closed form, one-step sequences by quadrature, and a design that is right."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import pplebm

PAGE = pplebm.load("sequence_design")
LINE = np.linspace(-8.0, 8.0, 201)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2
# U and m are affine, so that (z0, y) is normal; sequences have one step
LINEAR = {"symbols": 4, "tokens": 2, "token_dim": 1, "width": 3, "activation": "linear", "value_depth": 0, "units": 4,
          "tau": 0.5}  # fmt: skip
ONE_STEP = PAGE.known(np.arange(4)[:, None], [0.4, -1.0, 0.0, 1.2])


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, data=ONE_STEP, **hyper):
    """A program at parameters far from where they begin."""
    shape = {name: a.shape[1:] for name, a in data.items()}
    program = pplebm.Program(pplebm.bind("sequence_design", ppl.name, shape=shape, **(LINEAR | hyper)), data=data)
    rng = np.random.default_rng(3)
    moved = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()})


def property_law(program):
    """Slope a and constant c of y given z0, y ~ N(a·z0 + c, τ²), from the program's own mean of y."""
    at = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.7, -2.3]])
    terms = lambda y: program.ppl.to_numpy(program.log_likelihood(
        program.params, {"z0": program.ppl.asarray(at)}, program.data(PAGE.wanted(np.full(4, y), 1))))  # fmt: skip
    mean = (terms(1.0) - terms(-1.0)) * 0.5**2 / 2.0  # of normal laws: log N(1) - log N(-1) = 2 mean / τ²
    a, c = mean[1:3] - mean[0], mean[0]
    assert mean[3] == pytest.approx(at[3] @ a + c, abs=1e-9), "U and m are affine"
    return a, c


def on_plane(program, data):
    """log p(x, y, z0) of the one row of data, over the plane."""
    copies = program.data({name: np.repeat(a, len(PLANE), 0) for name, a in data.items()})
    return program.ppl.to_numpy(program.log_joint(program.params, {"z0": program.ppl.asarray(PLANE)}, copies))


def test_prompts_and_sequences_given_a_property_have_their_exact_law(double):
    """z0 given y is normal, by its moments; x given y by quadrature of its softmax; 4.5 standard errors of chains."""
    program = program_of(double)
    a, c = property_law(program)
    assert np.abs(a).max() > 0.2
    variance = a @ a + 0.25
    asked = np.array([c + 1.5, c - 1.0])
    draws = pplebm.sample(program, data=PAGE.wanted(asked, 1), n_chains=200, n_draws=20, n_warmup=150, thin=2,
                          progress=False)  # fmt: skip
    x = pplebm.predictive(draws, seed=1)["x"][..., 0]
    for k, y in enumerate(asked):
        mean, spread = a * (y - c) / variance, np.eye(2) - np.outer(a, a) / variance
        off = draws["z0"][:, :, k] - mean
        for by_chain, value in ((off.mean(1), 0.0), ((off[..., :, None] * off[..., None, :]).mean(1), spread)):
            error = by_chain.std(0, ddof=1) / 200**0.5
            assert (np.abs(by_chain.mean(0) - value) < 4.5 * error).all()
        weights = [on_plane(program, PAGE.known([[s]], [y])) for s in range(4)]
        joint = np.array([logsumexp(w) + np.log(CELL) for w in weights])
        assert logsumexp(joint) == pytest.approx(norm.logpdf(y, c, variance**0.5), abs=1e-6)
        shares = np.exp(joint - logsumexp(joint))
        found = np.array([(x[:, :, k] == s).mean(1) for s in range(4)])
        error = found.std(1, ddof=1) / 200**0.5
        assert (np.abs(found.mean(1) - shares) < 4.5 * error + 1e-3).all()


def test_the_evidence_of_rows_is_that_of_quadrature(double):
    """Under a bent U, of sequences of two steps: with both, with the property alone."""
    data = PAGE.known([[1, 2], [3, 0], [2, 2]], [0.4, -1.0, 1.2])
    data["observed_x"][2] = False
    program = program_of(double, data, activation="silu", value_depth=1, value_width=5)
    exact = [logsumexp(on_plane(program, {n: a[i : i + 1] for n, a in data.items()})) + np.log(CELL) for i in range(3)]
    found = pplebm.log_evidence(program, data, method="importance", proposal="base", progress=False)
    assert (np.abs(found.value - exact) < 4.5 * found.error + 1e-4).all()


def test_what_is_wanted_is_masked():
    data = PAGE.wanted([1.0, 2.0], 3)
    assert data["x"].shape == (2, 3) and not data["observed_x"].any() and data["observed_y"].all()
    both = PAGE.known([[1, 2, 0]], [0.5])
    assert both["x"].tolist() == [[1, 2, 0]] and both["observed_x"].all() and both["y"].tolist() == [0.5]


def test_designs_have_more_of_the_property_than_the_data(tmp_path):
    """The share of one symbol: sequences drawn for the best of the data have more than 9 in 10 of the data."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 4, size=(400, 6))
    y = (x == 1).mean(1)
    center, scale = y.mean(), y.std()
    hyper = {"symbols": 4, "units": 24, "width": 8, "value_width": 16, "batch_size": 100, "learning_rate": 0.01}
    run = pplebm.fit("sequence_design", PAGE.known(x, (y - center) / scale), "variational_joint", tmp_path / "run",
                     updates=300, hyper=hyper, compiled=False, progress=False)  # fmt: skip
    asked = PAGE.wanted(np.full(4, (y.max() - center) / scale), 6)
    draws = pplebm.sample(run.program, data=asked, n_chains=10, n_draws=5, n_warmup=150, thin=5, progress=False)
    designs = pplebm.predictive(draws, seed=1)["x"].reshape(-1, 6)
    assert np.median((designs == 1).mean(1)) > np.quantile(y, 0.9)
