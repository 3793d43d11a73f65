"""A flow as prior: one posterior in two coordinates, normal laws in closed form, and what is learned and predicted."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import pplebm
from pplebm.learning.algorithm import Algorithm
from pplebm.program import Program

PAGE = pplebm.load("latent_flow")
SHAPE = {"x": (3,), "observed_x": (3,)}
BENT = {"latent_dim": 2, "n_layers": 3, "flow_width": 5, "width": 5, "depth": 1, "sigma": 0.6}
AFFINE = {"latent_dim": 2, "n_layers": 3, "flow_depth": 0, "depth": 0, "sigma": 0.6}
X = np.array([[0.5, -1.0, 2.0], [np.nan, 0.0, 0.3], [1.0, np.nan, np.nan], [np.nan] * 3])
LINE = np.linspace(-9.0, 9.0, 361)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, hyper, x=X):
    """A program at parameters far from where they begin, and these; stretches of an affine flow read no input."""
    data = PAGE.masked(x)
    program = Program(pplebm.bind("latent_flow", ppl.name, shape=SHAPE, **hyper), data=data)
    rng = np.random.default_rng(2)
    moved = {n: ppl.to_numpy(p) + 0.5 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    for name in moved:
        if hyper is AFFINE and name.startswith("prior") and name.endswith("weight_0"):
            moved[name][:2] = 0.0
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved, program.data(data)


def chains(program, data, **settings):
    return pplebm.sample(program, data=data, n_chains=200, n_draws=20, n_warmup=200, thin=3, progress=False, **settings)


def is_near(by_chain, exact):
    """Whether means over chains are within 4.5 of their standard errors."""
    error = by_chain.std(0, ddof=1) / len(by_chain) ** 0.5
    return bool((np.abs(by_chain.mean(0) - exact) < 4.5 * error).all())


def test_densities_in_z_and_in_u_differ_by_the_jacobian(double):
    """log p̃(x, u) = log p̃(x, T(u)) + log |∂T/∂u|, by central differences, and log p̃(u) = log N(u; 0, I)."""
    program, _, data = program_of(double, BENT)
    base, u = program.with_coordinates("noncentered"), np.random.default_rng(3).normal(size=(4, 2))
    to_z = lambda u: double.to_numpy(base.move(program.params, {"z1": double.asarray(u)}, "centered")["z1"])
    columns = [(to_z(u + 1e-5 * e) - to_z(u - 1e-5 * e)) / 2e-5 for e in np.eye(2)]
    log_det = np.linalg.slogdet(np.stack(columns, -1))[1]
    in_z = double.to_numpy(program.log_joint(program.params, {"z1": double.asarray(to_z(u))}, data))
    in_u = double.to_numpy(base.log_joint(program.params, {"z1": double.asarray(u)}, data))
    assert np.abs(log_det).min() > 0.05
    np.testing.assert_allclose(in_u, in_z + log_det, atol=1e-7)
    prior = double.to_numpy(base.log_prior(program.params, {"z1": double.asarray(u)}))
    np.testing.assert_allclose(prior, norm.logpdf(u).sum(-1), atol=1e-10)


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_posteriors_in_z_and_in_u_are_one_law(double, coordinates):
    """A bent flow and decoder, numbers missing: z has the moments of quadrature over z, whichever way chains move."""
    program, _, data = program_of(double, BENT)
    z = chains(program.with_coordinates(coordinates), data)["z1"]
    for row in range(4):
        copies = {name: double.asarray(np.repeat(double.to_numpy(a)[row : row + 1], len(PLANE), 0))
                  for name, a in data.items()}  # fmt: skip
        weights = double.to_numpy(program.log_joint(program.params, {"z1": double.asarray(PLANE)}, copies))
        weights = np.exp(weights - logsumexp(weights))
        for function in (lambda z: z, lambda z: z**2, lambda z: np.tanh(z[..., 0] + 0.5) * z[..., 1] ** 2):
            assert is_near(function(z[:, :, row]).mean(1), np.tensordot(weights, function(PLANE), 1))


def affine_law(at):
    """Mean and covariance of z where all stretches are constant: T(u) = A u + b, layer by layer."""
    a, b = np.eye(2), np.zeros(2)
    for i in range(3):
        kept, weight, bias = (np.arange(2) + i) % 2.0, at[f"prior.{i}.weight_0"], at[f"prior.{i}.bias_0"]
        s = bias[:2] / (1.0 + np.abs(bias[:2]) / 2.0)
        step = np.diag(kept + (1.0 - kept) * np.exp(s)) + (1.0 - kept)[:, None] * weight[2:] * kept
        a, b = step @ a, step @ b + (1.0 - kept) * bias[2:]
    return b, a @ a.T


def test_an_affine_flow_with_a_matrix_is_normal_throughout(double):
    """log p(z), log p(x) of what is observed, and z given it, in closed form; missing numbers given the others."""
    program, at, data = program_of(double, AFFINE)
    (mean, covariance), w, c = affine_law(at), at["decoder.weight_0"], at["decoder.bias_0"]
    z = np.random.default_rng(4).normal(size=(5, 2))
    found = double.to_numpy(program.log_prior(program.params, {"z1": double.asarray(z)}))
    np.testing.assert_allclose(found, multivariate_normal(mean, covariance).logpdf(z), rtol=1e-9)
    assert np.abs(covariance - np.eye(2)).max() > 0.3
    draws = chains(program, data)
    posterior, predicted = draws["z1"], pplebm.predictive(draws, seed=1)["x"]
    evidence = pplebm.log_evidence(program, data, progress=False)
    for row in range(4):
        seen = np.isfinite(X[row])
        law = w[seen] @ covariance @ w[seen].T + 0.36 * np.eye(seen.sum())
        exact = multivariate_normal(w[seen] @ mean + c[seen], law).logpdf(X[row, seen]) if seen.any() else 0.0
        assert abs(evidence.value[row] - exact) < 4.5 * evidence.error[row] + 1e-6
        gain = covariance @ w[seen].T @ np.linalg.inv(law)
        given = mean + gain @ (X[row, seen] - w[seen] @ mean - c[seen])
        spread = covariance - gain @ w[seen] @ covariance
        off = posterior[:, :, row] - given
        assert is_near(off.mean(1), 0.0)
        assert is_near((off[..., :, None] * off[..., None, :]).mean(1), spread)
        off = predicted[:, :, row] - w @ given - c
        assert is_near(off.mean(1), 0.0)
        assert is_near((off**2).mean(1), np.diag(w @ spread @ w.T) + 0.36)


def test_a_short_run_as_published_starts_normal_in_z(double):
    """Not at T(N(0, I)), which is the law of the prior; one step is z + s²/2 ∇ log p̃(x, z) + s ξ on average."""
    program, at, _ = program_of(double, AFFINE)
    page, n, s = pplebm.load("short_run_mle"), 20_000, 0.3
    changes = {"n_steps": 1, "step_size": s, "coordinates": "centered", "kernel": "langevin"}
    owner = Algorithm(page, program, page.Hyper(posterior=page.Hyper().posterior._replace(**changes)))
    data = program.data({name: np.repeat(a[:1], n, 0) for name, a in PAGE.masked(X).items()})
    z = double.to_numpy(owner.positive(double.key(0), program.params, data).z["z1"])
    (mean, covariance), w = affine_law(at), at["decoder.weight_0"]
    precision = np.linalg.inv(covariance) + w.T @ w / 0.36
    pull = np.linalg.solve(covariance, mean) + w.T @ (X[0] - at["decoder.bias_0"]) / 0.36
    step = np.eye(2) - 0.5 * s**2 * precision
    law = step @ step.T + s**2 * np.eye(2)
    np.testing.assert_array_less(np.abs(z.mean(0) - 0.5 * s**2 * pull), 4.5 * (np.diag(law) / n) ** 0.5)
    error = (np.outer(np.diag(law), np.diag(law)) + law**2) ** 0.5 / n**0.5
    np.testing.assert_array_less(np.abs(np.cov(z.T) - law), 4.5 * error)


def log_p(run, x, there):
    """log p of what is observed, by quadrature over noise u of the flow."""
    ppl, grid = run.program.ppl, np.stack([a.ravel() for a in np.meshgrid(*[np.linspace(-5, 5, 81)] * 2)], 1)
    base = run.program.with_coordinates("noncentered")
    rows = base.data({"x": np.zeros((len(grid), 4), np.float32), "observed_x": np.ones((len(grid), 4), bool)})
    means = ppl.to_numpy(base.predict(run.params, {"z1": ppl.asarray(grid.astype(np.float32))}, data=rows)["x"])
    likelihood = sum(norm.logpdf(x[:, None, j], means[:, j], 0.5) * there[:, None, j] for j in range(4))
    return logsumexp(likelihood + norm.logpdf(grid).sum(-1), axis=1) + np.log(1.0 / 64.0)


W, CENTER = np.array([[1.0, 0.3], [-0.5, 1.2], [0.8, -0.7], [0.2, 0.9]]), np.array([0.5, 0.0, -1.0, 0.2])


def learned_from(folder, factors, there):
    """What is learned from half of the rows x = W factors + noise; log p of the others, and of the normal law there."""
    x = factors @ W.T + CENTER + 0.5 * np.random.default_rng(7).normal(size=(len(factors), 4))
    hyper = {"latent_dim": 2, "n_layers": 4, "flow_width": 16, "depth": 0, "sigma": 0.5, "learning_rate": 0.01,
             "batch_size": 128}  # fmt: skip
    run = pplebm.fit("latent_flow", PAGE.masked(x[:1500], there[:1500]), "variational_joint", folder / "run",
                     updates=700, hyper=hyper, held_out_fraction=0.0, backend="numpyro", progress=False)  # fmt: skip
    covariance = W @ W.T + 0.25 * np.eye(4)
    normal = np.array([multivariate_normal(CENTER[t], covariance[np.ix_(t, t)]).logpdf(row[t]) if t.any() else 0.0
                       for row, t in zip(x[1500:], there[1500:], strict=True)])  # fmt: skip
    z = run.program.draw_base(run.program.ppl.key(0), 20_000, run.params)
    rows = run.data(PAGE.masked(np.zeros((20_000, 4), np.float32)))
    g = run.program.ppl.to_numpy(run.program.predict(run.params, z, data=rows)["x"])
    return log_p(run, x[1500:], there[1500:]), normal, (g - CENTER) @ np.linalg.pinv(W).T


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_flow_learned_from_probabilistic_pca_is_normal(tmp_path, missing):
    """As likely as the truth on new data, but for what 20 numbers learned from 1500 rows cost; factors are N(0, I).

    z is so up to a linear map, which generator and flow share; the factors that the generator makes of it are free of
    that. Bounds are 4.5 standard errors of 1500 rows, of which a third of the information may be missing.
    """
    rng = np.random.default_rng(6)
    found, exact, factors = learned_from(tmp_path, rng.normal(size=(3000, 2)), rng.random((3000, 4)) >= missing)
    loss = exact - found
    assert loss.mean() < 20 / (2 * 1500) + 4.5 * loss.std() / 1500**0.5
    for power, exact, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert (np.abs((factors**power).mean(0) - exact) < 4.5 * (1.5 * spread / 1500) ** 0.5).all()
    assert abs((factors[:, 0] * factors[:, 1]).mean()) < 4.5 * (1.5 / 1500) ** 0.5


def test_a_flow_learns_factors_that_are_not_normal(tmp_path):
    """One factor is exponential: the flow is likelier than the normal law of the same moments, and skewed like it."""
    rng = np.random.default_rng(6)
    truth = np.stack([rng.exponential(size=3000) - 1.0, rng.normal(size=3000)], 1)
    found, normal, factors = learned_from(tmp_path, truth, np.ones((3000, 4), bool))
    gain = found - normal
    assert gain.mean() > 0.05 + 4.5 * gain.std() / 1500**0.5
    assert (factors[:, 0] ** 3).mean() > 1.0 > abs((factors[:, 1] ** 3).mean())  # 2 and 0


def test_missing_numbers_are_masked_and_filled():
    data = PAGE.masked(X, [True, True, False])
    assert data["observed_x"].tolist() == [[True, True, False], [False, True, False], [True] + [False] * 2, [False] * 3]
    assert data["x"].tolist() == [[0.5, -1.0, 0.0], [0.0] * 3, [1.0, 0.0, 0.0], [0.0] * 3]
