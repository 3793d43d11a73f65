"""Factors of a window and of its pieces: masked probabilistic principal components under a tilt, in closed form."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import pplebm
from pplebm.errors import PplebmError
from pplebm.scores.entries import squared_errors

LINEAR = {"latent_dims": (1, 2, 2), "pieces": (4, 2, 1), "sigma": 0.6, "depth": 0, "tilt_bound": 1e7}  # σ moves too
T, C, N = 8, 2, 6
SITES = (("z3", 1, 2), ("z2", 2, 2), ("z1", 4, 1))  # of LINEAR: pieces, latents


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def windows_with_holes():
    """Windows and what is observed: one row whole, one without anything, one whose end is missing, others at random."""
    rng = np.random.default_rng(0)
    x, there = rng.normal(size=(N, T, C)) + [1.0, -0.5], rng.random((N, T, C)) < 0.6
    there[0], there[1], there[2] = True, False, np.arange(T)[:, None] < 5
    return x, there


def program_of(ppl, data, **hyper):
    """A program at parameters far from where they begin, and these."""
    model = pplebm.bind("series_factors", ppl.name, shape={"x": (T, C)}, **{**LINEAR, **hyper})
    program = pplebm.Program(model, data=data)
    rng = np.random.default_rng(1)
    moved = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved


def law(at):
    """Matrix and mean of x, (16, 10) and (16,), prior mean of z, (10,), and log Z: z = (z3, z2 by half, z1 by quarter).

    Written out quarter by quarter: the columns of the decoder's matrix are those of z3, z2 and z1.
    """
    weight, bias, matrix = at["decoder.weight_0"], at["decoder.bias_0"], np.zeros((T * C, 10))
    for quarter in range(4):
        rows = slice(4 * quarter, 4 * quarter + 4)
        matrix[rows, 0:2] = weight[:, 0:2]  # one for the window
        half = 2 + 2 * (quarter // 2)
        matrix[rows, half : half + 2] = weight[:, 2:4]
        matrix[rows, 6 + quarter] = weight[:, 4]
    center, a = np.zeros(10), at["tilt.weight_0"][0]
    center[:2] = a
    return matrix, np.tile(bias, 4), center, 0.5 * a @ a + at["tilt.bias_0"][0]


def posterior(at, x, there):
    """Mean and covariance of z given the observed entries of one window, and their log density."""
    matrix, offset, center, _ = law(at)
    seen, values = there.ravel(), x.ravel()
    noise = np.exp(2 * at["log_sigma"])
    g, residual = matrix[seen], values[seen] - offset[seen] - matrix[seen] @ center
    covariance = np.linalg.inv(np.eye(10) + g.T @ g / noise)
    mean = center + covariance @ g.T @ residual / noise
    log_p = 0.0
    if seen.any():
        log_p = multivariate_normal(np.zeros(seen.sum()), g @ g.T + noise * np.eye(seen.sum())).logpdf(residual)
    return mean, covariance, log_p


def split(z):
    """Rows of z = (z3, z2, z1) as latents."""
    found, at = {}, 0
    for name, pieces, size in SITES:
        found[name] = z[:, at : at + pieces * size].reshape(-1, pieces, size)
        at += pieces * size
    return found


@pytest.mark.parametrize("fill", [0.0, 3.0], ids=["filled with 0", "filled with 3"])
def test_the_evidence_of_what_is_observed_is_that_of_the_normal_law(double, fill):
    """log p̃(x, z) - log Z - log p(z | x) = log p(x observed) at any z: so posterior and evidence are both right."""
    x, there = windows_with_holes()
    data = {"x": np.where(there, x, fill), "observed_x": there}
    program, at = program_of(double, data)
    log_z = law(at)[-1]
    assert abs(log_z) > 0.2
    rng = np.random.default_rng(2)
    for row in range(N):
        mean, covariance, log_p = posterior(at, x[row], there[row])
        z = rng.multivariate_normal(mean, covariance, size=4)
        copies = {name: np.repeat(a[row : row + 1], 4, 0) for name, a in data.items()}
        latents = {name: double.asarray(a) for name, a in split(z).items()}
        joint = double.to_numpy(program.log_joint(program.params, latents, program.data(copies)))
        got = joint - log_z - multivariate_normal(mean, covariance).logpdf(z)
        np.testing.assert_allclose(got, log_p, atol=1e-8)


def test_missing_entries_and_forecasts_have_the_law_of_the_closed_form(double):
    """Mean and covariance of the last three steps given the others, within 4.5 standard errors of 200 chains."""
    x, there = windows_with_holes()
    data = {"x": np.where(there, x, 0.0)[2:3], "observed_x": there[2:3]}
    program, at = program_of(double, data)
    mean, covariance, _ = posterior(at, x[2], there[2])
    matrix, offset, _, _ = law(at)
    lost = ~there[2].ravel()
    exact = offset[lost] + matrix[lost] @ mean
    spread = matrix[lost] @ covariance @ matrix[lost].T + np.exp(2 * at["log_sigma"]) * np.eye(lost.sum())
    draws = pplebm.sample(program, data=data, n_chains=200, n_draws=20, n_warmup=150, thin=2, progress=False)
    off = pplebm.predictive(draws, seed=1)["x"].reshape(200, 20, -1)[..., lost] - exact
    for by_chain, value in ((off.mean(1), 0.0), ((off[..., :, None] * off[..., None, :]).mean(1), spread)):
        error = by_chain.std(0, ddof=1) / 200**0.5
        assert (np.abs(by_chain.mean(0) - value) < 4.5 * error).all()


def test_intervals_of_missing_entries_and_forecasts_cover_nine_in_ten(double):
    """Of windows that the model itself makes: shares of the entries of a window, within 4.5 standard errors."""
    program, at = program_of(double, {"x": np.zeros((2, T, C)), "observed_x": np.ones((2, T, C), bool)})
    matrix, offset, center, _ = law(at)
    rng, n = np.random.default_rng(5), 150
    z = center + rng.normal(size=(n, 10))
    x = (z @ matrix.T + offset + np.exp(at["log_sigma"]) * rng.normal(size=(n, T * C))).reshape(n, T, C)
    there = rng.random((n, T, C)) < 0.8
    there[:, -2:] = False  # a forecast of two steps
    data = {"x": np.where(there, x, 0.0), "observed_x": there}
    draws = pplebm.sample(program, data=data, n_chains=10, n_draws=20, n_warmup=150, thin=3, progress=False)
    found = pplebm.predictive(draws, seed=1)["x"].reshape(200, n, T, C)
    low, high = np.quantile(found, (0.05, 0.95), axis=0)
    covered = ((low <= x) & (x <= high)).astype(float)
    for some in (~there, np.broadcast_to(np.arange(T)[:, None] >= T - 2, there.shape)):
        share = (covered * some).sum((1, 2)) / some.sum((1, 2))
        assert abs(share.mean() - 0.9) < 4.5 * share.std(ddof=1) / n**0.5 + 1 / 200  # of 200 draws


def test_squared_errors_of_entries_are_those_of_exact_draws(double):
    """E[(x - E[x|z])² | x] = (x - E[x|x])² + Var(E[x|z] | x), entry by entry, within 4.5 standard errors."""
    x, there = windows_with_holes()
    data = {"x": np.where(there, x, 0.0), "observed_x": there}
    program, at = program_of(double, data)
    matrix, offset, _, _ = law(at)
    rng, n, z, exact, error = np.random.default_rng(4), 4000, [], [], []
    for row in range(N):
        mean, covariance, _ = posterior(at, x[row], there[row])
        z.append(rng.multivariate_normal(mean, covariance, size=n))
        off, variance = data["x"][row].ravel() - offset - matrix @ mean, np.diag(matrix @ covariance @ matrix.T)
        exact.append(off**2 + variance)
        error.append(np.sqrt((2 * variance**2 + 4 * variance * off**2) / n))
    latents = {name: a.reshape(n, 1, N, *a.shape[1:]) for name, a in split(np.stack(z, 1).reshape(-1, 10)).items()}
    found = squared_errors(program, program.params, program.data(data), latents)["x"].reshape(N, -1)
    assert (np.abs(found - np.array(exact)) < 4.5 * np.array(error) + 1e-12).all()


@pytest.mark.parametrize("decoder", ["dense", "conv"])
def test_a_piece_depends_on_its_own_factors_and_those_above(double, decoder):
    """And on no other piece's: moved one by one."""
    program, _ = program_of(double, {"x": np.zeros((1, T, C))}, decoder=decoder, depth=1)
    mean = lambda z: double.to_numpy(program.predict(program.params, {n: double.asarray(a) for n, a in z.items()})["x"])
    at = split(np.random.default_rng(3).normal(size=(1, 10)))
    for name, pieces, _ in SITES:
        for piece in range(pieces):
            moved = {n: a.copy() for n, a in at.items()}
            moved[name][0, piece] += 1.0
            changed = (np.abs(mean(moved) - mean(at))[0] > 1e-9).any(-1)
            own = np.arange(T) * pieces // T == piece
            assert (changed == own).all()


@pytest.mark.parametrize(
    "wrong", [{"pieces": (3, 1)}, {"pieces": (4, 3, 1)}, {"latent_dims": (2, 2)}], ids=lambda w: next(iter(w))
)
def test_pieces_that_do_not_fit_are_refused(wrong):
    with pytest.raises(PplebmError, match=r"shape \(8, 2\), pieces=.*divisor"):
        pplebm.bind("series_factors", shape={"x": (T, C)}, **{**LINEAR, **wrong})(np.zeros((2, T, C)))
