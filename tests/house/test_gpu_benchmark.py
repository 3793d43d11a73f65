"""The command for a GPU: its trainings, of convolutional models on images of colour, run on small ones here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numpyro")
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
gpu = importlib.import_module("gpu")
training = importlib.import_module("gpu_parts.training")
CELLS = training.cells(True, 200)
FIGURES = {"ms", "images", "first", "mib"}


def test_images_are_bytes_that_differ():
    x = training.images(6, 8)
    assert x.shape == (6, 8, 8, 3) and x.dtype == np.uint8
    assert len(np.unique(x.reshape(6, -1), axis=0)) == 6 and x.min() < 30 and x.max() > 225


def test_every_model_backend_and_precision_is_run():
    assert len(CELLS) == 12 and {cell.updates for cell in CELLS} == {training.QUICK_UPDATES}
    assert {(cell.backend, cell.precision) for cell in CELLS} == {
        ("numpyro", "full"), ("pyro", "full"), ("pyro", "bf16"),
    }  # fmt: skip
    assert {cell.side for cell in training.cells(False, 200)} == {32}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(cell[:4]))
def test_a_training_learns_and_tells_its_time(cell, monkeypatch):
    monkeypatch.setattr("pplebm.backends.pyro.precision.has_units", lambda: True)  # slow, and right all the same
    found = training.run_cell(cell)
    assert set(found) == FIGURES and all(value > 0 for value in found.values())


def test_what_a_training_refuses_is_told():
    cell = CELLS[0]._replace(backend="numpyro", precision="bf16")
    found = gpu.in_its_own_process(cell)
    assert "PplebmError" in found["wrong"] and "bf16" in found["wrong"]
    page = gpu.page({"machine": "a machine", "training": [found], "parts": {"loop": ["a line"]}})
    assert found["wrong"] in page and "| joint_ebm |" in page and "## loop\n\na line" in page
