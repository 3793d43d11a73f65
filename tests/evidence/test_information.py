"""Information, mismatch and discrepancy of a guide's aggregate, against quadrature and closed forms."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import pplebm
from pplebm.errors import PplebmError
from pplebm.evidence.discrepancy import u_statistic
from pplebm.evidence.estimate import Evidence
from pplebm.guides.amortized import amortized
from pplebm.guides.guide import Guide
from pplebm.objectives.mmd import kernel_of
from pplebm.program import Program

X = np.array([-2.0, -0.3, 0.1, 0.4, 1.5])
LINE = np.linspace(-9.0, 9.0, 241)
CELL = LINE[1] - LINE[0]


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def two_layers(ppl, x=X):
    """A tilted hierarchy and a guide that is not its posterior; the second latent is told nothing but by the first."""

    def model(x):
        with ppl.plate("data", len(x)):
            z2 = ppl.sample("z2", ppl.dist.Normal(0.0, 1.0))
            z1 = ppl.sample("z1", ppl.dist.Normal(0.6 * z2, 0.8))
            ppl.tilt("f", 2.0 / (1.0 + ppl.exp(-z1 - z2)))
            ppl.sample("x", ppl.dist.Normal(z1, 1.0), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            z1 = ppl.sample("z1", ppl.dist.Normal(0.7 * x + 0.2, 0.6))
            ppl.sample("z2", ppl.dist.Normal(0.3 * z1, 0.9))

    program = Program(model, data=x, backend=ppl.name)
    return program.with_guide(Guide(program, guide))


def on_plane():
    """Densities of the hierarchy above over a plane: the prior, normalised, its log Z, and the guide at every row."""
    z1, z2 = np.meshgrid(LINE, LINE, indexing="ij")
    prior = norm.pdf(z2) * norm.pdf(z1, 0.6 * z2, 0.8) * np.exp(2.0 / (1.0 + np.exp(-z1 - z2)))
    log_z = np.log(prior.sum() * CELL**2)
    return prior / np.exp(log_z), log_z, [norm.pdf(z1, 0.7 * x + 0.2, 0.6) * norm.pdf(z2, 0.3 * z1, 0.9) for x in X]


def divergence(q, p):
    return (q * (np.log(np.maximum(q, 1e-300)) - np.log(p))).sum() * CELL**2


def test_information_and_mismatch_are_those_of_quadrature(double):
    """With the tilted prior: its log Z is worth a nat and more."""
    program, (prior, log_z, parts) = two_layers(double), on_plane()
    found = pplebm.information(program, X, log_z=Evidence.of("exact", [log_z], [0.0]), n_draws=1000)
    mixture = np.mean(parts, 0)
    rate, mutual = np.mean([divergence(q, prior) for q in parts]), np.mean([divergence(q, mixture) for q in parts])
    assert abs(log_z) > 1.0
    assert abs(found.rate - rate) < 4.5 * found.rate_error < 0.15
    assert abs(found.mutual - mutual) < 4.5 * found.mutual_error < 0.1
    assert abs(found.mismatch - divergence(mixture, prior)) < 4.5 * found.mismatch_error < 0.15
    assert found.ceiling == np.log(5) > mutual > 0.3
    for site, slope, spread in (("z1", 0.7, 0.36), ("z2", 0.21, 0.81 + 0.09 * 0.36)):
        exact = slope**2 * X.var(ddof=1)
        error = (4 * exact * spread / 1000 / 4 + 2 * (spread / 1000) ** 2 / 4) ** 0.5
        assert abs(found.activity[site] - exact) < 4.5 * error


def test_errors_are_those_of_repetition(ppl):
    """Over seeds, values vary as their errors say; the error of log Z is in those it enters, and in no other."""
    program, (_, log_z, _) = two_layers(ppl), on_plane()
    exact = Evidence.of("exact", [log_z], [0.0])
    found = [pplebm.information(program, X, log_z=exact, n_draws=20, seed=seed) for seed in range(60)]
    for name in ("rate", "mutual", "mismatch"):
        spread = np.std([getattr(f, name) for f in found], ddof=1)
        told = np.mean([getattr(f, f"{name}_error") ** 2 for f in found]) ** 0.5
        assert abs(np.log(spread / told)) < 4.5 / (2 * 59) ** 0.5
    vague = pplebm.information(program, X, log_z=Evidence.of("vague", [log_z], [0.5]), n_draws=20, seed=0)
    assert vague.mutual_error == found[0].mutual_error
    assert vague.mismatch_error == pytest.approx((found[0].mismatch_error ** 2 + 0.25) ** 0.5)
    assert vague.rate_error == pytest.approx((found[0].rate_error ** 2 + 0.25) ** 0.5)


def test_probabilistic_pca_has_its_closed_forms(double):
    """Means over data sets of 300 rows: I = log |V + MCM'| / |V| / 2, and the divergence of two normal laws."""
    ppl, rng = double, np.random.default_rng(0)
    w = np.array([[1.0, 0.4], [-0.3, 0.9], [0.5, 0.2]])
    precision = np.eye(2) + w.T @ w / 0.49
    gain, v = 0.8 * np.linalg.solve(precision, w.T) / 0.49, 1.3 * np.diag(1.0 / np.diag(precision))
    aggregate = gain @ (w @ w.T + 0.49 * np.eye(3)) @ gain.T + v
    mutual = 0.5 * (np.linalg.slogdet(aggregate)[1] - np.linalg.slogdet(v)[1])
    shift = np.array([0.3, -0.2])
    mismatch = 0.5 * (np.trace(aggregate) + shift @ shift - 2 - np.linalg.slogdet(aggregate)[1])

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z @ ppl.asarray(w.T), 0.7).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            at = x @ ppl.asarray(gain.T) + ppl.asarray(shift)
            ppl.sample("z", ppl.dist.Normal(at, ppl.asarray(np.diag(v) ** 0.5)).to_event(1))

    draw = lambda: rng.normal(size=(300, 2)) @ w.T + 0.7 * rng.normal(size=(300, 3))
    program = Program(model, data=draw(), backend=ppl.name)
    program = program.with_guide(Guide(program, guide))
    found = [pplebm.information(program, draw(), n_draws=4, seed=seed) for seed in range(8)]
    for name, exact in (("mutual", mutual), ("mismatch", mismatch), ("rate", mutual + mismatch)):
        values = np.array([getattr(f, name) for f in found])
        assert abs(values.mean() - exact) < 4.5 * values.std(ddof=1) / 8**0.5 + 3.0 / 300  # of a mixture of 300
    assert found[0].n_active == 2


def test_rows_that_a_latent_tells_apart_are_log_n_and_a_guide_that_ignores_them_is_nothing(ppl):
    program = two_layers(ppl)

    def sharp(x):
        with ppl.plate("data", len(x)):
            z1 = ppl.sample("z1", ppl.dist.Normal(x, 0.001))
            ppl.sample("z2", ppl.dist.Normal(0.0 * z1, 1.0))

    def dull(x):
        with ppl.plate("data", len(x)):
            z1 = ppl.sample("z1", ppl.dist.Normal(0.0 * x, 1.0))
            ppl.sample("z2", ppl.dist.Normal(0.3 * z1, 1.0))

    known = Evidence.of("exact", [1.0], [0.0])
    sharp, dull = (pplebm.information(program, X, Guide(program, g), log_z=known, n_draws=500) for g in (sharp, dull))
    assert sharp.mutual == pytest.approx(np.log(5), abs=1e-5) and sharp.n_active == 1
    assert dull.mutual == pytest.approx(0.0, abs=1e-5) and dull.mutual_error < 1e-6 and dull.n_active == 0


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_discrepancy_is_that_of_quadrature(double, kernel):
    """Of a mixture of five normals, and a prior that is skewed by its tilt."""
    ppl = double

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", 3.0 / (1.0 + ppl.exp(-2.0 * z)))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.7 * x + 0.2, 0.4))

    program = Program(model, data=X, backend=ppl.name)
    program = program.with_guide(Guide(program, guide))
    prior = pplebm.sample_prior(program, n_chains=1000, n_draws=1, n_warmup=100, seed=1, progress=False)
    p = norm.pdf(LINE) * np.exp(3.0 / (1.0 + np.exp(-2.0 * LINE)))
    difference = np.mean([norm.pdf(LINE, 0.7 * x + 0.2, 0.4) for x in X], 0) - p / (p.sum() * CELL)
    k = kernel_of(np.exp, 1, kernel, 0.5)((LINE[:, None] - LINE) ** 2)
    exact = difference @ k @ difference * CELL**2
    found = pplebm.aggregate_mmd(program, X, prior=prior, kernel=kernel, bandwidth=0.5)
    assert abs(found.value - exact) < 4.5 * found.error < 0.6 * exact
    assert (found.kernel, found.bandwidth, found.n) == (kernel, 0.5, 1000)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_discrepancy_of_normals_is_its_closed_form_and_varies_as_its_error_says(ppl, shift):
    """Two latents as one vector; where both laws are one the statistic is degenerate, and its error holds as well."""

    def model(x):
        with ppl.plate("data", len(x)):
            z1 = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0))
            z2 = ppl.sample("z2", ppl.dist.Normal(0.0, 1.0))
            ppl.sample("x", ppl.dist.Normal(z1 + z2, 1.0), obs=x)

    scale = 0.5 if shift else 1.0

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z1", ppl.dist.Normal(shift + 0.0 * x, scale))
            ppl.sample("z2", ppl.dist.Normal(0.0 * x, scale))

    program = Program(model, data=X, backend=ppl.name)
    program = program.with_guide(Guide(program, guide))
    term = lambda s, apart: 2.0 / (2.0 + s) * np.exp(-(apart**2) / (2.0 * (2.0 + s)))  # h² = 2, d = 2
    exact = term(2.0, 0.0) + term(2.0 * scale**2, 0.0) - 2.0 * term(1.0 + scale**2, shift)
    found = [pplebm.aggregate_mmd(program, X, kernel="rbf", bandwidth=2**0.5, n=150, seed=seed) for seed in range(80)]
    values, errors = np.array([(f.value, f.error) for f in found]).T
    assert exact == pytest.approx(0.2447 if shift else 0.0, abs=1e-4)
    assert abs(values.mean() - exact) < 4.5 * values.std(ddof=1) / 80**0.5
    assert abs(np.log(values.std(ddof=1) / (errors**2).mean() ** 0.5)) < 4.5 * (0.04 if shift else 0.12) ** 0.5 / 2


def test_a_u_statistic_of_products_has_its_variance():
    """h = a b of numbers of mean m, variance 1: the value is m² on average; its variance, 4 m² / n + 2 / n (n - 1), is
    told without bias."""
    rng, n = np.random.default_rng(2), 30
    found = np.array([u_statistic(np.outer(a, a)) for a in 0.5 + rng.normal(size=(4000, n))])
    exact = 4 * 0.25 / n + 2.0 / (n * (n - 1))
    assert abs(found[:, 0].mean() - 0.25) < 4.5 * (exact / 4000) ** 0.5
    told = found[:, 1] ** 2
    assert abs(told.mean() - exact) < 4.5 * told.std() / 4000**0.5 < 0.06 * exact


def test_what_has_no_answer_is_refused(ppl):
    program = two_layers(ppl)
    known = Evidence.of("exact", [1.0], [0.0])
    with pytest.raises(PplebmError, match=r"tilted by 'f'.*log_z=pplebm\.log_z"):
        pplebm.information(program, X)
    with pytest.raises(PplebmError, match="too few draws"):
        pplebm.information(program, X, log_z=Evidence.of("bad", [1.0], [0.1], reasons=["too few draws"]))
    with pytest.raises(PplebmError, match="two rows and two draws or more, got 5 rows, 1 draws"):
        pplebm.information(program, X, log_z=known, n_draws=1)
    with pytest.raises(PplebmError, match=r"tilted by 'f'.*prior=pplebm\.sample_prior"):
        pplebm.aggregate_mmd(program, X)
    with pytest.raises(PplebmError, match="has no guide"):
        pplebm.information(program.with_guide(None), X, log_z=known)
    few = {"n_chains": 6, "n_draws": 1, "n_warmup": 5, "progress": False}
    with pytest.raises(PplebmError, match="not of posteriors"):
        pplebm.aggregate_mmd(program, X, prior=pplebm.sample(program, data=X, **few))
    with pytest.raises(PplebmError, match="bandwidth of a kernel must be positive"):
        pplebm.aggregate_mmd(program, X, prior=pplebm.sample_prior(program, **few), bandwidth=0.0)

    def model(x, c):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(c, 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    given = Program(model, data={"x": X, "c": X}, backend=ppl.name)
    with pytest.raises(PplebmError, match="reads the covariates c"):
        pplebm.information(given, {"x": X, "c": X})


def test_the_table_of_digits_is_of_what_is_kept():
    """Means over three seeds or more, with their decimals, in the order of the columns."""
    root = Path(__file__).resolve().parents[2]
    seeds = json.loads((root / "benchmarks" / "info_vae.json").read_text(encoding="utf-8"))["seeds"].values()
    lines = (root / "inference" / "README.md").read_text(encoding="utf-8").split("<!-- information: begin -->")[1]
    assert len(seeds) >= 3
    starts = {"info_vae": "| `info_vae` |", "autoencoder": "| autoencoder", "tilted": "| `variational_joint`, tilted"}
    for model, start in starts.items():
        line = next(line for line in lines.splitlines() if line.startswith(start))
        for cell, figure in zip(line.split("|")[2:], ("rate", "mutual", "mismatch", "MMD²"), strict=False):
            values = [seed[model][figure] for seed in seeds]
            digits = 4 if figure == "MMD²" else 2
            assert cell.strip() == f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
        assert f"{np.mean([seed[model]['log p(x)'] for seed in seeds]):.2f} ±" in line


@pytest.mark.parametrize("page", ["variational_joint", "info_vae"])
def test_a_run_is_asked_about_the_guide_that_it_has_learned(page, tmp_path):
    """The program of a run brings its learned guide along: nothing is told of the guide that learning began with."""
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    hyper = {"tilted": False, "batch_size": 20, "learning_rate": 0.05, "learning_rate_guide": 0.05}
    small = {"latent_dim": 2, "width": 8, "depth": 1}
    run = pplebm.fit("latent_ebm", x, page, tmp_path / "run", updates=20, hyper=hyper | small, progress=False)
    run = pplebm.open_run(tmp_path / "run")
    guide, settings = run.algorithm.guide, {"n_draws": 3, "seed": 4}
    found = pplebm.information(run.program, x, **settings)
    assert found.rate == pplebm.information(run.program, x, guide, params=run.params, **settings).rate
    begun = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), tilted=False, **small), data=x)
    first = amortized(begun, seed=0)
    untrained = pplebm.information(begun, x, first, **settings)
    assert abs(untrained.rate - found.rate) > 0.05
    draws = [pplebm.sample_guide(run.program, x[:3], n_draws=100, params=p) for p in (None, run.params)]
    np.testing.assert_array_equal(draws[0].values["z1"], draws[1].values["z1"])
    assert pplebm.aggregate_mmd(run.program, x).value == pplebm.aggregate_mmd(run.program, x, params=run.params).value
