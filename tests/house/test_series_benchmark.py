"""The benchmarks of series: what is chosen, hidden and scaled of SMAP and MSL, and the scores that stand beside."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import pplebm
from pplebm.data import Series, windows
from pplebm.errors import PplebmError
from pplebm.scores.metrics import average_precision

pytest.importorskip("numpyro")
ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "../shared/data/SMAP_MSL"
sys.path.append(str(ROOT / "benchmarks"))
channels = importlib.import_module("series_parts.channels")
scores = importlib.import_module("series_parts.scores")
learned = importlib.import_module("series_parts.learned")
missing = importlib.import_module("series_parts.missing")
tables = importlib.import_module("series_parts.tables")
script = importlib.import_module("series_channels")
N_TRAIN, N_TEST, MARKED = 260, 300, slice(200, 230)


def made_up(n_columns, telemetry, seed=0):
    """Arrays of a channel: commands 1 and 2 go on and off, 3 is on once in training, 4 in the other part alone."""
    rng, parts = np.random.default_rng(seed), []
    for n in (N_TRAIN, N_TEST):
        a = np.zeros((n, n_columns))
        a[:, 0] = telemetry(np.arange(n)) + (0.0 if telemetry is flat else 0.1 * rng.normal(size=n))
        a[:, 1:3] = rng.random((n, 2)) < 0.3
        parts.append(a.astype(np.float32))
    parts[0][100, 3] = parts[1][50:60, 4] = 1.0
    parts[1][MARKED, 0] += 4.0
    labels = np.zeros(N_TEST, np.uint8)
    labels[MARKED] = 1
    return channels.Channel(*parts, labels)


def flat(steps):
    """Telemetry that does not move; its value is not exact in binary."""
    return np.full(len(steps), 0.999)


def wave(steps):
    return 0.3 + 0.5 * np.sin(steps / 5.0)


@pytest.fixture
def folder(tmp_path):
    """Two channels of either spacecraft, made up."""
    found = {"B-1": made_up(25, flat), "A-7": made_up(25, wave), "C-2": made_up(55, wave), "A-9": made_up(55, wave, 1)}
    arrays = {f"{name}_{part}": a for name, one in found.items()
              for part, a in zip(("train", "test", "label"), one, strict=True)}  # fmt: skip
    np.savez(tmp_path / channels.FILE, **arrays)
    return tmp_path


def test_channels_are_the_first_of_either_spacecraft_by_alphabet(folder):
    assert list(channels.read(folder)) == ["A-7", "B-1", "A-9", "C-2"]
    chosen = channels.read(folder, 1)
    assert list(chosen) == ["A-7", "A-9"]
    np.testing.assert_array_equal(chosen["A-9"].train, made_up(55, wave, 1).train)


def test_a_folder_without_the_file_is_told(tmp_path):
    with pytest.raises(SystemExit, match=r"smap_msl_subset\.npz is not there.*<channel>_train.*TranAD.*telemanom"):
        channels.read(tmp_path)
    with pytest.raises(SystemExit, match=r"holds no combined_windows\.json"):
        importlib.import_module("series_factors").series_of(tmp_path)


@pytest.mark.parametrize("telemetry", [wave, flat], ids=["moves", "flat"])
def test_what_is_modelled_is_chosen_and_scaled_by_the_training_part_that_is_left(telemetry):
    given = made_up(25, telemetry)
    parts = channels.prepared(given, 0.0, 0)
    assert parts.train.columns == ("telemetry", "command 1", "command 2", "command 3") and parts.n_commands == 3
    np.testing.assert_allclose(parts.train.values[:, 1:], given.train[:, 1:4] - given.train[:, 1:4].mean(0), atol=1e-6)
    np.testing.assert_allclose(np.diff(parts.test.values[:, 1], axis=0), np.diff(given.test[:, 1]))
    if telemetry is flat:
        assert not parts.varies and not parts.train.values[:, 0].any()
        expected = np.where(given.labels == 1, 4.0, 0.0)
        np.testing.assert_allclose(parts.test.values[:, 0], expected, atol=1e-6)
        assert not parts.test.values[given.labels == 0, 0].any()
    else:
        assert parts.varies
        mean, sd = given.train[:, 0].mean(dtype=float), given.train[:, 0].std(dtype=float)
        np.testing.assert_allclose(parts.test.values[:, 0], (given.test[:, 0] - mean) / sd)
    hidden = channels.prepared(given, 0.1, 3)
    lost = np.isnan(hidden.train.values)
    share, n = lost.mean(), lost.size
    assert abs(share - 0.1) < 4.5 * (0.09 / n) ** 0.5 and np.isfinite(hidden.test.values).all()
    np.testing.assert_allclose(np.nanmean(hidden.train.values, 0), 0.0, atol=1e-12)
    other = np.isnan(channels.prepared(given, 0.1, 4).train.values)
    assert lost.shape != other.shape or (lost != other).any()


def test_a_command_whose_only_change_is_taken_out_is_not_modelled():
    """So nothing of what is taken out is used: command 3 is on at one point of training, which some seeds hide."""
    given, found = made_up(25, wave), {}
    for seed in range(40):
        gone = np.random.default_rng(seed).random(given.train.shape)[100, 3] < 0.5
        assert ("command 3" in channels.prepared(given, 0.5, seed).train.columns) != gone
        found[bool(gone)] = True
    assert set(found) == {True, False}


def test_neighbours_are_those_of_all_pairs_of_windows():
    rng = np.random.default_rng(0)
    train, test = (windows(rng.normal(size=(40, 3)), 4, 2, scaling="none") for _ in range(2))
    pairs = ((test.x[:, None] - train.x[None]).astype(float) ** 2).sum((2, 3))
    expected = np.sqrt(pairs.min(1))
    np.testing.assert_allclose(scores.nearest(train, test), test.to_points(expected), rtol=1e-5)
    np.testing.assert_allclose(scores.nearest(train, train), 0.0, atol=1e-6)
    many = windows(rng.normal(size=(scores.ROWS + 90, 1)), 4, 1, scaling="none")  # more than one part at once
    own = scores.nearest(windows(many.series.values[-4:], 4, scaling="none"), many)
    assert np.argmin(own) in range(many.n - 4, many.n) and own[-1] < 1e-6
    with pytest.raises(PplebmError, match="see `filled`"):
        scores.nearest(windows([0.0, np.nan, 1.0], 2, 1), test)


def test_gaps_are_filled_by_lines_and_what_is_there_stays():
    rng = np.random.default_rng(2)
    values = np.stack([np.arange(30.0), rng.normal(size=30)], 1)
    holes = np.where((rng.random((30, 2)) < 0.3) & (np.arange(30)[:, None] % 29 > 0), np.nan, values)
    found = scores.filled(Series("a", holes, ("line", "noise")))
    np.testing.assert_allclose(found.values[:, 0], np.arange(30.0))
    there = np.isfinite(holes)
    np.testing.assert_array_equal(found.values[there], holes[there])
    assert np.isnan(holes).any() and np.isfinite(found.values).all()


def test_the_deviation_is_the_square_of_what_is_observed_and_the_first_column_stands_apart():
    rng = np.random.default_rng(1)
    values = np.where(rng.random((30, 3)) < 0.2, np.nan, rng.normal(size=(30, 3)))
    np.testing.assert_allclose(scores.deviation(windows(values, 8, 2, scaling="none")), values**2, rtol=1e-5)
    labels = (np.arange(30) > 25).astype(int)
    errors = np.stack([labels + 0.0, 9.0 * (np.arange(30) < 3)], 1)
    found = learned.of_points(labels, errors, 4, "error")
    assert found["error of the first"]["auprc"] == 1.0 > found["error"]["auprc"]
    assert list(learned.of_points(labels, errors[:, :1], 4, "error")) == ["error"]


def test_scores_beside_find_a_shift_and_random_ones_do_not():
    given = made_up(25, flat)
    parts = channels.prepared(given, 0.1, 0)
    test = windows(parts.test, 16, 4, scaling="none")
    labels = given.labels.astype(int)
    assert average_precision(labels, scores.deviation(test).mean(1)) == 1.0
    train = windows(scores.filled(parts.train), 16, 4, scaling="none")
    assert average_precision(labels, scores.nearest(train, test)) > 0.6
    beside = scores.at_random(labels, 16, 0)
    assert beside["auprc"] < 0.2 and beside["adjusted_f1"] > 0.8


def test_figures_are_means_over_the_series_that_have_them():
    rows = {"0": {"a": {"m": {"e": 1.0}}, "b": {"m": {"e": 3.0}}}, "1": {"a": {"m": {}}, "b": {"m": {"e": 5.0}}}}
    assert tables.figures(rows, "m", "e") == [2.0, 5.0] and tables.figures(rows, "m", "f") == []
    columns = [("mean", "m", "e", "mean"), ("both", "m", "e"), ("none", "m", "f")]
    assert tables.by_series(rows, "s", columns, 1)[2:] == ["| a | 1.0 | 1.0 ± nan |  |", "| b | 4.0 | 4.0 ± 1.4 |  |"]


class Known:
    """A run of one dense layer, learned by nobody."""

    def __init__(self, shape):
        model = pplebm.bind("series_factors", shape={"x": shape}, latent_dims=(1, 1), pieces=(2, 1), depth=0)
        self.program = pplebm.Program(model, data={"x": np.zeros((2, *shape), "float32")})
        self.params = self.program.params


def test_a_line_and_the_mean_are_those_of_the_block_of_telemetry(monkeypatch):
    """Of a straight line the line has no error, and that of the mean is the root mean square of what is hidden."""
    monkeypatch.setattr(missing, "N_MASKED", 3)
    steps = np.arange(40.0)
    some = windows(np.stack([0.1 * steps, np.cos(steps)], 1), 32, 8, scaling="none")
    found = missing.imputed(Known((32, 2)), some, 0)
    rng = np.random.default_rng(0)
    rows, first = rng.choice(2, 2, replace=False), rng.integers(8, 16, 2)
    hidden = np.concatenate([some.x[row, at : at + 8, 0] for row, at in zip(rows, first, strict=True)])
    assert found["error of a line"] == pytest.approx(0.0, abs=1e-6)
    assert found["error of the mean"] == pytest.approx(np.sqrt((hidden.astype(float) ** 2).mean()))
    assert 0.0 <= found["coverage"] <= 1.0 < found["width"] + 1.0


def test_the_command_learns_a_made_up_channel_and_keeps_figures(folder, monkeypatch, capsys):
    out = folder / "kept.json"
    monkeypatch.setattr(missing, "N_MASKED", 2)
    monkeypatch.setattr(channels, "N_COLUMNS", {"SMAP": 25})
    monkeypatch.setattr(script, "HYPER", (("model.latent_dims", (2, 2)), ("n_steps_prior", 2), ("batch_size", 16)))
    words = ["--data", folder, "--seeds", 0, "--updates", 2, "--each", 1, "--out", out, "--backend", "pyro"]
    monkeypatch.setattr(sys, "argv", ["series_channels.py", *map(str, words)])
    script.main()
    kept = json.loads(out.read_text())
    assert kept["settings"]["missing"] == 0.1 and list(kept["seeds"]["0"]) == ["A-7"]
    row = kept["seeds"]["0"]["A-7"]
    assert row["prevalence"] == pytest.approx(0.1) and row["commands"] in (2, 3)
    assert {"nearest", "deviation", "random", "tilted", "twin"} <= set(row) and "missing" in row["tilted"]
    assert row["tilted"]["missing"] != row["twin"]["missing"]
    assert script.table(kept["seeds"]) in capsys.readouterr().out


def test_a_channel_whose_telemetry_is_flat_has_nothing_to_fill_in(monkeypatch):
    seen = []
    monkeypatch.setattr(script, "compare", lambda task, how, seed: seen.append(task) or {})
    assert script.of_channel(made_up(25, flat), None, 0)["commands"] in (2, 3)
    script.of_channel(made_up(25, wave), None, 0)
    assert seen[0].whole is None and isinstance(seen[1].whole, Series)
    assert len(seen[1].whole.values) == MARKED.start  # up to the first labelled point


@pytest.mark.skipif(not (KEPT / channels.FILE).is_file(), reason="no ../shared/data")
def test_the_channels_of_the_folder_are_those_that_their_labels_tell_of():
    found = channels.read(KEPT)
    with open(KEPT / "labeled_anomalies.csv", newline="") as file:
        told = {row["chan_id"]: row for row in csv.DictReader(file)}
    assert set(found) == set(told) and len(found) == 12
    for name, one in found.items():
        sequences = json.loads(told[name]["anomaly_sequences"])
        assert len(one.test) == len(one.labels) == int(told[name]["num_values"])
        assert one.labels.sum() == sum(last + 1 - first for first, last in sequences)
        assert one.train.shape[1] == channels.N_COLUMNS[told[name]["spacecraft"]]
        parts = channels.prepared(one, 0.1, 0)
        assert np.isfinite(parts.test.values).all() and int(np.argmax(one.labels)) >= 500
        assert np.nanmax(np.abs(parts.train.values)) < 20


@pytest.mark.parametrize("name", ["series_factors", "series_channels"])
def test_the_tables_that_are_told_are_those_of_the_figures_that_are_kept(name):
    kept = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))["seeds"]
    lines = importlib.import_module(name).table(kept).splitlines()
    told = (ROOT / "models" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(kept) >= 3 and len(rows) > 15 and not [row for row in rows if row not in told]
