"""Checkpoints, manifests and copies: every damage is found; the checkpoint before the last takes its place."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time

import numpy as np
import pytest
import tiny

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.runs import checkpoints, files
from pplebm.runs.manifest import _checksum, read_manifest


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pplebm.runs.learn.CHECKPOINT_EVERY", 10)
        patch.setattr("pplebm.runs.learn.CHECKPOINT_SECONDS", 0.0)
        patch.setattr("pplebm.runs.learn.CHECKPOINT_SHARE", float("inf"))
        return tiny.fit(tmp_path_factory.mktemp("fitted") / "run", 25)


def test_states_that_take_long_to_save_are_saved_seldom(tmp_path, monkeypatch):
    """After the first one of 0.2 seconds the next is due in ten seconds: here the last is the next."""
    written, write = [], checkpoints.write_checkpoint

    def slow(folder, ppl, progress):
        time.sleep(0.2)
        written.append(progress.update)
        write(folder, ppl, progress)

    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_EVERY", 10)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("pplebm.runs.checkpoints.write_checkpoint", slow)
    tiny.fit(tmp_path / "run", 45)
    assert written == [10, 45]
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SHARE", float("inf"))
    tiny.fit(tmp_path / "often", 45)
    assert written[2:] == [10, 20, 30, 40, 45]


@pytest.fixture
def folder(fitted, tmp_path):
    return shutil.copytree(fitted.path, tmp_path / "run")


def flip(path, at, bit=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def rewritten(path, **changes):
    """The manifest with other content and the checksum of it."""
    content = json.loads(path.read_text()) | changes
    del content["sha256"]
    path.write_text(json.dumps(content | {"sha256": _checksum(content)}))


def test_the_last_two_checkpoints_are_kept(folder):
    numbers = [checkpoints._leaves(folder / name)["update"] for name in (files.CHECKPOINT, files.PREVIOUS)]
    assert numbers == [25, 20]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "header"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(folder, damage):
    path, size = folder / files.CHECKPOINT, (folder / files.CHECKPOINT).stat().st_size
    {
        "flip": lambda: flip(path, size - 7), "cut": lambda: os.truncate(path, size // 2),
        "empty": lambda: os.truncate(path, 0), "gone": path.unlink, "header": lambda: flip(path, 3, 7),
    }[damage]()  # fmt: skip
    with pytest.warns(PplebmWarning, match="is damaged .* the checkpoint before it, of update 20, is used"):
        assert pplebm.open_run(folder).manifest.updates == 20
    with pytest.warns(PplebmWarning, match="of update 20, is used"):
        again = tiny.resume(folder)
    assert again.manifest.updates == 25


def test_a_run_that_went_on_from_the_previous_checkpoint_ends_the_same(folder, fitted):
    os.truncate(folder / files.CHECKPOINT, 100)
    with pytest.warns(PplebmWarning, match="of update 20"):
        tiny.resume(folder)
    whole, again = (checkpoints._leaves(path / files.CHECKPOINT) for path in (fitted.path, folder))
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    strip = lambda path: [{k: v for k, v in row.items() if k != "seconds"} for row in files.read_metrics(path)]
    assert strip(folder) == strip(fitted.path)


def test_every_bit_of_a_checkpoint_is_watched(folder):
    """A flip anywhere is found, or changes nothing of what is read."""
    path = folder / files.CHECKPOINT
    whole, content = checkpoints._leaves(path), path.read_bytes()
    rng, unseen = np.random.default_rng(0), 0
    for at in rng.integers(0, len(content), 300):
        flip(path, at, int(rng.integers(8)))
        try:
            found = checkpoints._leaves(path)
        except Exception:
            found = None
        path.write_bytes(content)
        if found is not None:
            unseen += 1
            assert found.keys() == whole.keys() and all(np.array_equal(found[n], whole[n]) for n in whole)
    assert unseen < 30


def test_two_damaged_checkpoints_are_told(folder):
    for name in (files.CHECKPOINT, files.PREVIOUS):
        os.truncate(folder / name, 50)
    with pytest.raises(PplebmError, match=r"is damaged .* no whole one before it; restore it from a copy"):
        pplebm.open_run(folder)
    with pytest.raises(PplebmError, match="is damaged"):
        tiny.fit(folder.with_name("other"), start=folder)


def test_a_checkpoint_without_checksums_is_none(folder):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(folder / files.CHECKPOINT), folder / files.CHECKPOINT)
    with pytest.warns(PplebmWarning, match="it has no checksums"):
        pplebm.open_run(folder)


def test_a_kill_between_both_names_leaves_a_checkpoint(folder, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *args: (_ for _ in ()).throw(OSError("no links here")))
    checkpoints._link(folder / files.CHECKPOINT, folder / files.PREVIOUS)
    assert not (folder / files.CHECKPOINT).exists()
    with pytest.warns(PplebmWarning, match="it is not there"):
        assert pplebm.open_run(folder).manifest.updates == 25


MANIFESTS = {
    "binary": (lambda path: path.write_bytes(bytes(range(256))), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "cut": (lambda path: os.truncate(path, 300), "is damaged"),
    "deep": (lambda path: path.write_text("[" * 100_000), "is damaged"),
    "list": (lambda path: path.write_text("[]"), "of another|of this version"),
    "no format": (lambda path: path.write_text("{}"), "format None, this is 1"),
    "newer": (lambda path: rewritten(path, format=2), "format 2, this is 1"),
    "edited": (
        lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1')),
        "edited or is damaged",
    ),
    "unknown field": (lambda path: rewritten(path, colour="red"), "colour"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_that_are_none_are_refused_by_name(folder, name):
    change, words = MANIFESTS[name]
    change(folder / files.MANIFEST)
    for use in (pplebm.open_run, tiny.resume):
        with pytest.raises(PplebmError, match=words) as refused:
            use(folder)
        assert str(folder / files.MANIFEST) in str(refused.value)


@pytest.mark.parametrize("name", ["example.npy", "pages/model.py", "pages/inference.py"])
def test_copies_that_were_changed_are_refused_by_name(folder, name):
    flip(folder / name, -2)
    for use in (pplebm.open_run, tiny.resume):
        with pytest.raises(PplebmError, match=f"{name}' was changed since the run was fitted"):
            use(folder)
    (folder / name).unlink()
    with pytest.raises(PplebmError, match=f"{name}' of the run is not there"):
        pplebm.open_run(folder)


@pytest.mark.parametrize("kind", ["../..", "absolute", "link"])
def test_a_page_outside_of_the_folder_is_refused(folder, kind):
    path, manifest = folder / files.MANIFEST, read_manifest(folder)
    outside = shutil.copy(folder / "pages" / "model.py", folder.parent / "outside.py")
    if kind == "link":
        (folder / "pages" / "model.py").unlink()
        (folder / "pages" / "model.py").symlink_to(outside)
    else:
        file = str(outside) if kind == "absolute" else "../outside.py"
        rewritten(path, model=manifest.model._asdict() | {"file": file})
    with pytest.raises(PplebmError, match="lies outside of the run folder"):
        pplebm.open_run(folder, trust=True)


def test_examples_of_several_arrays_are_kept_whole(tmp_path):
    for data in ({"a": np.arange(3), "b": np.ones((3, 2))}, (np.arange(3), np.ones(3))):
        name, digest = files.write_example(tmp_path, data)
        again = files.read_example(tmp_path, name, digest)
        assert type(again) is type(data)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
        with pytest.raises(PplebmError, match="was changed"):
            files.read_example(tmp_path, name, digest)


def test_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        run = tiny.fit(tmp_path / "run")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run.path.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o640} and "checkpoint.safetensors" in modes, modes
