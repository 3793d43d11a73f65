"""The clock: candidates interleaved in one process, medians, ratios round by round, and what the machine can do."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from .candidates import Candidate


def interleaved(candidates: list[Candidate], column: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; in each round every candidate runs once, in turn."""
    calls = {c.name: c.calls()[column] for c in candidates if column in c.calls()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def against(seconds: dict[str, list[float]], baseline: str) -> dict[str, float]:
    """Median over rounds of the baseline's time divided by each candidate's in the same round: above one is faster."""
    return {n: float(np.median(np.array(seconds[baseline]) / np.array(s))) for n, s in seconds.items()}


def others_load(pause: float = 1.0) -> float | None:
    """Cores that other processes keep busy, by /proc/stat; None where there is none."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None

    def busy() -> float:
        fields = [int(v) for v in stat.read_text().splitlines()[0].split()[1:]]
        return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")

    before, own = busy(), time.process_time()
    time.sleep(pause)
    return max(0.0, (busy() - before - (time.process_time() - own)) / pause)


def machine() -> dict[str, Any]:
    """Names of processor and accelerator, threads, versions."""
    import jax
    import numpyro
    import pyro
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags = about.get("flags", "").split()
    return {
        "cpu": about.get("model name", platform.processor()),
        "family": f"{about.get('cpu family', '?')}, model {about.get('model', '?')}",
        "vectors": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "versions": {m.__name__: m.__version__ for m in (torch, pyro, jax, numpyro)},
        "python": platform.python_version(),
    }


def peak() -> dict[str, float]:
    """Best of several matrix products of side 1024, in 10⁹ operations a second: what the libraries reach here."""
    import jax
    import jax.numpy as jnp
    import torch

    a = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    t, j = torch.as_tensor(a), jnp.asarray(a)
    half = t.bfloat16()
    product = jax.jit(lambda a: a @ a)
    runs = {
        "torch float32": lambda: torch.mm(t, t),
        "torch bfloat16": lambda: torch.mm(half, half),
        "XLA float32": lambda: product(j).block_until_ready(),
    }
    best = {}
    for name, run in runs.items():
        times = []
        for _ in range(12):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        best[name] = 2 * 1024**3 / min(times) / 1e9
    return best
