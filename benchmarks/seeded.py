"""What benchmarks of one comparison by several seeds share: their command line, their figures on disk, a cell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def cell(values: Any, digits: int = 3) -> str:
    """Mean ± standard deviation over seeds.

    >>> cell([1.0, 2.0], 1), cell([1.0])
    ('1.5 ± 0.7', '1.000 ± nan')
    """
    a = np.asarray(list(values), float)
    return f"{a.mean():.{digits}f} ± {a.std(ddof=1) if len(a) > 1 else np.nan:.{digits}f}"


def command(
    doc: str,
    compare: Callable[[int, int | None, str, str], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    out: Path,
    seeds: list[int],
    updates: int | None,
    inference: str,
) -> None:
    """Compare with every seed, keep figures and settings after each, and print the table.

    Args:
        doc: of the benchmark; its first line describes the command.
        compare: of a seed, updates (None: the page's own number), an algorithm page and a backend.
        table: of the figures by seed.
        out, seeds, updates, inference: what the options are if they are left out.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--updates", type=int, default=updates)
    parser.add_argument("--inference", default=inference)
    parser.add_argument("--backend", default="numpyro")
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    settings = {"updates": args.updates, "inference": args.inference, "backend": args.backend}
    rows: dict[str, Any] = {}
    for seed in args.seeds:
        rows[str(seed)] = compare(seed, args.updates, args.inference, args.backend)
        print(seed, json.dumps(rows[str(seed)]), flush=True)
        args.out.write_text(json.dumps({"settings": settings, "seeds": rows}, indent=1) + "\n")
    print(table(rows))
