"""A candidate in a process of its own, caches cold: seconds of compiling, and peak memory for short and long chains."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .roster import Choice, make
from .sizes import Size
from .timing import seconds_of

STEPS = (10, 200)  # of either phase
REPEATS = 3


def measured(script: str, keys: list[str], size: Size, place: str, choice: Choice) -> dict[str, Any]:
    """Figures by candidate: seconds of compiling one iteration, and MiB above the level after imports, by steps."""
    found: dict[str, Any] = {}
    for key in keys:
        memory, seconds = {}, []
        for n in STEPS:
            print(f"  in a process of its own: {key}, {n} steps", file=sys.stderr, flush=True)
            command = [sys.executable, script, "--fresh", key, "--size", size.name, "--steps", str(n), "--place", place]
            command += [] if choice.reference is None else ["--reference", choice.reference]
            command += [] if choice.compiled else ["--no-compile"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                found[key] = {"error": " ".join(done.stderr.split()[-60:])}
                break
            out = json.loads(done.stdout.splitlines()[-1])
            memory[str(n)] = out["peak_mib"]
            seconds.append(out["compile_seconds"])
        else:
            found[key] = {"compile_seconds": min(seconds), "peak_mib": memory}
    return found


def report(key: str, size: Size, place: str, choice: Choice) -> dict[str, Any]:
    """Figures that such a process prints: the first iteration less a later one, and the peak once compiled."""
    from . import by_hand, by_hand_jax, original, ours, published  # noqa: F401  what importing takes is not counted

    before = _kib("VmRSS")
    candidate = make(key, size, place, choice)
    first = seconds_of(candidate.iteration)
    _forget_peak()
    later = [seconds_of(candidate.iteration) for _ in range(REPEATS)]
    peak_mib = (_kib("VmHWM") - before) / 1024
    return {"compile_seconds": max(0.0, first - float(np.median(later))), "peak_mib": peak_mib}


def _kib(name: str) -> float:
    """A line of /proc/self/status, or the peak since the process began where there is none."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1])
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _forget_peak() -> None:
    """Let the peak count from now on, so that compiling does not; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def cold_caches() -> tempfile.TemporaryDirectory[str]:
    """An empty folder for torch's compiled code, in the environment as long as it lives."""
    folder = tempfile.TemporaryDirectory(prefix="speed-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    return folder
