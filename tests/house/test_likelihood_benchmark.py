"""The benchmark of held-out likelihoods: its exact answers are exact, its twin has no tilt, and its cells are kept."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path

import identifiable
import numpy as np
import pytest
import skewed_scale
from beds import bed
from exact import arrays_of
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import pplebm
from pplebm.errors import PplebmError

pytest.importorskip("numpyro")
ROOT = Path(__file__).resolve().parents[2] / "benchmarks"
FEW = 256  # rows; a batch of every page fits


@pytest.fixture(scope="module")
def part():
    """A module of the benchmark by name."""
    sys.path.insert(0, str(ROOT))
    yield importlib.import_module
    sys.path.remove(str(ROOT))


@pytest.fixture
def known(part):
    """Generators by name."""
    return {name: make() for name, make in part("likelihood_parts.known").KNOWN.items()}


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def scale_program(ppl, values, data):
    """The program of the skewed scale at those parameters."""
    params = lambda: {k: ppl.param(k, np.array(v)) for k, v in values.items()}
    model = skewed_scale.declare(ppl, arrays_of(ppl.name), params)
    return pplebm.Program(model, data=data, backend=ppl.name, coordinates="centered")


@pytest.mark.parametrize("b", [1.2, -0.7])
def test_the_skewed_scale_is_that_of_a_plane_of_points(double, b):
    """log p(x | c) and log Z(c) by a sum over u and z of the program's own densities, which know no closed form."""
    values = skewed_scale.TRUE | {"b": b}
    data = {"c": np.array([0.0, 1.5, -2.0]), "x": np.array([[0.3, 0.5], [2.5, 3.0], [-1.5, 0.1]])}
    program, vector = scale_program(double, values, data), list(values.values())
    log_u, t = np.meshgrid(np.linspace(-6.0, 5.0, 401), np.linspace(-8.0, 8.0, 401), indexing="ij")
    log_u, t, steps = log_u.ravel(), t.ravel(), (11.0 / 400) * (16.0 / 400)
    u = np.exp(log_u)
    for i in range(3):
        rows = {k: np.repeat(a[i : i + 1], len(u), 0) for k, a in data.items()}
        sites = {"u": u, "z": values["d"] * rows["c"] + u * t}  # dz = u dt, du = u dlog u
        z = {k: double.asarray(v) for k, v in sites.items()}
        rows = program.data(rows)
        latents = program.unconstrain(program.params, z, rows)
        log = lambda of, latents=latents, rows=rows: double.to_numpy(of(program.params, latents, rows)).astype(float)
        prior, joint = log(program.log_prior), log(program.log_joint)
        jacobian = np.log(steps) + log_u  # of z; the program's coordinate of u is log u already
        log_z = logsumexp(prior + jacobian)
        assert skewed_scale.log_z(vector, data["c"])[i] == pytest.approx(log_z, abs=1e-5)
        found = skewed_scale.log_evidence(vector, data)[i]
        assert found == pytest.approx(logsumexp(joint + jacobian) - log_z, abs=1e-5)


def test_simulated_scales_have_the_moments_of_the_tilted_prior():
    """Over a grid of u itself, not of its logarithm, at the covariates that were drawn."""
    n, p = 4000, skewed_scale.TRUE
    data = skewed_scale.simulate(n, 5)
    c, x = data["c"].astype(float), data["x"].astype(float)
    u = np.linspace(0.005, 60.0, 12000)
    log_base = -0.5 * ((np.log(u) - p["m"] - p["e"] * c[:200, None]) / np.exp(p["ls"])) ** 2 - np.log(u)
    weight = np.exp(log_base) * (1.0 + u**4) ** p["b"]
    weight /= weight.sum(1, keepdims=True)
    noise = np.exp(2.0 * p["lsig"])
    mean, square = (weight * u).sum(1), (weight * u**2).sum(1)
    for value, wanted in ((x[:200, 1], mean), (x[:200, 1] ** 2, square + noise),
                          ((x[:200, 0] - p["d"] * c[:200]) ** 2, square + noise)):  # fmt: skip
        off = value - wanted
        assert abs(off.mean()) < 4.0 * off.std() / 200**0.5


def test_the_twin_is_the_same_model_without_its_tilt(known):
    for name in ("identifiable", "skewed_scale"):
        data = known[name].simulate(8, 0)
        tilted, twin = (
            pplebm.Program(known[name].model("numpyro", t)[0], data=data, backend="numpyro") for t in (True, False)
        )
        assert tilted.tilts and not twin.tilts
        assert set(tilted.params) - set(twin.params) == set(known[name].of_tilts)
        values = {k: twin.ppl.asarray(known[name].truth[k]) for k in tilted.params}
        values |= {k: 0.0 * values[k] for k in known[name].of_tilts}
        z = twin.draw_base(twin.ppl.key(0), twin.data(data), {k: values[k] for k in twin.params})
        found = [p.ppl.to_numpy(p.log_joint({k: values[k] for k in p.params}, z, p.data(data))) for p in (tilted, twin)]
        np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("name", ["univariate", "linear_6"])
def test_a_page_has_the_likelihood_of_its_bed(known, name):
    found = known["univariate_tilts" if name == "univariate" else "linear_gaussian"]
    there = bed(name)  # by 601 points along an axis, where the benchmark has 121: kinks of the decoder leave O(h²)
    np.testing.assert_allclose(found.log_evidence(found.truth, there.data), there.log_evidence, atol=5e-5)


def test_the_maximum_is_that_of_the_identifiable_hierarchy(part):
    x, top = identifiable.case(40, seed=3)
    found = part("likelihood_parts.known").highest(lambda v: identifiable.log_evidence(v, x), top + 0.05)
    of = lambda v: identifiable.log_evidence(v, x).mean()
    assert of(found) == pytest.approx(of(top), abs=1e-6)


def test_no_linear_gaussian_model_exceeds_its_maximum(part, known):
    """The truth, and models around the maximum; the density of the maximum is that of a normal law of the family."""
    parts, rng = part("likelihood_parts.known"), np.random.default_rng(0)
    linear, sigma = known["linear_gaussian"], bed("linear_6").hyper["sigma"]
    x = linear.simulate(400, 0).astype(float)
    best = parts.linear_maximum(x, x, sigma, 3).mean()
    assert best > linear.log_evidence(linear.truth, x).mean()
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    for size in (0.0, 0.01, 0.03, 0.1, 0.3):
        for _ in range(20):
            weight = axes[:, 1:] * np.sqrt(np.maximum(values[1:] - sigma**2, 0.0)) + size * rng.normal(size=(4, 3))
            mean = weight @ (np.linalg.lstsq(weight, x.mean(0), rcond=None)[0] + size * rng.normal(size=3))
            law = multivariate_normal(mean, weight @ weight.T + sigma**2 * np.eye(4))
            assert law.logpdf(x).mean() <= best + 1e-9
    normal = axes[:, 0] + 0.1 * rng.normal(size=4)
    plane = np.linalg.svd(normal[None])[2][1:].T
    within = np.cov((x @ plane).T, bias=True)
    covariance = plane @ within @ plane.T + sigma**2 * np.outer(normal, normal) / (normal @ normal)
    law = multivariate_normal(plane @ plane.T @ x.mean(0), covariance)
    assert np.linalg.eigvalsh(within).min() > sigma**2
    np.testing.assert_allclose(parts._by_normal(x, x[:9], normal, sigma), law.logpdf(x[:9]), rtol=1e-9)


def test_a_cell_has_exact_figures(part, known):
    cells = part("likelihood_parts.cells")
    settings = cells.Settings(updates=2, n_train=FEW, n_held_out=30)
    found = cells.measured("skewed_scale", "short_run_mle", 0, settings)
    held_out = known["skewed_scale"].simulate(30, 1)
    truth = skewed_scale.log_evidence(list(skewed_scale.TRUE.values()), held_out).mean()
    assert set(found["models"]) == {"tilted", "base", "twin"} and found["updates of tilted"] == 2
    for of in found["models"].values():
        assert of["mean"] + of["below_truth"] == pytest.approx(truth) and of["below_truth_error"] > 0
    assert found["models"]["tilted"]["mean"] != found["models"]["base"]["mean"]


def test_a_refusal_is_told(part, monkeypatch):
    cells = part("likelihood_parts.cells")

    def refused(*args, **settings):
        raise PplebmError("it cannot be.")

    monkeypatch.setattr(cells.pplebm, "fit", refused)
    found = cells.measured("identifiable", "short_run_mle", 0, cells.Settings(n_train=20, n_held_out=5))
    assert found["models"] == {name: {"refused": "PplebmError: it cannot be."} for name in ("tilted", "twin")}
    line = part("likelihood_parts.tables").table({"identifiable/short_run_mle/0": found}).splitlines()[4]
    assert "(1 refused)" in line and "1, 1 refused" in line


def test_a_baseline_learns_the_model_without_tilts(part, known, monkeypatch):
    """A page that is not in the gallery is not offered; one that is there has a row of its own."""
    cells, tables = part("likelihood_parts.cells"), part("likelihood_parts.tables")
    monkeypatch.setattr(cells, "BASELINES", ("nowhere", "info_vae", "latent_ebm"))
    assert cells.pages()[-2:] == ("info_vae", "latent_ebm") and "nowhere" not in cells.pages()
    assert cells.is_model("latent_ebm") and not cells.is_model("info_vae")
    learned = []

    def fitted(model, dataset, page, seed, hyper, settings):
        learned.append(pplebm.Program(model, data=dataset.train, backend="numpyro").tilts)
        return known["identifiable"].truth, {"minutes": 0.5, "updates": 2}

    monkeypatch.setattr(cells, "fitted", fitted)
    found = cells.measured("identifiable", "info_vae", 0, cells.Settings(n_train=20, n_held_out=50))
    assert learned == [()] and set(found["models"]) == {"model"}
    untilted = known["identifiable"].base(known["identifiable"].truth)
    wanted = known["identifiable"].log_evidence(untilted, known["identifiable"].simulate(50, 1)).mean()
    assert found["models"]["model"]["mean"] == pytest.approx(wanted)
    assert f"{wanted:.3f} | 0.5 | 1 |" in tables.table({"identifiable/info_vae/0": found})
    assert cells.measured("linear_gaussian", "info_vae", 0, cells.Settings()) is None


def test_an_evidence_that_is_refused_is_told_beside_the_twin(part, monkeypatch):
    cells = part("likelihood_parts.cells")
    figures = {"mean": -9.0, "error": 0.1, "data_error": 0.5, "bits": 3.0, "log_z": 0.0, "refused": 0}

    def rows(run, twin, x, seed):
        if twin is not None:
            raise PplebmError("log Z cannot be trusted.")
        return {"model": figures}, 0.5

    class Run:
        """A run whose learning took two updates."""

        manifest = type("Manifest", (), {"updates": 2})

    monkeypatch.setattr(cells.pplebm, "fit", lambda *args, **settings: Run())
    monkeypatch.setattr(cells, "evidence_rows", rows)
    found = cells.measured("digits", "mle", 0, cells.Settings(images=7))
    assert found["models"] == {"tilted": {"refused": 7, "reason": "log Z cannot be trusted."}, "twin": figures}
    lines = part("likelihood_parts.tables").table({"digits/mle/0": found}).splitlines()
    assert any("| refused: log Z cannot be trusted. |  | -9.00 |" in line and "| 7 of 7 |" in line for line in lines)


@pytest.mark.parametrize("broken", ["tilted", "twin"])
def test_images_whose_learning_broke_down_are_told(part, monkeypatch, broken):
    cells = part("likelihood_parts.cells")
    figures = {"mean": -9.0, "error": 0.1, "data_error": 0.5, "bits": 3.0, "log_z": 0.0, "refused": 0}

    class Run:
        """A run whose learning took two updates."""

        manifest = type("Manifest", (), {"updates": 2})

    def fit(*args, hyper, **settings):
        if hyper.get("tilted", True) == (broken == "tilted"):
            raise PplebmError("learning failed.")
        return Run()

    monkeypatch.setattr(cells.pplebm, "fit", fit)
    monkeypatch.setattr(
        cells, "evidence_rows", lambda run, twin, x, seed: ({"tilted" if broken == "twin" else "model": figures}, 0.5)
    )
    found, other = cells.measured("digits", "mle", 0, cells.Settings(images=7)), {"tilted", "twin"} - {broken}
    assert found["models"] == {broken: {"refused": 7, "reason": "learning failed."}} | dict.fromkeys(other, figures)
    line = part("likelihood_parts.tables").table({"digits/mle/0": found}).splitlines()[4]
    told = {"tilted": ("| refused: learning failed. |", "| 7 of 7 |"), "twin": ("| -9.00 |", "7 of 7 (twin)")}[broken]
    assert all(text in line for text in told)
    whole = {"models": {"tilted": figures, "twin": figures | {"mean": -5.0}}, "data": 7, "updates": 2, "minutes": 1.0}
    both = part("likelihood_parts.tables").table({"digits/mle/0": found, "digits/mle/1": whole}).splitlines()[4]
    if broken == "tilted":  # the twin of the seed that is refused has nothing to stand beside
        assert "| -9.00; refused: learning failed. |  | -5.00 |" in both


def test_cells_that_are_there_are_not_run_again(part, tmp_path, monkeypatch):
    script = part("likelihood")
    calls = []

    def measured(data, page, seed, settings):
        if page == "mle" and seed == 1:
            raise KeyboardInterrupt
        calls.append((data, page, seed))
        return {"models": {"tilted": {"mean": -1.0, "below_truth": 0.5}}, "data": 3, "minutes of tilted": 0.1}

    monkeypatch.setattr(script, "measured", measured)
    wanted = [("identifiable", page, seed) for seed in (0, 1) for page in ("info_vae", "mle")]
    path = tmp_path / "found.json"
    with pytest.raises(KeyboardInterrupt):
        script.run(wanted, script.Settings(), path)
    assert len(json.loads(path.read_text())["rows"]) == len(calls) == 3
    rows = script.run([*wanted[:3], ("identifiable", "mle", 2)], script.Settings(), path)
    assert calls[3:] == [("identifiable", "mle", 2)] and len(rows) == 4
    text = script.table(rows)
    assert "| identifiable | mle | 0.500 ± 0.000 |" in text
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    script.put(text, page)
    assert "old" not in page.read_text() and page.read_text().startswith("before") and text in page.read_text()


def test_another_model_of_images_has_cells_of_its_own(part, monkeypatch):
    """Not on generators, which have models of their own, and not where the page is a model."""
    script, cells, learned = part("likelihood"), part("likelihood_parts.cells"), []
    settings, figures = cells.Settings(model="latent_ebm", images=3), {"mean": -9.0, "error": 0.1, "refused": 0}
    assert script.name_of("digits", "mle", 0, settings) == "digits/mle/0/latent_ebm/3 images"
    assert (
        script.name_of("digits", "mle", 0, settings._replace(updates=5)) == "digits/mle/0/latent_ebm/5 updates/3 images"
    )
    assert script.name_of("identifiable", "mle", 0, settings) == "identifiable/mle/0"
    assert script.name_of("digits", "mle", 0, cells.Settings(images=200)) == "digits/mle/0"
    assert script.name_of("digits", "vamp_prior", 0, settings) == "digits/vamp_prior/0/3 images"
    by_mle = settings._replace(learner="mle")
    assert script.name_of("digits", "vamp_prior", 0, by_mle) == "digits/vamp_prior/0/3 images/by mle"
    assert script.name_of("digits", "mle", 0, by_mle) == "digits/mle/0/latent_ebm/3 images"
    assert script.name_of("digits", "mle", 0, cells.Settings()) == "digits/mle/0"

    def fit(model, dataset, page, hyper=None, **more):
        learned.append((model, page, hyper))
        return type("Run", (), {"manifest": type("Manifest", (), {"updates": 2})})

    monkeypatch.setattr(cells.pplebm, "fit", fit)
    monkeypatch.setattr(cells, "evidence_rows", lambda run, twin, x, seed: ({"tilted": figures, "twin": figures}, 0.1))
    found = cells.measured("digits", "mle", 0, settings)
    assert learned == [("latent_ebm", "mle", {}), ("latent_ebm", "mle", {"tilted": False})]
    cells.measured("digits", "vamp_prior", 0, settings)
    cells.measured("digits", "vamp_prior", 0, by_mle)
    assert learned[2:] == [("vamp_prior", "variational_joint", {}), ("vamp_prior", "mle", {})]
    line = part("likelihood_parts.tables").table({"digits/vamp_prior/0/3 images/by mle": found})
    assert "| digits, 3 | vamp_prior by mle |" in line
    lines = part("likelihood_parts.tables").table({"digits/mle/0/latent_ebm/3 images": found}).splitlines()
    assert sum("| digits, 3 | mle of latent_ebm |" in line for line in lines) == 1


def test_pages_are_ranked_on_each_set_of_images(part):
    """By their own images: log p(x) of 100 and of 400 held-out images are not to be compared."""
    row = lambda mean, n, gain: {
        "models": {"tilted": {"mean": mean, "gain": gain, "gain_error": 0.5, "refused": 0}, "twin": {"mean": -9.0}},
        "data": n, "updates": 2, "minutes": 1.0,
    }  # fmt: skip
    cells = {
        "binary_mnist/mle/0/100 images": row(-8.0, 100, 1.1), "binary_mnist/two_stage/0": row(-7.0, 400, 0.9),
        "binary_mnist/info_vae/0/100 images": row(-7.5, 100, 0.9), "digits/mle/0": row(-9.0, 200, 0.0),
        "binary_mnist/mle/1/100 images": row(-6.0, 100, 0.9),
    }  # fmt: skip
    lines = [line.split(" | ") for line in part("likelihood_parts.tables").table(cells).splitlines()[4:-2]]
    assert [(line[0], line[1]) for line in lines] == [
        ("| digits, 200", "mle"), ("| binary_mnist, 100", "mle"), ("| binary_mnist, 100", "info_vae"),
        ("| binary_mnist, 400", "two_stage"),
    ]  # fmt: skip
    assert [line[7] for line in lines] == ["0 of 1", "1 of 2", "0 of 1", "0 of 1"]


def test_no_update_sees_an_image_binarised_twice(part, monkeypatch):
    """Copies of the training images are draws of their own; the held-out ones do not depend on how many there are."""
    images, cells, digits = part("likelihood_parts.images"), part("likelihood_parts.cells"), pplebm.data.load("digits")
    n = digits.n_train
    found, fewer = (images.binarised(digits, "binary", visits, 3) for visits in (40 * n - 7, 1))
    assert len(found.train) == 40 * n and len(fewer.train) == n and found.fingerprint != fewer.fingerprint
    np.testing.assert_array_equal(found.held_out, fewer.held_out)
    draws, grey = found.train.reshape(40, n, 8, 8), (digits.train + 1.0) / 2.0
    assert set(np.unique(draws)) == set(np.unique(found.held_out)) == {0.0, 1.0}
    error = np.sqrt(grey * (1.0 - grey) / 40.0)
    off = np.divide(draws.mean(0) - grey, error, out=np.zeros_like(grey), where=error > 0.0)
    assert np.all(draws.mean(0)[error == 0.0] == grey[error == 0.0])
    squares = np.square(off[error > 0.0])
    assert abs(squares.mean() - 1.0) < 4.0 * squares.std() / len(squares) ** 0.5
    learned = []

    def fit(model, dataset, page, hyper=None, **more):
        learned.append((hyper, more["scaling"], len(dataset.train)))
        return type("Run", (), {"manifest": type("Manifest", (), {"updates": 2})})

    monkeypatch.setattr(cells.pplebm, "fit", fit)
    monkeypatch.setitem(images.BINARY, "binary_mnist", "digits")
    monkeypatch.setattr(cells, "evidence_rows", lambda run, twin, x, seed: ({}, 0.1))
    cells.measured("binary_mnist", "noise_contrastive", 0, cells.Settings(updates=30))
    copies = -(-30 * pplebm.load("noise_contrastive").Hyper().batch_size // n)
    assert learned[0] == ({"likelihood": "bernoulli"}, "none", copies * n)
    assert learned[1] == ({"likelihood": "bernoulli", "tilted": False}, "none", copies * n)
    cells.measured("binary_mnist", "vamp_prior", 0, cells.Settings(updates=30))
    assert learned[2][0] == {"likelihood": "bernoulli"} and learned[2][2] > n
    for page in ("mle", "persistent_mle"):
        cells.measured("binary_mnist", page, 0, cells.Settings(updates=30))
        assert learned[-1][2] == n, "a chain of a datum that no later update sees"


def test_what_is_kept_makes_a_table(part):
    script = part("likelihood")
    lines = [line for line in script.table(script.read(script.RESULT)).splitlines() if line.startswith("|")]
    assert any("| digits, 200 | noise_contrastive | -" in line for line in lines)
    assert any("| identifiable | exact maximum |" in line for line in lines)
    assert {line.count("|") for line in lines} == {10, 17}


def test_the_page_of_models_tells_what_is_kept_of_the_baselines(part):
    script = part("likelihood")
    rows = script.read(ROOT / "baselines.json")
    told = (ROOT.parent / "models" / "README.md").read_text()
    lines = [line for line in script.table(rows).splitlines() if line.startswith("|")]
    kept = {(page, *more) for _, page, _, *more in (name.split("/") for name in rows)}
    assert len(lines) == 2 + len(kept) and not [line for line in lines if line not in told]
    mean = lambda name, model: np.array([rows[name.format(seed)]["models"][model]["mean"] for seed in range(3)])
    twin = mean("digits/variational_joint/{}/latent_ebm", "twin")
    of = {f"digits/{page}/{{}}": "model" for page in ("vamp_prior", "mixture_prior", "flow_prior")}
    for name, model in (of | {"digits/variational_joint/{}/latent_ebm": "tilted"}).items():
        gain = mean(name, model) - twin
        assert f"{gain.mean():.2f} ± {gain.std(ddof=1):.2f}" in told
