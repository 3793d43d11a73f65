"""Learning from a file larger than memory, beside the same learning from rows in memory.

    python benchmarks/large_file.py --gigabytes 20

The file is sparse: most of its rows are zeros that take no room on a disk, so that the figures tell what mapping,
reading ahead and scaling cost, not how fast a disk is. Both runs go on in turn in one process; figures are medians over
rounds, the ratio is the median of the rounds' ratios. The first update comes after every value was looked at, for the
range, the fingerprint and a check against the model. Memory is what the process holds beside mapped files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.ppl.language import load_backend
from pplebm.runs.config import RunConfig
from pplebm.runs.job import new_job
from pplebm.runs.learn import Recorder
from pplebm.runs.signals import Stop

SIDE, IN_MEMORY, FILLED = 28, 10_000, 1_000  # of an image; rows; every so many of them are not zero


def main() -> None:
    """Make the file, learn from it and from memory, and print the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--folder", help="for the file; a temporary one if left out")
    parser.add_argument("--page", default="noise_contrastive")
    parser.add_argument("--backend", default="numpyro", choices=["numpyro", "pyro"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, default=100, help="of each per round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = sparse(Path(folder) / "images.npy", int(args.gigabytes * 1e9 / (4 * SIDE * SIDE)))
        runs, reading = {}, {}
        for name, source in (("memory", np.load(path, mmap_mode="r")[:IN_MEMORY].copy()), ("file", path)):
            began = time.perf_counter()
            runs[name] = blocks(Path(folder) / name, source, args)
            next(runs[name])
            reading[name] = time.perf_counter() - began
        ms = measured(runs, args)
        size, used = path.stat().st_size / 1e9, path.stat().st_blocks * 512 / 1e9
    ratio = float(np.median(ms["file"] / ms["memory"]))
    print(f"{size:.1f} GB, of which {used:.2f} on the disk; {args.page} on {args.backend}; {memory():.2f} GB of memory")
    for name, values in ms.items():
        print(f"{name:8} first update after {reading[name]:.1f} s; {np.median(values):.2f} ms an update")
    print(f"file / memory {ratio:.3f}")


def sparse(path: Path, n: int) -> Path:
    """A file of n images, few of which are not zero."""
    images = np.lib.format.open_memmap(path, "w+", np.float32, (n, SIDE, SIDE))
    rng = np.random.default_rng(0)
    for i in range(0, n, FILLED):
        images[i] = rng.normal(size=(SIDE, SIDE))
    images.flush()
    return path


def blocks(folder: Path, source: Any, args: argparse.Namespace) -> Iterator[int]:
    """A run of `fit`, block by block."""
    total = (args.rounds + 2) * args.updates
    config = RunConfig("joint_ebm", source, args.page, updates=total, backend=args.backend, compiled=False).checked()
    job, begin = new_job(folder, config, load_backend(args.backend).parallel(1, 1, "auto"))
    return Recorder(job, begin, None, Stop()).blocks()


def measured(runs: dict[str, Iterator[int]], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Milliseconds of an update by round."""
    ms: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.rounds + 1):
        for name, run in runs.items():
            began, goal = time.perf_counter(), (turn + 1) * args.updates
            while next(run, goal) < goal:
                pass
            if turn:
                ms[name].append(1e3 * (time.perf_counter() - began) / args.updates)
    return {name: np.array(values) for name, values in ms.items()}


def memory() -> float:
    """GB of memory of this process beside mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1e6


if __name__ == "__main__":
    main()
