"""The machine: its names, what it reaches, and how busy others keep it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

BUSY = 0.1  # cores of other processes from which a warning is given
PACKAGES = ("pplebm", "torch", "pyro-ppl", "jax", "jaxlib", "numpyro", "numpy")
VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve")
SIDE = 1024  # of the matrices whose product is the measured peak


def machine() -> dict[str, Any]:
    """Processor, accelerators, threads, flags and versions."""
    import jax
    import torch

    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    about = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags = about.get("flags", about.get("Features", "")).split()
    return {
        "cpu": about.get("model name", platform.processor() or platform.machine()),
        "family": about.get("cpu family"),
        "model": about.get("model"),
        "vectors": [f for f in VECTORS if f in flags],
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "jax_devices": [str(d) for d in jax.devices()],
        "environment": {k: os.environ[k] for k in ("XLA_FLAGS", "OMP_NUM_THREADS") if k in os.environ},
        "system": platform.platform(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def named(m: dict[str, Any]) -> str:
    """The machine in one line."""
    family = f" (family {m['family']}, model {m['model']})" if m["family"] else ""
    extra = f", {', '.join(m['vectors'])}" if m["vectors"] else ""
    threads = f", torch on {m['torch_threads']} threads by default"
    return f"{m['cpu']}{family}{extra}, {m['cores']} cores{threads}{', ' + m['gpu'] if m['gpu'] else ''}"


class Load:
    """Cores that other processes keep busy, by /proc/stat, from its making until `of_others` is asked."""

    def __init__(self) -> None:
        self._busy, self._own, self._began = self._total(), time.process_time(), time.perf_counter()

    @staticmethod
    def _total() -> float | None:
        """Seconds that all cores together have worked since the machine started."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        fields = [int(v) for v in stat.read_text().splitlines()[0].split()[1:]]
        idle = fields[3] + fields[4]
        return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")

    def of_others(self) -> float | None:
        """Mean number of cores; None where there is no /proc/stat."""
        now = self._total()
        if now is None or self._busy is None:
            return None
        passed, own = time.perf_counter() - self._began, time.process_time() - self._own
        return max(0.0, (now - self._busy - own) / max(passed, 1e-9))


def peak(place: str, repeats: int = 12) -> dict[str, float]:
    """Best of several products of two 1024 x 1024 matrices, 10⁹ operations a second, by library and precision.

    It is what the libraries reach here on a friendly shape, not what the chip could do at most.
    """
    import jax
    import torch

    a = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    t = torch.as_tensor(a, device=place)
    j = jax.device_put(a, jax.devices("gpu" if place == "cuda" else "cpu")[0])
    half, product = t.bfloat16(), jax.jit(lambda a: a @ a)

    def torch_product(m: torch.Tensor) -> Callable[[], None]:
        def run() -> None:
            out = torch.mm(m, m)
            if place != "cpu":
                torch.cuda.synchronize()
            del out

        return run

    runs = {
        "torch float32": torch_product(t),
        "torch bfloat16": torch_product(half),
        "XLA float32": lambda: jax.block_until_ready(product(j)),
    }
    best = {}
    for name, run in runs.items():
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        best[name] = 2 * SIDE**3 / min(times) / 1e9
    return best
