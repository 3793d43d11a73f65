"""What the command `anomaly` tells of a series: a score for every time point, in the file's own time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from pplebm.errors import PplebmError

if TYPE_CHECKING:
    from pplebm.runs.run import Run

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def tell_series(
    run: Run, source: str, score: str, how: dict[str, Any], labels: np.ndarray | None, k: int, out: str | None
) -> None:
    """Score the points of a series, write them beside its time, and name the k most anomalous."""
    from pplebm.runs.series import mean_of_known, point_scores, windows_of
    from pplebm.scores.registry import entry_of

    if entry_of(score)[0].needs_normal:
        raise PplebmError(f"score '{score}' compares with normal data and is not one of points; choose another.")
    windows = windows_of(run, source)
    is_wide = score == "reconstruction" and len(windows.series.columns) > 1
    found = point_scores(run, windows, score, by_column=is_wide, **how)
    scores = mean_of_known(found) if is_wide else found
    time = np.arange(windows.n) if windows.series.time is None else windows.series.time
    if labels is not None and labels.shape != scores.shape:
        raise PplebmError(f"there are {len(labels)} labels and {len(scores)} time points; give one of each.")
    if out is not None:
        _write(Path(out), windows.series.time_name, time, scores)
        click.echo(f"{out}: {windows.series.time_name} and anomaly score of {len(scores)} time points")
    unit = "squared units of the model" if score == "reconstruction" else "nats per window"
    click.echo(f"anomaly score of {len(scores)} time points, in {unit}; higher is more anomalous:")
    known = np.isfinite(scores)
    for q in QUANTILES if known.any() else ():
        click.echo(f"  {100 * q:3.0f} %  {np.quantile(scores[known], q):.4g}")
    if not known.all():
        click.echo(f"  {int((~known).sum())} scores are not known: no data there, or no trusted estimate")
    for i in [i for i in np.argsort(-scores, kind="stable") if known[i]][:k]:
        most = _most_of(found[i], windows.series.columns) if is_wide else ""
        click.echo(f"  {windows.series.time_name} {time[i]}: {scores[i]:.4g}{most}")
    if labels is not None:
        _tell_detection(labels[known], scores[known], score, len(windows.x[0]))


def _most_of(errors: np.ndarray, columns: tuple[str, ...]) -> str:
    """Which column of a point is the least expected.

    >>> _most_of(np.array([1.0, np.nan, 3.0]), ("load", "rate", "heat"))
    ", 75 % of it in 'heat'"
    """
    most, total = int(np.nanargmax(errors)), float(np.nansum(errors))
    return f", {100 * errors[most] / total:.0f} % of it in '{columns[most]}'" if total > 0 else ""


def _tell_detection(labels: np.ndarray, scores: np.ndarray, name: str, window: int) -> None:
    from pplebm.scores.series_metrics import detection_of_points, sentence

    found = detection_of_points(labels, scores, longest_buffer=window)
    for line in sentence(name, found):
        click.echo(f"  {line}")


def _write(path: Path, time_name: str, time: np.ndarray, scores: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((time_name, "anomaly_score"))
        writer.writerows((t, f"{v:.9g}") for t, v in zip(time, scores, strict=True))
