"""Series: how they are read, cut into windows and put together again, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import pplebm
from pplebm import data
from pplebm.errors import PplebmError

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "timestamp": pd.date_range("2026-01-01", periods=50, freq="5min").strftime("%Y-%m-%d %H:%M"),
        "load": RNG.normal(3.0, 2.0, 50),
        "rate": RNG.normal(-10.0, 0.1, 50),
    }
)
FRAME.loc[[4, 5, 17], "load"] = np.nan


@pytest.mark.parametrize(("length", "stride"), [(10, 3), (10, 10), (7, 2), (50, 50), (1, 1)])
def test_windows_hold_every_point_and_lead_back_to_it(length, stride):
    found = data.windows(FRAME, length, stride)
    assert found.starts[-1] == 50 - length and (np.diff(found.starts) <= stride).all()
    back = found.to_points(np.where(found.observed_x, found.scaling.to_user(found.x), np.nan))
    np.testing.assert_allclose(back, FRAME[["load", "rate"]], rtol=1e-5)
    assert found.observed_x.shape == found.x.shape == (len(found.starts), length, 2)
    assert not found.x[~found.observed_x].any() and np.isfinite(found.x).all()


def test_what_is_of_windows_is_averaged_over_those_that_hold_a_point():
    found = data.windows(np.arange(7.0), 3, 2)
    scores = np.array([1.0, 2.0, 5.0])  # of points 0-2, 2-4, 4-6
    np.testing.assert_allclose(found.to_points(scores), [1, 1, 1.5, 2, 3.5, 5, 5])
    np.testing.assert_allclose(found.to_points([np.nan, 2.0, 5.0])[:3], [np.nan, np.nan, 2.0])
    with pytest.raises(PplebmError, match="3 windows of 3 points"):
        found.to_points(np.zeros((3, 2)))


def test_the_scaling_is_that_of_observed_values_of_the_first_part():
    found = data.windows(FRAME, 10, 5, n_train=20)
    part = FRAME[["load", "rate"]][:20]
    np.testing.assert_allclose(found.scaling.shift, part.mean())
    np.testing.assert_allclose(found.scaling.scale, part.std(ddof=0))
    cut = data.Cut(10, 5)
    split = cut.dataset(FRAME, 0.6, "standard", is_masked=True)
    np.testing.assert_allclose(split.scaling.parts["x"].shift, part.mean())
    assert split.n_train == 3 and split.n_held_out == 5  # of points 0-19 and 20-49: none lies in both
    np.testing.assert_array_equal(split.train["x"], found.x[:3])
    assert split.columns == ("load", "rate")


def test_columns_that_do_not_change_where_a_model_learns_are_shifted_alone_and_told():
    """They keep the series' own unit where they change later; a value that is not exact in binary is no deviation."""
    flat = np.full(50, 0.999)
    flat[45:] = -1.0
    frame = FRAME.assign(flat=flat, zero=0.0).drop(columns="rate")
    frame.loc[[2, 44], "flat"] = np.nan
    cut = data.Cut(5, 5)
    found = cut.dataset(frame, 0.2, "standard", is_masked=True)
    assert found.notes == ("constant where the model learns, so left unscaled: flat, zero",)
    assert not found.train["x"][..., 1:].any() and not found.held_out["x"][:, :, 2].any()
    np.testing.assert_allclose(found.held_out["x"][:, :, 1].ravel(), [0.0] * 5 + [-1.999] * 5)
    wide = FRAME.assign(**{str(i): 1.0 for i in range(7)})
    assert cut.dataset(wide, 0.2, "standard", True).notes[0].endswith("unscaled: 0, 1, 2, 3, 4 and 2 more")
    assert cut.dataset(frame, 0.0, "standard", True).notes[0].endswith("unscaled: zero")
    assert cut.dataset(frame, 0.2, "none", True).notes == cut.dataset(FRAME, 0.2, "standard", True).notes == ()
    with pytest.raises(PplebmError, match="no column changes in the 40 points to learn from"):
        cut.dataset(flat, 0.2, "standard", is_masked=False)
    known = data.Scaling("standard", (0.0,), (2.0,))  # of a run, which may look at any series
    assert cut.dataset(flat[3:40], 0.2, known, is_masked=False).notes == ()


def test_files_arrays_and_frames_are_the_same_series(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    FRAME.to_csv(tmp_path / "a.csv.gz", index=False)
    values = FRAME[["load", "rate"]].to_numpy()
    np.save(tmp_path / "a.npy", np.nan_to_num(values))
    np.savetxt(tmp_path / "plain.csv", np.nan_to_num(values), delimiter=",")
    expected = data.read_series(FRAME)
    for name in ("a.csv", "a.csv.gz"):
        found = data.read_series(tmp_path / name)
        np.testing.assert_allclose(found.values, expected.values)
        assert found.time.tolist() == FRAME["timestamp"].tolist() and found.columns == ("load", "rate")
    for name in ("a.npy", "plain.csv"):
        np.testing.assert_allclose(data.read_series(tmp_path / name).values, np.nan_to_num(values))
    assert data.read_series(values[:, 0]).values.shape == (50, 1)
    assert data.read_series(FRAME, columns=["rate"]).columns == ("rate",)
    numbers = FRAME.assign(when=np.arange(50.0))
    assert data.read_series(numbers, time="when", columns=["load"]).time.tolist() == list(range(50))


def test_what_is_uneven_or_left_out_is_told():
    uneven = FRAME.drop(index=[20, 30]).assign(who="text")
    assert data.read_series(uneven).notes == (
        "columns without numbers are left out: who",
        "2 of 47 steps of 'timestamp' differ from the usual one; rows are taken as equal steps",
    )


CASES = {
    "window": (dict(length=51), "a window of 51 points is longer than the series of 50"),
    "zero window": (dict(length=0), "window must be a whole number of points, 1 or more, got 0"),
    "stride": (dict(length=5, stride=0), "stride must be a whole number of points, 1 or more, got 0"),
    "gaps": (dict(length=5, stride=6), "leaves out points"),
    "time": (dict(length=5, time="when"), "no column 'when'; its columns are timestamp, load, rate"),
    "column": (dict(length=5, columns=["loads"]), "no column 'loads'"),
    "text": (dict(length=5, columns=["timestamp"]), "no column of numbers: 'timestamp'"),
    "scaling": (dict(length=5, scaling="robust"), "'robust' is not known"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_sentence(case):
    settings, words = CASES[case]
    with pytest.raises(PplebmError, match=words) as caught:
        data.windows(FRAME, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME[::-1], "'timestamp' goes back in row 1"),
        (FRAME[["timestamp"]], "no column of numbers"),
        (FRAME.assign(timestamp="noon"), "neither numbers nor dates"),
        (FRAME.assign(rate=np.inf), "'rate' in row 0 is infinite"),
        (FRAME.assign(rate=np.nan), "'rate' has no value"),
        (np.zeros((3, 2, 2)), "not one of shape"),
        ((np.zeros(3), np.zeros(3)), "one array"),
    ],
    ids=["unsorted", "no numbers", "no time", "infinite", "empty", "rank", "tuple"],
)
def test_series_that_are_none_are_refused(frame, words):
    with pytest.raises(PplebmError, match=words) as caught:
        data.windows(frame, 5)
    assert "\n" not in str(caught.value)


SMALL = {"n_steps_posterior": 2, "n_steps_prior": 2, "model.width": 8, "tilt_width": 8, "batch_size": 4}


@pytest.mark.filterwarnings("ignore:batch_size")
def test_a_run_remembers_how_its_series_was_cut(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    ask = {"out": tmp_path / "run", "updates": 2, "progress": False, "compiled": False, "hyper": SMALL}
    run = pplebm.fit("series_factors", tmp_path / "a.csv", "short_run_mle", window=8, stride=2, **ask)
    settings = pplebm.open_run(tmp_path / "run").manifest.settings
    assert (settings.window, settings.stride, run.manifest.data.columns) == (8, 2, ["load", "rate"])
    assert run.manifest.data.shapes == {"observed_x": [8, 2], "x": [8, 2]}
    found = pplebm.fit(
        "series_factors", tmp_path / "a.csv", out=tmp_path / "run", updates=3, resume=True, progress=False
    )
    assert found.manifest.updates == 3
    wider = FRAME.assign(more=1.0)  # another column is no matter: the run knows its own
    np.testing.assert_array_equal(run.windows(wider).x, run.windows(FRAME).x)
    assert run.held_out()["x"].shape == (2, 8, 2)
    cut = run.load()
    assert run.load(cut) is cut  # as the report gives it
    drawn = run.sample_data(given=run.windows(FRAME).user_data)
    assert abs(np.median(drawn[..., 1]) + 10.0) < 1.0  # in the units of the series
    values = FRAME[["load", "rate"]].to_numpy()
    np.testing.assert_array_equal(run.windows(values).x, run.windows(FRAME).x)
    with pytest.raises(PplebmError, match="no column 'rate'"):
        run.windows(FRAME.drop(columns="rate"))
    with pytest.raises(PplebmError, match="columns are rate, load, and the run learned from load, rate"):
        run.windows(data.read_series(FRAME, columns=["rate", "load"]))
    with pytest.raises(PplebmError, match="do not fit a scaling of 2 columns"):
        run.windows(values[:, :1])


@pytest.mark.filterwarnings("ignore:batch_size")
def test_pages_without_a_mask_take_whole_series_and_refuse_others(tmp_path):
    ask = {"updates": 2, "progress": False, "hyper": SMALL | {"model.width": 8}, "compiled": False}
    run = pplebm.fit("latent_ebm", FRAME["rate"].to_numpy(), "short_run_mle", tmp_path / "run", window=8, **ask)
    assert run.event_shape == (8, 1) and run.manifest.settings.stride is None
    assert run.windows(FRAME["rate"].to_numpy()[:20]).starts.tolist() == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(PplebmError, match="entries of windows are missing, and the model takes no observed_x"):
        pplebm.fit("latent_ebm", FRAME, "short_run_mle", tmp_path / "other", window=8, **ask)
    with pytest.raises(PplebmError, match="cannot both hold a window of 12"):
        pplebm.fit("series_factors", FRAME, "short_run_mle", tmp_path / "other", window=12, **ask)
    with pytest.raises(PplebmError, match="stride is of a series that is cut into windows; give window="):
        pplebm.fit("latent_ebm", FRAME, stride=3, **ask)
