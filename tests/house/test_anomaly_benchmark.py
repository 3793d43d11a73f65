"""The benchmark of anomalies: no image is in two parts, the figures are those of the scores, pictures are made."""

from __future__ import annotations

import importlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pplebm.errors import PplebmError
from pplebm.scores.metrics import auprc, auroc
from pplebm.scores.scoring import Score

pytest.importorskip("numpyro")
ROOT = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def part():
    """A module of the benchmark by name."""
    sys.path.insert(0, str(ROOT))
    yield importlib.import_module
    sys.path.remove(str(ROOT))


@pytest.mark.parametrize("n", [None, 300])
def test_no_image_is_in_two_parts(part, n):
    labels = np.random.default_rng(0).integers(0, 10, 4000)
    rows = part("anomaly_parts.splits").rows_of_digit(labels, 9, 1, n)
    whole = np.concatenate(list(rows.values()))
    assert len(np.unique(whole)) == len(whole)
    normal, anomalies = (labels != 9).sum(), (labels == 9).sum()
    assert (labels[np.concatenate([rows["train"], rows["reference"]])] != 9).all()
    assert len(rows["train"]) + len(rows["reference"]) == int(0.8 * normal) and len(rows["reference"]) == 500
    judged = labels[rows["test"]] == 9
    share = anomalies / (normal - int(0.8 * normal) + anomalies)
    assert judged.mean() == pytest.approx(share, abs=1e-12 if n is None else 1.0 / n)
    assert len(whole) == len(labels) if n is None else len(judged) == pytest.approx(n, abs=1)
    other = part("anomaly_parts.splits").rows_of_digit(labels, 9, 2, n)
    assert set(other["test"][labels[other["test"]] != 9]) != set(rows["test"][~judged])


def idx(a):
    """An idx file of bytes."""
    return b"\0\0\x08" + bytes([a.ndim]) + np.array(a.shape, ">i4").tobytes() + a.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Small sets of images in the places of the real ones; omniglot has ten characters."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, bright in (("MNIST", 255), ("FashionMNIST", 60)):
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        for stem, n in (("train", 900), ("t10k", 100)):
            x = rng.integers(0, bright, (n, 28, 28), np.uint8)
            (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(x))
            (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx((np.arange(n) % 10).astype(np.uint8)))
    (tmp_path / "omniglot").mkdir()
    with zipfile.ZipFile(tmp_path / "omniglot" / "images_background_small1.zip", "w") as archive:
        for i in range(10):
            picture, file = np.ones((105, 105), bool), io.BytesIO()
            picture[: 10 * i + 5] = False  # strokes are 0 on 1
            Image.fromarray(picture).save(file, "PNG")
            archive.writestr(f"images/{i}.png", file.getvalue())
    return tmp_path


def test_two_sets_are_judged_in_equal_parts(part, folder):
    splits = part("anomaly_parts.splits")
    found = splits.two_sets("mnist", "fashion_mnist", 0, str(folder), 60)
    assert len(found.test) == 60 and found.labels.mean() == 0.5 and len(found.train) + len(found.reference) == 900
    bright = found.test.reshape(60, -1).max(1) > 60
    np.testing.assert_array_equal(bright, found.labels == 0)
    few = splits.two_sets("mnist", "omniglot", 0, str(folder), None)
    assert len(few.test) == 20 and few.labels.sum() == 10 and few.test.shape[1:] == (28, 28)
    pool = splits.held_out_digit(3, 0, str(folder), None)
    assert pool.labels.sum() == 100 and len(pool.labels) == 100 + 180
    assert pool.dataset.train.min() >= -1.0 and pool.dataset.train.max() <= 1.0


def test_omniglot_is_white_on_black(part, folder):
    images = part("likelihood_parts.images")
    found = images.omniglot(folder)
    assert found.shape == (10, 28, 28) and found.dtype == np.uint8
    assert (found[:, 0] == 255).all() and (found[0, 3:] == 0).all()
    np.testing.assert_allclose(found.mean((1, 2)) / 255, (10 * np.arange(10) + 5) / 105, atol=0.01)
    with pytest.raises(PplebmError, match="'omniglot' was looked for at"):
        images.omniglot(folder / "nowhere")


def test_figures_and_histograms_are_those_of_the_trusted_scores(part):
    cells, rng = part("anomaly_parts.cells"), np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], 100))
    value = labels + rng.normal(size=200)
    value[:5] = np.nan
    score = Score("llr>1", value, 0.0 * value)
    found = cells.figures(labels, score)
    assert found["auprc"][0] == auprc(labels[5:], value[5:]) and found["auroc"][0] == auroc(labels[5:], value[5:])
    assert found["n"] == 195 and found["left_out"] == 5 and found["auprc"][1] < found["auprc"][0] < found["auprc"][2]
    assert "same label" in cells.figures(np.zeros(200, int), score)["refused"]
    shares = cells.histogram(labels, score)
    assert sum(shares["normal"]) == pytest.approx(1.0) and sum(shares["anomalies"]) == pytest.approx(1.0)
    middle = 0.5 * (np.array(shares["edges"][1:]) + shares["edges"][:-1])
    gap = np.dot(middle, shares["anomalies"]) - np.dot(middle, shares["normal"])
    known = np.arange(200) >= 5
    wanted = value[known & (labels == 1)].mean() - value[known & (labels == 0)].mean()
    assert gap == pytest.approx(wanted, abs=0.1)


def test_published_rows_have_a_figure_for_every_digit(part):
    published = part("anomaly_parts.published")
    assert {len(row) for row in published.PUBLISHED.values()} == {len(published.DIGITS)}


def test_the_command_measures_once_and_shows_all(part, folder, tmp_path, monkeypatch, capsys):
    script = part("mnist_anomaly")
    out = tmp_path / "found.json"
    line = ["--digits", "3", "--seeds", "0", "--data-dir", folder, "--updates", "2", "--rows", "20", "--evidence-rows",
            "0", "--out", out, "--write", "--pictures", tmp_path / "pictures"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["mnist_anomaly.py", *map(str, line)])
    script.main()
    text = capsys.readouterr().out
    (row,) = script.read(out).values()
    assert set(row["models"]) == {"tilted", "base", "twin"} and set(row["histograms"]["twin"]) == {
        "llr>1",
        "log_joint>1",
    }
    assert "tilt_ratio" in row["models"]["tilted"] and "tilt_ratio" not in row["models"]["base"]
    assert row["prevalence"] == pytest.approx(100 / 280, abs=0.03) and row["n"] == 20
    assert script.FIXED in row["models"]["tilted"]
    assert [p.suffix for p in (tmp_path / "pictures").iterdir()] == [".png"]
    assert out.with_suffix(".md").read_text().count("| `llr>1` |") == 1
    monkeypatch.setattr(script, "measured", None)  # what is there is not run again
    script.main()
    assert capsys.readouterr().out == text
