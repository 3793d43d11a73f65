"""A series on the command line: fitted by windows, scored by time point, and what is refused."""

from __future__ import annotations

import csv
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import pplebm
from pplebm.cli import main
from pplebm.errors import PplebmError

N = 160
TIME = pd.date_range("2026-03-01", periods=N, freq="h").strftime("%Y-%m-%d %H:%M:%S")
SMALL = ("n_steps_prior=2", "batch_size=8", "model.width=8", "tilt_width=8")


def call(*args, status=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sine with a jump at its end and a gap, labels beside it, and a run that learned from it."""
    path = tmp_path_factory.mktemp("series")
    load = np.sin(np.arange(N) / 4.0) + 0.1 * np.random.default_rng(0).normal(size=N)
    load[140:146] += 8.0
    frame = pd.DataFrame({"timestamp": TIME, "load": load, "label": (np.abs(np.arange(N) - 142.5) < 3).astype(int)})
    frame.loc[20:25, "load"] = np.nan
    frame.to_csv(path / "series.csv", index=False)
    sets = [word for pair in SMALL for word in ("--set", pair)]
    said = call(
        "fit", "series_factors", "--data", path / "series.csv", "--window", 16, "--stride", 4, "--columns", "load",
        "--inference", "variational_joint", "--updates", 5, "--out", path / "run", "--no-report", *sets,
    )  # fmt: skip
    assert "5 updates" in said
    return path


def test_scores_stand_beside_the_files_own_time(folder):
    series, out = folder / "series.csv", folder / "scores.csv"
    said = call(
        "anomaly", folder / "run", "--data", series, "--posterior", "learned", "--score", "reconstruction", "-k", 2,
        "--labels", f"{series}:label", "--out", out,
    )  # fmt: skip
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["timestamp"] for row in rows] == TIME.tolist()
    scores = np.array([float(row["anomaly_score"]) for row in rows])
    assert np.isnan(scores[20:26]).all() and np.isfinite(np.delete(scores, range(20, 26))).all()
    assert set(np.argsort(-np.nan_to_num(scores))[:6]) == set(range(140, 146))
    assert "AUPRC of points 1.000 (prevalence 0.039)" in said and "a random score comes out high" in said
    assert f"timestamp {TIME[int(np.nanargmax(scores))]}" in said and "6 scores are not known" in said
    run = pplebm.open_run(folder / "run")
    again = run.point_scores(series, "reconstruction", posterior="learned")
    np.testing.assert_allclose(again, scores, rtol=1e-6)


def test_the_score_of_a_point_is_the_mean_over_windows_that_hold_it(folder):
    run = pplebm.open_run(folder / "run")
    windows = run.windows(folder / "series.csv")
    single = run.anomaly_scores(windows.user_data, ["log_joint"], posterior="learned")["log_joint"].value
    points = run.point_scores(folder / "series.csv", "log_joint", posterior="learned")
    for point in (0, 17, 88, N - 1):
        holds = (windows.starts <= point) & (point < windows.starts + 16)
        assert points[point] == pytest.approx(single[holds].mean(), rel=1e-5)


def test_the_errors_of_the_columns_of_a_wide_series_tell_where_a_point_is_anomalous(tmp_path):
    """Their mean over what is observed is the score of the point; the command names the column with the largest."""
    rng, path = np.random.default_rng(1), tmp_path / "wide.csv"
    frame = pd.DataFrame(rng.normal(size=(80, 3)), columns=["load", "rate", "heat"])
    frame.insert(0, "timestamp", TIME[:80])
    frame.loc[50, "rate"] += 30.0
    frame.loc[10:12, "heat"] = np.nan
    frame.loc[30, ["load", "rate", "heat"]] = np.nan
    frame.to_csv(path, index=False)
    hyper = dict(word.split("=") for word in SMALL)
    hyper = {name: int(value) for name, value in hyper.items()}
    run = pplebm.fit("series_factors", path, "variational_joint", tmp_path / "run", updates=2, window=16, stride=4,
                     hyper=hyper, progress=False)  # fmt: skip
    how = {"posterior": "learned", "seed": 3}
    errors = run.point_scores(path, "reconstruction", by_column=True, **how)
    missing = frame[["load", "rate", "heat"]].isna().to_numpy()
    np.testing.assert_array_equal(np.isnan(errors), missing)
    points, some = run.point_scores(path, "reconstruction", **how), ~missing.all(1)
    np.testing.assert_allclose(points[some], np.nanmean(errors[some], 1), rtol=1e-5)
    assert np.isnan(points[30]) and np.unravel_index(np.nanargmax(errors), errors.shape) == (50, 1)
    said = call("anomaly", tmp_path / "run", "--data", path, "--posterior", "learned", "--score", "reconstruction",
                "-k", 1)  # fmt: skip
    assert re.search(rf"timestamp {TIME[50]}: \S+, (9\d|100) % of it in 'rate'", said), said
    assert "1 scores are not known" in said
    with pytest.raises(PplebmError, match="'log_joint' is of whole windows"):
        run.point_scores(path, "log_joint", by_column=True, **how)


def test_what_is_refused_is_told_in_one_sentence(folder, tmp_path):
    series, run = folder / "series.csv", folder / "run"
    fit = ("fit", "series_factors", "--data", series)
    short = tmp_path / "short.csv"
    pd.DataFrame({"load": np.arange(9.0)}).to_csv(short, index=False)
    for args, words in (
        ((*fit, "--window", 500), "a window of 500 points is longer than"),
        ((*fit, "--window", 16, "--stride", 0), "stride must be a whole number of points, 1 or more, got 0"),
        ((*fit, "--window", 16, "--time", "when"), "no column 'when'"),
        ((*fit, "--stride", 2), "give window="),
        (("fit", "series_factors", "--window", 16), "give it as --data"),
        (("anomaly", run, "--data", short), "a window of 16 points is longer than the series of 9"),
        (("anomaly", run, "--data", series, "--score", "typicality"), "not one of points"),
        (("anomaly", run, "--data", series, "--labels", f"{series}:none"), "no column"),
    ):
        said = call(*args, status=2)
        assert words in said, said
