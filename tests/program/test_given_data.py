"""What users bring as data: frames, mappings, tuples, text, counts, small sets; how it is kept, scaled and refused."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import pplebm
from pplebm.data import columns, load_as_given, rescaled, scaling_for
from pplebm.errors import PplebmError, PplebmWarning

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "dose": RNG.uniform(0, 3, 30),
        "clinic": RNG.choice(["north", "south", "west"], 30),
        "treated": RNG.random(30) < 0.5,
        "visits": pd.array(RNG.integers(1, 5, 30), dtype="Int64"),
        "unused": ["text"] * 30,
    }
)
FRAME["y"] = 2.0 * FRAME["dose"] + FRAME["clinic"].map({"north": 0.0, "south": 1.0, "west": -1.0})


def by_clinic(dose, clinic, treated, visits, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 3.0))
    with pyro.plate("clinic", 3):
        a = pyro.sample("a", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(dose)):
        mean = pyro.deterministic("mean", a[clinic] + b * dose + 0.0 * treated, event_dim=0)
        pyro.sample("y", dist.Normal(mean, 1.0 / visits**0.5), obs=y)


def test_a_frame_gives_the_columns_that_the_model_names_with_their_dtypes():
    program = pplebm.Program(by_clinic, data=FRAME)
    assert set(program.covariates) == {"dose", "clinic", "treated", "visits"}
    assert [site.name for site in program.observed] == ["y"]
    data = program.data(FRAME)
    kinds = {name: str(a.dtype).removeprefix("torch.") for name, a in data.items()}
    assert kinds == {"dose": "float64", "clinic": "int64", "treated": "bool", "visits": "int64", "y": "float64"}
    assert program.levels == {"clinic": ("north", "south", "west")}


def test_levels_are_coordinates_in_arviz_and_fixed_once_known():
    program = pplebm.Program(by_clinic, data=FRAME)
    draws = pplebm.sample(program, data=FRAME, n_chains=2, n_draws=20, n_warmup=20, progress=False, init="normal")
    tree = pplebm.to_arviz(draws, n_predictive=5)
    assert tree.posterior["a"].dims == ("chain", "draw", "clinic")
    assert tree.posterior["a"].coords["clinic"].values.tolist() == ["north", "south", "west"]
    np.testing.assert_allclose(tree.posterior["mean"].values, draws["mean"])
    assert set(tree.constant_data) == {"dose", "clinic", "treated", "visits"}
    only_west = FRAME[FRAME["clinic"] == "west"]
    assert (program.data(only_west)["clinic"] == 2).all()  # the same code among fewer levels
    with pytest.raises(PplebmError, match=r"'clinic' holds 'east', which is none of the levels"):
        program.data(FRAME.assign(clinic="east"))
    new = pplebm.predictive(draws, data=only_west.drop(columns="y")[:2])
    assert new["y"].shape == (2, 20, 2)


def local(x, y):
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z + x, 1.0), obs=y)


@pytest.mark.parametrize("kind", ["tuple", "torch", "jax", "lists"])
def test_other_ways_to_give_the_same_data_are_the_same(kind):
    import jax.numpy as jnp

    x, y = RNG.normal(size=(2, 8)).astype("float32")
    plain = {"x": x, "y": y}
    given = {
        "tuple": (x, y),
        "torch": {name: torch.as_tensor(a) for name, a in plain.items()},
        "jax": {name: jnp.asarray(a) for name, a in plain.items()},
        "lists": {name: a.tolist() for name, a in plain.items()},
    }[kind]
    z = {"z": torch.linspace(-1, 1, 8)}
    expected = pplebm.Program(local, data=plain)
    program = pplebm.Program(local, data=given)
    assert program.covariates == ("x",)
    got = program.log_joint({}, z, program.data(given))
    np.testing.assert_allclose(got, expected.log_joint({}, z, expected.data(plain)), rtol=1e-5)


REFUSED = {
    "unknown name": ({"x": np.zeros(4), "yy": np.zeros(4)}, r"'yy'.*did you mean 'y'"),
    "lengths": ({"x": np.zeros(4), "y": np.zeros(5)}, r"'x' \(4,\), 'y' \(5,\)"),
    "a number": ({"x": 1.0, "y": np.zeros(5)}, r"'x' is a single number.*functools.partial"),
    "no rows": ({"x": np.zeros(0), "y": np.zeros(0)}, "no rows"),
    "dates": (pd.DataFrame({"x": pd.date_range("2026-01-01", periods=3), "y": [1.0, 2, 3]}), "'x'.*datetime"),
    "missing text": ({"x": np.array(["a", None], object), "y": np.zeros(2)}, "'x'.*1 missing"),
    "missing column": (pd.DataFrame({"y": [1.0, 2.0]}), "needs 'x'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    data, words = REFUSED[case]
    with pytest.raises(PplebmError, match=words) as caught:
        pplebm.Program(local, data=data)
    assert "\n" not in str(caught.value)


def counts(exposure, n):
    with pyro.plate("data", len(n)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("n", dist.Poisson(exposure * z.exp()), obs=n)


def test_values_off_the_support_are_told_with_site_and_row():
    data = {"exposure": np.ones(6), "n": np.array([1, 2, 0, -3, 1, 1])}
    program = pplebm.Program(counts, data=data)
    with pytest.raises(PplebmError, match=r"'n' leave its support \(Poisson on .*\) in 1 of 6 rows.*row 3"):
        pplebm.sample(program, data=data, n_chains=2, n_draws=2, n_warmup=0)
    with pytest.raises(PplebmError, match="'n' leave its support"):
        pplebm.fit(counts, data, progress=False)


def masked(y, seen):
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0).mask(seen), obs=y)


def test_nan_under_a_mask_is_told_where_it_spoils_the_gradient():
    y = np.array([0.5, np.nan, 1.0, 2.0])
    data = {"y": y, "seen": np.isfinite(y)}
    program = pplebm.Program(masked, data={"y": np.nan_to_num(y), "seen": data["seen"]})
    with pytest.raises(PplebmError, match=r"'y' holds NaN.*where\(observed, y, 0\)"):
        program.check_data(program.data(data))
    program.check_data(program.data(data | {"y": np.nan_to_num(y)}))


def test_only_what_an_observed_site_takes_whole_is_scaled():
    data = load_as_given({"x": RNG.normal(5, 2, 40), "y": RNG.normal(9, 3, 40)}, columns.signature_of(local))
    program = pplebm.Program(local, data=data.train)
    supports = {site.name: site.support for site in program.observed}
    whole = {path: supports[site] for site, path in program.reads.whole.items()}
    scaled = rescaled(data, scaling_for("standard", data, whole))
    assert abs(scaled.train["y"].mean()) < 1e-6 and scaled.train["x"] is not None
    np.testing.assert_array_equal(scaled.train["x"], data.train["x"])
    np.testing.assert_allclose(scaled.scaling.to_user(scaled.train)["y"], data.train["y"], rtol=1e-6)
    with pytest.raises(PplebmError, match="nothing to scale"):
        scaling_for("standard", data, {"x": "positive"})


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_data_fewer_than_a_batch_are_one_batch_and_densities_can_be_had_in_the_users_units(backend, tmp_path):
    x = RNG.normal(size=(30, 4))
    small = {"n_steps_prior": 2, "n_steps_posterior": 2}
    with pytest.warns(PplebmWarning, match=r"batch_size 256 exceeds the 24 training data, which are one batch"):
        run = pplebm.fit(
            "conjugate_tilt", x, out=tmp_path / "run", updates=2, hyper=small, backend=backend, progress=False
        )
    assert run.hyper.batch_size == 24 and run.manifest.data.notes
    assert run.log_jacobian == pytest.approx(-np.log(run.scaling.scale).sum())
    again = pplebm.open_run(tmp_path / "run")
    np.testing.assert_array_equal(again.sample_data(3), run.sample_data(3))


def test_a_run_of_columns_opens_again_resumes_and_takes_a_file(tmp_path):
    frame = pd.DataFrame({"x": RNG.normal(size=60), "site": RNG.choice(["a", "b"], 60), "y": RNG.normal(size=60)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "mine.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(x, site, y=None):\n"
        "    shift = pyro.param('shift', torch.zeros(2))\n"
        "    with pyro.plate('data', len(x)):\n"
        "        z = pyro.sample('z', dist.Normal(shift[site], 1.0))\n"
        "        return pyro.sample('y', dist.Normal(z + x, 0.5), obs=y)\n"
    )
    ask = {"out": tmp_path / "run", "compiled": False, "progress": False, "hyper": {"batch_size": 16}}
    run = pplebm.fit(tmp_path / "mine.py", tmp_path / "table.csv", updates=3, **ask)
    assert run.program.prior_reads and run.manifest.data.levels == {"site": ["a", "b"]}
    new = pd.DataFrame({"x": [0.0, 1.0], "site": ["b", "b"]})
    opened = pplebm.open_run(tmp_path / "run")
    np.testing.assert_array_equal(opened.sample_data(given=new), run.sample_data(given=new))
    with pytest.raises(PplebmError, match=r"reads the covariates x, site"):
        run.sample_prior(5)
    more = pplebm.fit(tmp_path / "mine.py", tmp_path / "table.csv", updates=5, out=tmp_path / "run", resume=True)
    assert more.manifest.updates == 5


def test_a_deterministic_site_outside_the_plate_has_rows_or_is_left_out():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.deterministic("rate", z.exp())
        pyro.deterministic("one", torch.ones(()))

    x = torch.linspace(-1, 1, 7)
    program = pplebm.Program(model, data=x)
    values = program.constrain({}, {"z": x}, x)
    np.testing.assert_allclose(values["rate"], x.exp())
    assert "one" not in values


def test_scales_and_masks_never_touch_the_jacobian(ppl, float64):
    import jax
    import numpyro

    host = {"pyro": pyro.poutine, "numpyro": numpyro.handlers}[ppl.name]
    sample, plate, d = (pyro if ppl.name == "pyro" else numpyro).sample, ppl.plate, ppl.dist

    def model(x):
        with plate("data", len(x)):
            with host.scale(scale=2.0):
                s = sample("s", d.LogNormal(0.3, 0.7))
            with host.mask(mask=False):
                t = sample("t", d.Gamma(2.0, 1.0))
            sample("x", d.Normal(s + t, 1.0), obs=x)

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        x = ppl.asarray(np.zeros(3))
        program = pplebm.Program(model, data=x, backend=ppl.name)
        u = np.array([-0.5, 0.1, 0.8])
        z = {"s": ppl.asarray(u), "t": ppl.asarray(u)}
        for coordinates in ("centered", "noncentered"):
            moved = program.move(program.params, z, coordinates)
            terms = program.with_coordinates(coordinates).log_terms(program.params, moved, observed=False)
            e = (u - 0.3) / 0.7
            normal = -0.5 * e**2 - 0.5 * np.log(2 * np.pi)
            log_p = normal - np.log(0.7) - u  # of LogNormal at exp(u)
            jacobian = u if coordinates == "centered" else u + np.log(0.7)
            np.testing.assert_allclose(ppl.to_numpy(terms["s"]), 2 * log_p + jacobian, atol=1e-10)
            np.testing.assert_allclose(ppl.to_numpy(terms["t"]), u, atol=1e-10)


def test_a_site_that_another_feeds_through_a_threshold_is_found(ppl, float64):
    """No exchange of these rows moves one across 0, and still y2 has its mean over y1: 2 P(y1 > 0) - 1 = 0 at z = 0."""

    def model(y1, y2):
        with ppl.plate("data", len(y1)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            y1 = ppl.sample("y1", ppl.dist.Normal(z, 1.0), obs=y1)
            ppl.sample("y2", ppl.dist.Normal(2.0 * (y1 > 0.0) - 1.0, 1.0), obs=y2)

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        data = {"y1": np.array([4.0, 5.0, 6.0, 7.0]), "y2": np.ones(4)}
        program = pplebm.Program(model, data=data, backend=ppl.name)
        assert program.reads.fed == {"y2"}
        found = program.predict(program.params, {"z": ppl.asarray(np.zeros(4))}, data=program.data(data))
        assert np.abs(ppl.to_numpy(found["y2"])).max() < 5 / np.sqrt(1000)
