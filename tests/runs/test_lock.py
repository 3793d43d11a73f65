"""The lock of a run folder: of a live owner, a killed one, one on another machine, and where there are no locks."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest
import tiny

from pplebm.errors import PplebmError
from pplebm.runs import lock
from pplebm.runs.lock import LOCK, locked

HOLD = "import sys, time; from pathlib import Path; from pplebm.runs.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"


@pytest.fixture
def owner(tmp_path):
    process = tiny.python("-c", HOLD, tmp_path / "run")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_live_owner_is_named_and_a_killed_ones_lock_is_void(tmp_path, owner):
    folder = tmp_path / "run"
    with pytest.raises(PplebmError, match=f"process {owner.pid} on {socket.gethostname()} learns in it"):
        tiny.fit(folder)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert json.loads((folder / LOCK).read_text())["pid"] == owner.pid
    with locked(folder):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
    assert not (folder / LOCK).exists()


def test_a_lock_of_another_machine_is_refused_with_the_remedy(tmp_path):
    (tmp_path / LOCK).write_text('{"pid": 7, "host": "elsewhere"}')
    with pytest.raises(PplebmError, match=f"process 7 on elsewhere; if that process is gone, delete .*{LOCK}"):  # noqa: SIM117
        with locked(tmp_path):
            pass
    (tmp_path / LOCK).unlink()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": 1}', "\0\1"])
def test_a_lock_that_names_nobody_and_is_free_is_taken(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}


def test_without_locks_of_the_system_the_file_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path), pytest.raises(PplebmError, match=f"process {os.getpid()} on .* delete"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_one_process_locks_once(tmp_path):
    with locked(tmp_path), pytest.raises(PplebmError, match=f"process {os.getpid()} "), locked(tmp_path):
        pass


def test_folders_made_for_a_lock_go_unless_something_is_kept_in_them(tmp_path):
    with locked(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert os.listdir(tmp_path / "a") == ["kept"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PplebmError, match="cannot be written"), locked(tmp_path):
        pass
