"""Run folders: which one a run gets, and what a refused or failed one leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tiny

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning.algorithm import Algorithm
from pplebm.runs.folders import folder_for, unused

NAME = "conjugate_tilt-mle-seed0"


def test_runs_without_a_folder_are_numbered_and_the_latest_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [tiny.fit(None).path for _ in range(2)]
    assert found == [Path("runs") / NAME, Path("runs") / f"{NAME}-2"]
    (tmp_path / "runs" / f"{NAME}-7").mkdir()  # no run, and its number is used
    run = tiny.resume(None, updates=2)
    assert (run.path, run.manifest.updates) == (found[1], 2)
    assert unused(Path("runs") / NAME).name == f"{NAME}-8"
    with pytest.raises(PplebmError, match=r"there is no run 'runs/.*seed5' to go on with"):
        tiny.resume(None, seed=5)


def test_numbers_are_those_of_the_name_alone(tmp_path):
    for name in ("a-2-3", "a-x", "a-02", "ab", "a.b-4"):
        (tmp_path / name).mkdir()
    assert unused(tmp_path / "a").name == "a"
    (tmp_path / "a-10").mkdir(), (tmp_path / "a-9").mkdir()
    assert unused(tmp_path / "a").name == "a-11"


@pytest.mark.parametrize("slip", [{"coordinates": "typo"}, {"batch_size": -3}, {"sigmo": 1}, {"prior.n_steps": 0}])
def test_a_refused_fit_leaves_nothing(tmp_path, slip):
    with pytest.raises(PplebmError):
        tiny.fit(tmp_path / "new" / "run", hyper=tiny.FEW | slip)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("at", [1, 2])
def test_a_fit_that_fails_in_its_updates_leaves_a_folder_as_it_was(tmp_path, monkeypatch, at):
    folder, calls, step = tmp_path / "run", [], Algorithm.step
    (folder / "pages").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "pages" / "model.py").write_text("mine as well")
    before = tiny.files_in(folder)

    def failing(*args):
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("oh")
        return step(*args)

    monkeypatch.setattr(Algorithm, "step", failing)
    with pytest.raises(RuntimeError, match="oh"):
        tiny.fit(folder, 5)
    assert tiny.files_in(folder) == before
    monkeypatch.setattr(Algorithm, "step", step)
    assert tiny.fit(folder).manifest.updates == 1
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_fit_that_fails_after_its_first_checkpoint_can_go_on(tmp_path, monkeypatch):
    calls, step = [], Algorithm.step
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_EVERY", 10)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SHARE", float("inf"))

    def failing(*args):
        calls.append(1)
        if len(calls) == 15:
            raise RuntimeError("oh")
        return step(*args)

    monkeypatch.setattr(Algorithm, "step", failing)
    with pytest.raises(RuntimeError, match="oh"):
        tiny.fit(tmp_path / "run", 20)
    monkeypatch.setattr(Algorithm, "step", step)
    assert pplebm.open_run(tmp_path / "run").manifest.updates == 10
    assert tiny.resume(tmp_path / "run").manifest.updates == 20


def test_going_on_before_the_first_checkpoint_begins_again_and_says_so(tmp_path):
    run = tiny.fit(tmp_path / "run", 3)
    (run.path / "checkpoint.safetensors").unlink()
    with pytest.raises(PplebmError, match="holds no checkpoint yet"):
        pplebm.open_run(run.path)
    with pytest.warns(PplebmWarning, match="holds no checkpoint yet, so the run begins again"):
        again = tiny.resume(run.path)
    strip = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert strip(again.metrics) == strip(run.metrics)
    for name, value in run.params.items():
        assert np.array_equal(value.numpy(), again.params[name].numpy())


def test_a_checkpoint_without_its_manifest_is_not_overwritten(tmp_path):
    run = tiny.fit(tmp_path / "run")
    (run.path / "manifest.json").unlink()
    with pytest.raises(PplebmError, match=r"checkpoint.safetensors of a run whose manifest.json is lost"):
        tiny.fit(run.path)


def test_paths_that_can_be_no_folder_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("a" * 300), "a\0b", "x/" * 3000):
        with pytest.raises(PplebmError, match="choose another one") as refused:
            folder_for(out, "latent_ebm", "short_run_mle", 0, False)
        assert len(str(refused.value)) < 300
