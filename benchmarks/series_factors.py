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
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from seeded import cell

import pplebm
from pplebm.data import Series, Windows
from pplebm.scores.metrics import average_precision
from pplebm.scores.series_metrics import N_RANDOM, adjusted_f1, vus_pr

RESULT = Path(__file__).with_suffix(".json")
WINDOW, STRIDE, BLOCK, TRAIN, QUIET, MOST = 64, 4, 8, 0.4, 0.6, 4032
SCORES = ("reconstruction", "log_joint")
N_MASKED = 24  # windows whose block is missing


def series_of(folder: Path) -> dict[str, tuple[Series, np.ndarray]]:
    """Series and labels of points, by name; chosen as the first lines of this file say."""
    found: dict[str, tuple[Series, np.ndarray]] = {}
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


def nearest(train: Windows, test: Windows) -> np.ndarray:
    """Distance of every window to the nearest one of training, by point."""
    a, b = (w.x.reshape(len(w.x), -1).astype(float) for w in (test, train))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T
    return test.to_points(np.sqrt(np.maximum(squares.min(1), 0.0)))


def detected(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Figures of a score."""
    return {"auprc": average_precision(labels, scores), "vus_pr": vus_pr(labels, scores, WINDOW),
            "adjusted_f1": adjusted_f1(labels, scores)}  # fmt: skip


def imputed(run: Any, some: Windows, seed: int) -> dict[str, float]:
    """Error and coverage of 90 % intervals at blocks that are taken out, beside a straight line over the gap."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(some.x), min(N_MASKED, len(some.x)), replace=False)
    x, first = some.x[rows].astype(float), rng.integers(BLOCK, WINDOW - 2 * BLOCK, len(rows))
    there = np.ones(x.shape, bool)
    for i, at in enumerate(first):
        there[i, at : at + BLOCK] = False
    data = {"x": np.where(there, x, 0.0).astype(np.float32), "observed_x": there}
    draws = pplebm.sample(run.program.with_coordinates("noncentered"), data=data, params=run.params, n_chains=8,
                          n_draws=25, n_warmup=150, thin=2, seed=seed, progress=False)  # fmt: skip
    values = pplebm.predictive(draws, seed=seed)["x"].reshape(-1, *x.shape)[:, ~there]
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    truth, steps = x[~there], np.arange(WINDOW)
    line = np.stack([np.interp(steps, steps[t[:, 0]], a[t[:, 0], 0]) for a, t in zip(x, there, strict=True)])[..., None]
    return {
        "error": float(np.sqrt(((values.mean(0) - truth) ** 2).mean())),
        "error of a line": float(np.sqrt(((line[~there] - truth) ** 2).mean())),
        "error of the mean": float(np.sqrt((truth**2).mean())),
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "width": float((high - low).mean()),
    }


def compare(series: Series, labels: np.ndarray, seed: int, updates: int, backend: str) -> dict[str, Any]:
    """Both models on one series."""
    n, row = len(labels), {}
    labels = labels[int(TRAIN * n) :]
    for name, tilted in (("tilted", True), ("twin", False)):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", pplebm.PplebmWarning)  # a batch is all windows of a short series
            run = pplebm.fit("series_factors", part(series, 0.0, TRAIN), "variational_joint", f"{folder}/run",
                             updates=updates, seed=seed, hyper={"model.tilted": tilted}, backend=backend, window=WINDOW,
                             stride=STRIDE, held_out_fraction=0.0, progress=False)  # fmt: skip
            train, test = (run.windows(part(series, *ends)) for ends in ((0.0, TRAIN), (TRAIN, 1.0)))
            found = {score: detected(labels, run.point_scores(part(series, TRAIN, 1.0), score, posterior="learned"))
                     for score in SCORES}  # fmt: skip
            found["sigma"] = float(np.exp(run.program.ppl.to_numpy(run.params["log_sigma"])))
            found["missing"] = imputed(run, run.windows(part(series, TRAIN, QUIET)), seed)
            row[name] = found
    row["nearest"] = detected(labels, nearest(train, test))
    noise = [detected(labels, a) for a in np.random.default_rng(seed).random((N_RANDOM, len(labels)))]
    row["random"] = {name: float(np.mean([one[name] for one in noise])) for name in noise[0]}
    row["prevalence"] = float(labels.mean())
    return row


def figures(rows: dict[str, Any], *path: str) -> list[float]:
    """A figure averaged over series, of every seed."""
    found = []
    for series in rows.values():
        values = []
        for one in series.values():
            for name in path:
                one = one[name]
            values.append(one)
        found.append(float(np.mean(values)))
    return found


def table(rows: dict[str, Any]) -> str:
    """Tables in Markdown: means over series, mean ± standard deviation over seeds."""
    lines = ["| score | AUPRC | VUS-PR | point-adjusted F1 |", "|---|---:|---:|---:|"]
    sources = [((model, score), f"{model}, {score}") for model in ("tilted", "twin") for score in SCORES]
    for path, told in [*sources, (("nearest",), "nearest training window"), (("random",), "random")]:
        cells = [cell(figures(rows, *path, name)) for name in ("auprc", "vus_pr", "adjusted_f1")]
        lines.append(f"| {told} | {' | '.join(cells)} |")
    lines += [
        f"\nprevalence {figures(rows, 'prevalence')[0]:.3f}\n",
        "| missing blocks | tilted | twin |",
        "|---|---:|---:|",
    ]
    for name in ("error", "error of a line", "error of the mean", "coverage", "width"):
        lines.append(f"| {name} | {' | '.join(cell(figures(rows, m, 'missing', name)) for m in ('tilted', 'twin'))} |")
    names = list(next(iter(rows.values())))
    lines += ["", "| series | prevalence | tilted | twin | nearest | random |", "|---|---:|---:|---:|---:|---:|"]
    for name in names:
        one = {seed: {name: series[name]} for seed, series in rows.items()}
        cells = [
            cell(figures(one, *path, "vus_pr")) for path in (("tilted", SCORES[0]), ("twin", SCORES[0]), ("nearest",))
        ]
        random = f"{np.mean(figures(one, 'random', 'vus_pr')):.3f}"
        lines.append(f"| {name} | {figures(one, 'prevalence')[0]:.3f} | {' | '.join([*cells, random])} |")
    return "\n".join(lines)


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
    for seed in args.seeds:
        rows[str(seed)] = {}
        for name, (series, labels) in chosen.items():
            rows[str(seed)][name] = compare(series, labels, seed, args.updates, args.backend)
            print(seed, name, json.dumps(rows[str(seed)][name]), flush=True)
        settings = {"updates": args.updates, "backend": args.backend, "window": WINDOW, "stride": STRIDE}
        args.out.write_text(json.dumps({"settings": settings, "seeds": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
