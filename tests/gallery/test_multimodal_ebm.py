"""Several views of one latent: what is known of a view given others, in closed form and by quadrature."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import pplebm

PAGE = pplebm.load("multimodal_ebm")
LINE = np.linspace(-9.0, 9.0, 361)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2
LINEAR = {"latent_dim": 2, "depth": 0, "tilt_bound": 1e7, "sigma": 0.7}  # f is a·z + c: a closed form
BENT = {"latent_dim": 2, "depth": 1, "width": 5, "tilt_width": 5, "sigma": 0.7, "one_hot": ("kind",)}
VIEWS = {
    "left": np.array([[0.5, -1.0, 2.0], [-2.0, 0.0, 0.3], [1.0, 1.0, 1.0], [np.nan, 0.0, 0.0]]),
    "right": np.array([[[1.5], [0.2]], [[np.nan], [0.0]], [[-1.0], [0.4]], [[0.7], [-0.8]]]),
}
KIND = {"kind": np.eye(3)[[2, 0, 1, 1]]}
SEEN = [("left", "right"), ("left",), ("right",)]


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, views, hyper):
    """A program at parameters far from where they begin, and these."""
    data = PAGE.masked(views, one_hot=hyper.get("one_hot", ()))
    shape = {name: a.shape[1:] for name, a in data.items()}
    program = pplebm.Program(pplebm.bind("multimodal_ebm", ppl.name, shape=shape, **hyper), data=data)
    rng = np.random.default_rng(1)
    moved = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved


def linear_law(at):
    """Mean and covariance of (left, right) of a tilt a·z + c, under which z is N(a, I), and log Z = |a|²/2 + c."""
    a, matrix = at["tilt.weight_0"][0], np.concatenate([at[f"decoder_{name}.weight_0"] for name in ("left", "right")])
    mean = matrix @ a + np.concatenate([at[f"decoder_{name}.bias_0"] for name in ("left", "right")])
    return mean, matrix @ matrix.T + 0.49 * np.eye(5), 0.5 * a @ a + at["tilt.bias_0"][0]


def on_plane(program, data, row=None):
    """log p̃(x, z) of one row of data, or log p̃(z), over the plane."""
    ppl, z = program.ppl, {"z1": program.ppl.asarray(PLANE)}
    if row is None:
        return ppl.to_numpy(program.log_prior(program.params, z))
    copies = {name: np.repeat(a[row : row + 1], len(PLANE), 0) for name, a in data.items()}
    return ppl.to_numpy(program.log_joint(program.params, z, program.data(copies)))


@pytest.mark.parametrize("seen", SEEN, ids="+".join)
def test_the_evidence_of_the_views_that_are_there_is_a_normal_law(double, seen):
    """Of those rows and views alone that are seen: what is filled in where none is does not count."""
    program, at = program_of(double, VIEWS, LINEAR)
    mean, covariance, log_z = linear_law(at)
    assert logsumexp(on_plane(program, None)) + np.log(CELL) == pytest.approx(log_z, abs=1e-6)
    assert abs(log_z) > 0.2
    data = PAGE.masked(VIEWS, seen)
    flat = np.concatenate([VIEWS[name].reshape(4, -1) for name in ("left", "right")], 1)
    for row, values in enumerate(flat):
        there = np.repeat([data["observed_left"][row], data["observed_right"][row]], [3, 2])
        exact = 0.0
        if there.any():
            exact = multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(values[there])
        for fill in (0.0, 3.0):
            filled = {n: a + fill * (~data[f"observed_{n}"]).reshape(-1, *[1] * (a.ndim - 1)) if n in VIEWS else a
                      for n, a in data.items()}  # fmt: skip
            got = logsumexp(on_plane(program, filled, row)) + np.log(CELL) - log_z
            assert got == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(("seen", "wanted"), [("left", "right"), ("right", "left")])
def test_a_view_given_another_has_the_law_of_its_closed_form(double, seen, wanted):
    """Probabilistic canonical correlation under a tilt: means and covariances, 4.5 standard errors of 200 chains."""
    program, at = program_of(double, VIEWS, LINEAR)
    mean, covariance, _ = linear_law(at)
    places = {"left": np.arange(3), "right": np.arange(3, 5)}
    i, j, rows = places[seen], places[wanted], np.array([0, 2])
    gain = covariance[np.ix_(j, i)] @ np.linalg.inv(covariance[np.ix_(i, i)])
    spread = covariance[np.ix_(j, j)] - gain @ covariance[np.ix_(i, j)]
    data = {name: a[rows] for name, a in PAGE.masked(VIEWS, (seen,)).items()}
    draws = pplebm.sample(program, data=data, n_chains=200, n_draws=20, n_warmup=150, thin=2, progress=False)
    found = pplebm.predictive(draws, seed=1)[wanted].reshape(200, 20, 2, -1)
    for k, row in enumerate(rows):
        exact = mean[j] + gain @ (VIEWS[seen][row].ravel() - mean[i])
        off = found[:, :, k] - exact
        for by_chain, value in ((off.mean(1), 0.0), ((off[..., :, None] * off[..., None, :]).mean(1), spread)):
            error = by_chain.std(0, ddof=1) / 200**0.5
            assert (np.abs(by_chain.mean(0) - value) < 4.5 * error).all()


def test_a_class_given_numbers_is_that_of_quadrature(double):
    """A bent tilt and bent decoders: the mean over the posterior of softmax g(z), by the plane and by chains."""
    program, _ = program_of(double, VIEWS | KIND, BENT)
    data = {name: a[:3] for name, a in PAGE.masked(VIEWS | KIND, ("left", "right"), ("kind",)).items()}
    probabilities = double.to_numpy(program.predict(program.params, {"z1": double.asarray(PLANE)})["kind"])
    draws = pplebm.sample(program, data=data, n_chains=200, n_draws=10, n_warmup=150, thin=2, progress=False)
    by_chain = pplebm.predictive(draws, mean=True)["kind"].mean(1)
    counted = pplebm.predictive(draws, seed=2)["kind"].mean(1)
    for row in range(3):
        weights = on_plane(program, data, row)
        exact = np.exp(weights - logsumexp(weights)) @ probabilities
        for found in (by_chain[:, row], counted[:, row]):
            error = found.std(0, ddof=1) / 200**0.5
            assert (np.abs(found.mean(0) - exact) < 4.5 * error).all()
        full = on_plane(program, data | {name: np.ones(3, bool) for name in data if "_kind" in name}, row)
        kind = data["kind"][row].argmax()  # what `masked` filled in, now observed
        assert logsumexp(full) - logsumexp(weights) == pytest.approx(np.log(exact[kind]), abs=1e-6)


def test_masked_views_are_filled_with_valid_values():
    data = PAGE.masked(VIEWS | {"kind": np.array([[0.0, 1.0], [np.nan, np.nan]] * 2)}, ("left", "kind"), ("kind",))
    assert data["observed_left"].tolist() == [True, True, True, False]
    assert not data["observed_right"].any() and not data["right"].any()
    assert data["observed_kind"].tolist() == [True, False, True, False]
    np.testing.assert_array_equal(data["kind"], [[0.0, 1.0], [1.0, 0.0]] * 2)
    np.testing.assert_array_equal(data["left"][:3], VIEWS["left"][:3])


def test_learning_takes_what_rows_with_missing_views_tell(tmp_path):
    """Left is missing in half of the rows, right in the others: both means are learned to 4.5 standard errors."""
    rng, n = np.random.default_rng(3), 800
    views = {"left": 1.0 + 0.5 * rng.normal(size=(n, 2)), "right": -2.0 + 0.5 * rng.normal(size=(n, 1))}
    views["left"][: n // 2], views["right"][n // 2 :] = np.nan, np.nan
    hyper = {"latent_dim": 2, "depth": 0, "tilted": False, "sigma": 0.5, "batch_size": 128, "learning_rate": 0.02}
    run = pplebm.fit("multimodal_ebm", PAGE.masked(views), "variational_joint", tmp_path / "run", updates=400,
                     hyper=hyper, progress=False)  # fmt: skip
    for name, there in (("left", views["left"][n // 2 :]), ("right", views["right"][: n // 2])):
        bias = run.params[f"decoder_{name}.bias_0"].detach().numpy()
        assert (np.abs(bias - there.mean(0)) < 4.5 * there.std(0) / 320**0.5).all()
