"""Tables in Markdown: means over series, mean ± standard deviation over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell

MODELS = {"tilted": "tilted", "twin": "untilted twin"}
DETECTED = {"auprc": "AUPRC of points", "vus_pr": "VUS-PR", "adjusted_f1": "point-adjusted F1"}
ERRORS = {"error": "root mean squared error", "error of a line": "the same of a straight line over the gap",
          "error of the mean": "the same of the training mean", "coverage": "90 % intervals cover",
          "width": "their width"}  # fmt: skip
OF_MODELS = {"log_joint": "log_joint", "reconstruction": "reconstruction",
             "reconstruction of the first": "reconstruction of telemetry"}  # fmt: skip
BESIDE = {"nearest": "nearest training window", "nearest of the first": "the same of telemetry",
          "deviation": "distance to the training mean", "deviation of the first": "the same of telemetry",
          "random": "random"}  # fmt: skip


def figures(rows: dict[str, Any], *path: str) -> list[float]:
    """A figure averaged over the series that have it, of every seed; nothing if none has it."""
    found = [[at(series, path) for series in row.values()] for row in rows.values()]
    known = [[value for value in row if value is not None] for row in found]
    return [float(np.mean(row)) for row in known if row]


def at(cells: Any, path: tuple[str, ...]) -> float | None:
    """A figure at a path of names, or None."""
    for name in path:
        cells = cells.get(name)
        if cells is None:
            return None
    return float(cells)


def detection(rows: dict[str, Any]) -> list[str]:
    """Scores of the models and those beside them, as far as there are figures."""
    of_models = {(m, score): f"{name}, {words}" for score, words in OF_MODELS.items() for m, name in MODELS.items()}
    lines = [f"| score | {' | '.join(DETECTED.values())} |", f"|---|{'---:|' * len(DETECTED)}"]
    for path, words in (of_models | {(key,): words for key, words in BESIDE.items()}).items():
        if figures(rows, *path, "auprc"):
            lines.append(f"| {words} | {' | '.join(cell(figures(rows, *path, name)) for name in DETECTED)} |")
    return lines


def missing(rows: dict[str, Any]) -> list[str]:
    """Errors and intervals of what was taken out."""
    lines = ["| | tilted | untilted twin |", "|---|---:|---:|"]
    for name, words in ERRORS.items():
        lines.append(f"| {words} | {' | '.join(cell(figures(rows, m, 'missing', name)) for m in MODELS)} |")
    return lines


def by_series(rows: dict[str, Any], first: str, columns: list[tuple[str, ...]], digits: int) -> list[str]:
    """A row of every series: words and path of each column; means over seeds alone where the path ends in "mean"."""
    lines = [f"| {first} | {' | '.join(words for words, *_ in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in next(iter(rows.values())):
        one = {seed: {name: row[name]} for seed, row in rows.items()}
        cells = []
        for _, *path in columns:
            found = figures(one, *[part for part in path if part != "mean"])
            whole = f"{np.mean(found):.{digits}f}" if found else ""
            cells.append(whole if path[-1] == "mean" or not found else cell(found, digits))
        lines.append(f"| {Path(name).stem} | {' | '.join(cells)} |")
    return lines
