"""Trust: page copies that are run without asking, and those that are not."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from click.testing import CliRunner

import pplebm
from pplebm.cli import main
from pplebm.errors import PplebmError
from pplebm.runs import trust
from pplebm.runs.manifest import read_manifest, write_manifest


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A run of a page of one's own, fitted under a configuration folder that is new."""
    monkeypatch.setenv("PPLEBM_CONFIG_HOME", str(tmp_path / "config"))
    source = Path(pplebm.load("conjugate_tilt").__file__)
    (tmp_path / "mine.py").write_text(source.read_text() + "\nMINE = True\n")
    return tiny.fit(tmp_path / "run", model=tmp_path / "mine.py").path


def test_pages_fitted_here_are_run_and_those_of_strangers_are_not(own, tmp_path, monkeypatch):
    assert pplebm.open_run(own).manifest.updates == 1
    monkeypatch.setenv("PPLEBM_CONFIG_HOME", str(tmp_path / "elsewhere"))
    for use in (pplebm.open_run, tiny.resume):
        with pytest.raises(PplebmError, match=r"would run '.*pages/model.py', which neither ship .*--trust") as refused:
            use(own)
        assert "inference.py" not in str(refused.value)
    assert pplebm.open_run(own, trust=True).manifest.updates == 1
    with pytest.raises(PplebmError, match="would run"):
        pplebm.open_run(own)  # looking once is no consent for good
    assert pplebm.fit(tmp_path / "mine.py", tiny.data(), out=own, resume=True, trust=True).manifest.updates == 1
    assert pplebm.open_run(own).manifest.updates == 1  # fitted here by now


def test_shipped_pages_need_no_list_and_no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PPLEBM_CONFIG_HOME", "/proc/no/such/place")  # nor can one be written
    run = tiny.fit(tmp_path / "run")
    assert pplebm.open_run(run.path).manifest.updates == 1


def test_a_compiled_copy_of_another_text_is_not_run(own):
    """Bytecode beside a page, as new as the page, is what Python itself would run."""
    page = own / "pages" / "model.py"
    other = own.parent / "other.py"
    other.write_text("raise SystemExit('run')\n" + "#" * (page.stat().st_size - 25) + "\n")
    assert other.stat().st_size == page.stat().st_size
    cached = importlib.util.cache_from_source(str(page))
    os.utime(other, (page.stat().st_mtime, page.stat().st_mtime))
    py_compile.compile(str(other), cached)
    assert pplebm.open_run(own).manifest.updates == 1


def test_a_shipped_page_imports_nothing_from_the_home_that_a_manifest_names(tmp_path, monkeypatch):
    run = tiny.fit(tmp_path / "run")
    manifest = read_manifest(run.path)
    model = manifest.model._replace(home=str(tmp_path))
    write_manifest(run.path, manifest._replace(model=model))
    seen = []
    load = pplebm.gallery.pages._load_file
    monkeypatch.setattr(
        "pplebm.gallery.pages._load_file", lambda p, home, seed: seen.append(home) or load(p, home, seed)
    )
    pplebm.open_run(run.path)
    assert seen == ["", ""]


def test_a_known_page_with_another_home_is_a_strangers(own):
    manifest = read_manifest(own)
    write_manifest(own, manifest._replace(model=manifest.model._replace(home="/another")))
    with pytest.raises(PplebmError, match="would run"):
        pplebm.open_run(own)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b'{"a": 3}', b'{"a": ["b"]}'])
def test_a_damaged_list_is_an_empty_one(own, content):
    trust.list_path().write_bytes(content)
    with pytest.raises(PplebmError, match="would run"):
        pplebm.open_run(own)


def test_where_the_list_lies(monkeypatch, tmp_path):
    for name in ("PPLEBM_CONFIG_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust.list_path() == tmp_path / ".config" / "pplebm" / "trusted_pages.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert trust.list_path() == tmp_path / "x" / "pplebm" / "trusted_pages.json"
    monkeypatch.setenv("PPLEBM_CONFIG_HOME", str(tmp_path / "p"))
    assert trust.list_path() == tmp_path / "p" / "trusted_pages.json"


def test_every_command_that_opens_a_run_asks(own, tmp_path, monkeypatch):
    moved = shutil.copytree(own, tmp_path / "moved")
    data = tmp_path / "data.npy"
    np.save(data, tiny.data())
    monkeypatch.setenv("PPLEBM_CONFIG_HOME", str(tmp_path / "elsewhere"))
    for command in (
        ["sample", moved, "-n", 2, "--out", tmp_path / "a.npz"], ["anomaly", moved, "--data", data], ["report", moved],
        ["diagnose", moved, "--rows", 0, "--chains", 2, "--draws", 4, "--warmup", 1],
        ["fit", "--resume", "--out", moved, "--data", data],
    ):  # fmt: skip
        said = CliRunner().invoke(main, list(map(str, command)))
        assert said.exit_code == 2 and "would run" in said.output and "--trust" in said.output, said.output
        said = CliRunner().invoke(main, [*map(str, command), "--trust"])
        assert "would run" not in said.output, said.output
    assert json.loads(trust.list_path().read_text())
