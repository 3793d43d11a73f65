"""Signals and disks: a run that is told to end saves, and one that cannot save goes on."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import threading
import time

import pytest
import tiny

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning import loop
from pplebm.runs import checkpoints, files
from pplebm.runs.signals import Stop, Stopped, stopping

MAIN = "import sys, tiny, signal; from pplebm.cli import main; main(sys.argv[1:])"


def test_the_first_signal_is_raised_and_the_second_is_not_caught():
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    heard = []
    signal.signal(signal.SIGTERM, lambda *args: heard.append(1))
    own = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        with pytest.raises(Stopped, match="SIGUSR1"):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.number == signal.SIGUSR1 and signal.getsignal(signal.SIGTERM) is own
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [1]
    signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert {n: signal.getsignal(n) for n in before} == before


def test_what_must_not_be_cut_in_two_is_not():
    done = []
    with stopping() as stop:
        with stop.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)
        with pytest.raises(Stopped):
            stop.check()
    assert done and isinstance(Stopped(15), KeyboardInterrupt)
    assert pickle.loads(pickle.dumps(Stopped(15))).number == 15
    Stop().check()


def test_other_threads_and_other_processes_install_nothing_of_their_own():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def elsewhere():
        with stopping():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start(), thread.join()
    assert seen == [before]
    with stopping(rank=1):
        os.kill(os.getpid(), signal.SIGTERM)  # the first process saves
        os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_handlers_are_restored(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))
    before, updates = signal.getsignal(number), loop.updates

    def signalled(*args, **kwargs):
        for n, found in enumerate(updates(*args, **kwargs)):
            if n == 2:
                os.kill(os.getpid(), number)
            yield found

    monkeypatch.setattr("pplebm.learning.loop.updates", signalled)
    with pytest.raises(KeyboardInterrupt):
        tiny.fit(tmp_path / "run", 100)
    assert signal.getsignal(number) == before
    done = pplebm.open_run(tmp_path / "run").manifest.updates
    assert 1 <= done < 100 and f"stopped at update {done} and saved" in capsys.readouterr().out
    monkeypatch.setattr("pplebm.learning.loop.updates", updates)
    assert tiny.resume(tmp_path / "run").manifest.updates == 100


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_the_command_ends_with_the_status_of_its_signal(tmp_path, number, status):
    folder = tmp_path / "run"
    process = tiny.python(
        "-c", MAIN, "fit", "latent_ebm", "--updates", 10**6, "--no-compile", "--no-report", "--out", folder,
        "--set", "n_steps_prior=1", "--set", "n_steps_posterior=1", "--set", "batch_size=8",
    )  # fmt: skip
    wait_until((folder / "checkpoint.safetensors").exists, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (out, err)
    assert f"--resume --out {folder}" in out and "Traceback" not in err
    assert not (folder / "run.lock").exists()


def test_a_signal_to_the_command_reaches_the_runs_of_its_seeds(tmp_path):
    process = tiny.python(
        "-c", f"if __name__ == '__main__':\n    {MAIN}", "fit", "latent_ebm", "--updates", 10**6, "--no-compile",
        "--seeds", "0..1", "--jobs", 2, "--out", tmp_path / "run",
        "--set", "n_steps_prior=1", "--set", "n_steps_posterior=1", "--set", "batch_size=8",
    )  # fmt: skip
    checkpoints = [tmp_path / f"run-seed{seed}" / "checkpoint.safetensors" for seed in (0, 1)]
    wait_until(lambda: all(path.exists() for path in checkpoints), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err, (out, err)
    for path in checkpoints:
        assert f"--resume --out {path.parent}" in out and not (path.parent / "run.lock").exists()


def wait_until(is_done, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not is_done() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_old_checkpoint_and_learning_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_EVERY", 10)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SHARE", float("inf"))
    write, calls = checkpoints.write_checkpoint, []

    def sometimes(*args):
        calls.append(1)
        return full() if len(calls) in (2, 3) else write(*args)

    monkeypatch.setattr(checkpoints, "write_checkpoint", sometimes)
    with pytest.warns(PplebmWarning) as told:
        run = tiny.fit(tmp_path / "run", 40)
    assert [str(w.message).split(" could")[0] for w in told] == ["update 20", "update 30"]
    assert "No space left on device" in str(told[0].message) and "learning goes on" in str(told[0].message)
    assert [row["update"] for row in run.metrics] == [10, 20, 30, 40] and run.manifest.updates == 40


def test_a_last_save_that_fails_says_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_EVERY", 10)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("pplebm.runs.learn.CHECKPOINT_SHARE", float("inf"))
    write = checkpoints.write_checkpoint
    monkeypatch.setattr(
        checkpoints,
        "write_checkpoint",
        lambda f, p, progress: full() if progress.update == 20 else write(f, p, progress),
    )
    with pytest.raises(PplebmError, match=r"update 20 could not be saved .*keeps the checkpoint before it; make room"):
        tiny.fit(tmp_path / "run", 20)
    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    assert pplebm.open_run(tmp_path / "run").manifest.updates == 10
    assert tiny.resume(tmp_path / "run").manifest.updates == 20


def test_a_disk_that_was_full_from_the_beginning_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "write_checkpoint", full)
    with pytest.raises(PplebmError, match="holds no checkpoint yet; make room"):
        tiny.fit(tmp_path / "run", 3)
    assert not os.listdir(tmp_path)


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(tmp_path / "a", "new")
    assert tiny.files_in(tmp_path) == {"a": b"old"}


def test_a_run_whose_last_update_was_undone_is_saved(tmp_path, monkeypatch):
    updates = loop.updates

    def undone(*args, **kwargs):
        for progress, events in updates(*args, **kwargs):
            last = events[-1]
            yield (
                progress,
                [*events[:-1], last._replace(rolled_back_to=0, reason="bad luck") if last.update == 3 else last],
            )

    monkeypatch.setattr("pplebm.learning.loop.updates", undone)
    with pytest.warns(PplebmWarning, match="bad luck"):
        assert tiny.fit(tmp_path / "run", 3).manifest.updates == 3


def test_columns_of_metrics_stand_in_one_order(tmp_path):
    run = tiny.fit(tmp_path / "run", 10)
    names = list(run.metrics[0])
    last = [name for name in names if name == "held_out_error"]
    told = [name for name in run.algorithm.reports if name in names]
    assert names == ["update", "seconds", *told, *last]
    assert (run.path / "metrics.csv").read_text().splitlines()[0] == ",".join(names)
