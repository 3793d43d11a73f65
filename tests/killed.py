"""Runs killed at random instants and gone on with, until they end: a process each time, as a person would start it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tiny
from safetensors.numpy import load_file

import pplebm
from pplebm.runs import learn
from pplebm.runs.files import CHECKPOINT, MANIFEST

EVERY = 10  # updates between checkpoints, so that many kills meet one that is being written
HYPER = {
    "batch_size": 8, "n_steps_posterior": 1, "n_steps_prior": 1, "model.width": 4, "tilt_width": 4, "latent_dim": 2,
}  # fmt: skip


def fit(folder, algorithm, backend, updates, is_small):
    """Begin a run, or go on with it; a lock that was left behind must not be in the way."""
    learn.CHECKPOINT_EVERY, learn.CHECKPOINT_SECONDS, learn.CHECKPOINT_SHARE = EVERY, 0.0, float("inf")
    go_on = (Path(folder) / MANIFEST).exists()
    hyper = {k: v for k, v in HYPER.items() if "posterior" not in k or algorithm != "variational_joint"}
    settings = {"inference": algorithm, "updates": updates, "backend": backend, "compiled": False}
    settings |= {"hyper": hyper} if is_small else {}
    model, data = ("latent_ebm", tiny.data()) if is_small else ("joint_ebm", "digits")
    return pplebm.fit(model, data, out=folder, progress=False, **({"resume": True} if go_on else settings))


def result(folder):
    """Arrays of the last checkpoint, and metrics but for seconds."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / CHECKPOINT), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def check(tmp_path, algorithm, backend, n_kills, updates, rng, is_small=True):
    """Kill n times, begin a new folder whenever a run came to its end, and compare every one with `whole`."""
    learned, rows = result(fit(tmp_path / "whole", algorithm, backend, updates, is_small).path)
    seconds = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
    number, kills = 0, 0
    while True:
        folder = tmp_path / f"run{number}"
        process = tiny.python("-W", "ignore", __file__, folder, algorithm, backend, updates, int(is_small))
        if kills < n_kills:
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.0, 1.3 * seconds + 0.2))
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        if process.returncode == -signal.SIGKILL:
            kills += 1
            continue
        assert process.returncode == 0, err
        arrays, found = result(folder)
        assert found == rows and arrays.keys() == learned.keys()
        assert all(np.array_equal(arrays[name], learned[name]) for name in arrays)
        number += 1
        if kills >= n_kills:
            return number
        time.sleep(0)


if __name__ == "__main__":
    out, algorithm_name, backend_name, n, small = sys.argv[1:]
    pplebm.ppl.language.load_backend(backend_name)
    print("ready", flush=True)
    fit(out, algorithm_name, backend_name, int(n), small == "1")
