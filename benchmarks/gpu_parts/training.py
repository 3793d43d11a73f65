"""One training of a convolutional model on images of colour: time of an update, time to the first, peak memory."""

from __future__ import annotations

import resource
import tempfile
from typing import Any, NamedTuple

import numpy as np

SIDE, QUICK_SIDE, QUICK_UPDATES = 32, 8, 6
BATCHES = 4  # of images that there are


class Cell(NamedTuple):
    """What is trained, by what, and where."""

    model: str
    inference: str
    backend: str
    precision: str
    devices: int
    side: int
    updates: int
    quick: bool


def n_devices(backend: str) -> int:
    """Devices of one machine that a backend would share a batch among; parts of a CPU are not counted."""
    if backend == "pyro":
        import torch

        return max(1, torch.cuda.device_count())
    import jax

    return jax.device_count() if jax.default_backend() == "gpu" else 1


def cells(quick: bool, updates: int) -> list[Cell]:
    """All that are run: over one device, and over all where there are several."""
    found = []
    for model in ("joint_ebm", "latent_ebm"):
        for inference in ("variational_joint", "short_run_mle"):
            for backend, precision in (("numpyro", "full"), ("pyro", "full"), ("pyro", "bf16")):
                for devices in sorted({1, n_devices(backend)}):
                    side, n = (QUICK_SIDE, QUICK_UPDATES) if quick else (SIDE, updates)
                    found.append(Cell(model, inference, backend, precision, devices, side, n, quick))
    return found


def images(n: int, side: int) -> np.ndarray:
    """Smooth images of colour, bytes (n, side, side, 3): a sum of a few waves each."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, side)] * 2, indexing="ij"), -1)
    waves = rng.normal(size=(n, 1, 1, 3, 2)) * 4.0
    phase = (grid[None, :, :, None, :] * waves).sum(-1) + rng.uniform(0, 6.3, (n, 1, 1, 3))
    return np.rint(127.5 + 127.0 * np.sin(phase)).astype(np.uint8)


def run_cell(cell: Cell) -> dict[str, Any]:
    """Figures of one training."""
    import pplebm

    hyper: dict[str, Any] = {"decoder": "conv"}
    if cell.quick:
        hyper |= {"channels": 4, "batch_size": 8}
    batch = hyper.get("batch_size") or int(pplebm.load(cell.inference).Hyper().batch_size)
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit(
            cell.model, images(BATCHES * batch, cell.side), cell.inference, f"{folder}/run", hyper=hyper,
            backend=cell.backend, precision=cell.precision, devices=cell.devices, updates=cell.updates,
            progress=False,
        )  # fmt: skip
        rows, first = run.metrics, run.manifest.first_update_seconds
        drawn = np.asarray(run.sample_data(4, seed=0))
    assert drawn.shape == (4, cell.side, cell.side, 3) and np.isfinite(drawn).all()
    early, late = rows[(len(rows) - 1) // 2], rows[-1]
    updates = late["update"] - early["update"]
    seconds = late["seconds"] - early["seconds"] if updates else late["seconds"] / late["update"]
    ms = 1e3 * seconds / max(updates, 1)
    return {"ms": ms, "images": 1e3 * batch / ms, "first": first, "mib": peak_mib(cell.backend)}


def peak_mib(backend: str) -> int:
    """Peak memory of the device, or of the process where it computes on a CPU."""
    if backend == "pyro":
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated() // 2**20)
    else:
        import jax

        stats = jax.devices()[0].memory_stats() if jax.default_backend() == "gpu" else None
        if stats:
            return int(stats["peak_bytes_in_use"] // 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
