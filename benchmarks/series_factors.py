"""Anomalies and missing values of series of the Numenta Anomaly Benchmark, by factors of windows.

    python benchmarks/series_factors.py --data data/NAB --seeds 0 1 2

The series are the first of each folder, in the order of the alphabet, that have at most 4032 points and no labelled
window in their first 60 %. The first 40 % are learned from, without labels, in windows of 64 points; the rest is
scored, point by point. Labels are the benchmark's own windows, about a tenth of a series around what happened. Beside
the model, its untilted twin: the distance of a window to the nearest one of training, averaged over the windows that
hold a point, and random scores. Missing values are blocks of 8 points taken out of the windows between 40 % and 60 %,
one in every window; intervals are of 200 posterior draws by chains that accept and reject. A seed starts learning, and
draws the blocks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from series_parts.learned import How, Task, compare
from series_parts.tables import by_series, detection, figures, missing

import pplebm
from pplebm.data import Series

RESULT = Path(__file__).with_suffix(".json")
WINDOW, STRIDE, TRAIN, QUIET, MOST = 64, 4, 0.4, 0.6, 4032


def series_of(folder: Path) -> dict[str, tuple[Series, np.ndarray]]:
    """Series and labels of points, by name; chosen as the first lines of this file say."""
    found: dict[str, tuple[Series, np.ndarray]] = {}
    if not (folder / "combined_windows.json").is_file():
        sys.exit(f"{folder} holds no combined_windows.json, the labels of the Numenta Anomaly Benchmark (numenta/NAB), "
                 f"beside which its folders of series lie, every file as <name>.csv.gz.")  # fmt: skip
    known = json.loads((folder / "combined_windows.json").read_text())
    for name in sorted(known):
        place = name.split("/")[0]
        frame = pd.read_csv(folder / f"{name}.gz")
        time, labels = pd.to_datetime(frame["timestamp"]), np.zeros(len(frame), int)
        for first, last in known[name]:
            labels[(time >= pd.Timestamp(first)) & (time <= pd.Timestamp(last))] = 1
        quiet = labels.any() and not labels[: int(QUIET * len(labels))].any()
        if quiet and len(frame) <= MOST and place not in [n.split("/")[0] for n in found]:
            found[name] = pplebm.data.read_series(frame), labels
    return found


def part(series: Series, first: float, last: float) -> Series:
    """The points between two shares of a series."""
    n = len(series.values)
    return series._replace(values=series.values[int(first * n) : int(last * n)], time=None)


def compare_series(series: Series, labels: np.ndarray, seed: int, how: How) -> dict[str, Any]:
    """Both models on one series."""
    test = part(series, TRAIN, 1.0)
    task = Task(part(series, 0.0, TRAIN), test, labels[int(TRAIN * len(labels)) :], part(series, TRAIN, QUIET))
    return compare(task, how, seed)


def table(rows: dict[str, Any]) -> str:
    """All tables in Markdown."""
    columns = [("tilted, windows", "tilted", "log_joint", "vus_pr"), ("twin, windows", "twin", "log_joint", "vus_pr"),
               ("tilted, points", "tilted", "reconstruction", "vus_pr"), ("nearest", "nearest", "vus_pr"),
               ("random", "random", "vus_pr"), ("90 % cover", "tilted", "missing", "coverage")]  # fmt: skip
    prevalence = f"prevalence {figures(rows, 'prevalence')[0]:.3f}"
    parts = detection(rows), [prevalence], by_series(rows, "series", columns, 3), missing(rows)
    return "\n\n".join("\n".join(lines) for lines in parts)


def main() -> None:
    """Every series by every seed; figures are kept after each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/NAB"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--backend", default="numpyro")
    parser.add_argument("--series", type=int, default=None, help="The first ones.")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    chosen = dict(list(series_of(args.data).items())[: args.series])
    how = How(WINDOW, STRIDE, args.updates, args.backend)
    for seed in args.seeds:
        rows[str(seed)] = {}
        for name, (series, labels) in chosen.items():
            rows[str(seed)][name] = compare_series(series, labels, seed, how)
            print(seed, name, json.dumps(rows[str(seed)][name]), flush=True)
        settings = {"updates": args.updates, "backend": args.backend, "window": WINDOW, "stride": STRIDE}
        args.out.write_text(json.dumps({"settings": settings, "seeds": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
