"""The command that lets every page learn at toy size: what it tells, what it calls wrong, and what it writes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError
from pplebm.runs.run import Run

pytest.importorskip("numpyro")
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
gallery = importlib.import_module("gallery")
toys = importlib.import_module("gallery_parts.toys")
results = importlib.import_module("gallery_parts.results")


def test_a_page_learns_its_toy():
    found = gallery.learned("random_effects", "pyro", 60)
    assert found["wrong"] == "" and found["from"] < found["to"] < 0 and 0 < found["first"] < found["seconds"]
    assert "does not rise" in gallery.learned("random_effects", "pyro", 10)["wrong"]  # one row of figures


def test_what_is_refused_is_told(monkeypatch):
    def refused(*args, **settings):
        raise PplebmError("no.")

    monkeypatch.setattr(pplebm, "fit", refused)
    assert gallery.learned("latent_ebm", "pyro", 1) == {"wrong": "no."}


def test_draws_that_are_not_finite_are_wrong(monkeypatch):
    monkeypatch.setattr(Run, "sample_data", lambda *args: np.full((2, 3), np.nan))
    found = gallery.learned("conjugate_tilt", "pyro", 10)
    assert found["wrong"] == "draws are not finite"


def test_toys_are_of_model_pages_and_their_data_are_accepted():
    assert set(toys.MODELS) <= set(pplebm.models_available())
    assert {toy.inference for toy in toys.MODELS.values()} <= set(pplebm.inference_available())
    assert gallery.toy_of("mle") == ("latent_ebm", toys.Toy(inference="mle"))
    assert gallery.toy_of("score_matching")[0] == "data_ebm"  # takes no latents
    assert gallery.toy_of("joint_ebm") == ("joint_ebm", toys.Toy())


def test_sentences_are_written_into_the_table_and_the_pages(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    page, readme = tmp_path / "models/joint_ebm.py", tmp_path / "models/README.md"
    page.write_text('A = 1\nRESULT = "old: 1 (models/README.md)"\nB = 2\n')
    readme.write_text(f"head\n{gallery.BEGIN}\nold\n{gallery.END}\ntail\n")
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    monkeypatch.setattr(gallery, "README", readme)
    sentence = "digits: -1.00 nats, its twin -2.00 (inference/README.md)"
    gallery.write({"joint_ebm": sentence})
    assert page.read_text() == f'A = 1\nRESULT = "{sentence}"\nB = 2\n'
    lines = readme.read_text().splitlines()
    assert lines[:2] == ["head", gallery.BEGIN] and lines[-2:] == [gallery.END, "tail"]
    assert "| `joint_ebm` | digits | [-1.00 nats, its twin -2.00](../inference/README.md) |" in lines[4]


def test_every_result_has_a_command_that_is_there():
    for _, command in results.RESULTS.values():
        assert (ROOT / "benchmarks" / command.split()[0]).is_file(), command
