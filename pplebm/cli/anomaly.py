"""The command that tells how anomalous data are under a run: scores, p-values, a threshold."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from pplebm.cli.group import SEED
from pplebm.cli.series import QUANTILES, tell_series
from pplebm.cli.use import TRUST, rows_of
from pplebm.errors import PplebmError
from pplebm.ppl.trees import n_rows, take_rows

if TYPE_CHECKING:
    from pplebm.runs.run import Run
    from pplebm.scores.scoring import Score


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", required=True, help="Name of a data set (its held-out part), or a .npy, .npz or .csv file.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--score", default="log_evidence", show_default=True, help="Name of a score; `help` lists them.")
@click.option(
    "--posterior", default="chains", show_default=True, type=click.Choice(("chains", "learned")),
    help="Latents given data by chains that accept and reject, or by the short runs or guide of learning.",
)  # fmt: skip
@click.option("--particles", type=click.IntRange(16), help="Of log p(x), per datum.  [default: as suits the method]")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("-k", "k", default=5, show_default=True, type=click.IntRange(0), help="Most anomalous data to name.")
@click.option("--normal", help="Held-out normal data, for p-values.  [default: what the run held out of its own data]")
@click.option("--normal-rows", default=500, show_default=True, type=click.IntRange(1), help="Of these, the first ones.")
@click.option(
    "--false-alarm", default=0.01, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Rate of false alarms of the threshold.",
)  # fmt: skip
@click.option("--labels", help="A .npy or .csv file, or FILE.csv:COLUMN: 1 for anomalies, 0 for normal data.")
@click.option(
    "--out", type=click.Path(), help="A .csv file of index or time, anomaly score and p-value, in their order."
)
@TRUST
def anomaly(
    run: str,
    data: str,
    data_dir: str | None,
    score: str,
    posterior: str,
    particles: int | None,
    seed: int,
    k: int,
    normal: str | None,
    normal_rows: int,
    false_alarm: float,
    labels: str | None,
    out: str | None,
    trust: bool,
) -> None:
    """Tell how anomalous data are under a learned model.

    Higher is more anomalous. Scores of held-out normal data give p-values, and a threshold of a stated rate of false
    alarms, which hold whatever the score if the normal data were not learned from.

    A run that learned from windows of a series takes a series, and tells the score of every time point; neighbours are
    not exchangeable, so there are no p-values.
    """
    from pplebm.runs.run import open_run
    from pplebm.scores.registry import SCORES

    if score == "help":
        for name, entry in SCORES.items():
            click.echo(f"{name}: {entry.sentence}")
        return
    kinds = None if labels is None else read_labels(labels)
    opened = open_run(run, trust=trust)
    if opened.manifest.settings.cut is not None:
        how = {"posterior": posterior, "seed": seed, "evidence": {"n_particles": particles}}
        return tell_series(opened, data, score, how, kinds, k, out)
    x = rows_of(opened, data, opened.manifest.source(data, data_dir)[1])
    others, why = _normal_data(opened, x, data, data_dir, normal, normal_rows)
    settings = {"posterior": posterior, "seed": seed, "evidence": {"n_particles": particles}}
    found, theirs = _scored(opened, x, others, score, settings)
    told = _told(found.value, theirs, why, false_alarm, k)
    p_values = told.pop("p_values")
    if out is not None:
        _write(Path(out), found.value, p_values)
        click.echo(f"{out}: index and anomaly score of {len(found.value)} data")
    unit = "squared units of the model" if score == "reconstruction" else "nats"
    click.echo(f"anomaly score of {len(found.value)} data, in {unit}; higher is more anomalous:")
    for line in told.pop("lines"):
        click.echo(f"  {line}")
    if kinds is not None:
        _tell_detection(kinds, found, seed)


def _scored(run: Run, x: Any, others: Any, score: str, settings: dict[str, Any]) -> tuple[Score, np.ndarray | None]:
    """Scores of the data and, if there are any, of held-out normal data."""
    from pplebm.scores.registry import entry_of

    entry = entry_of(score)[0]
    if score in ("log_evidence", "typicality"):
        settings = {name: value for name, value in settings.items() if name != "posterior"}
    if not entry.needs_normal:
        found = run.anomaly_scores(x, [score], **settings)[score]
        theirs = None if others is None else run.anomaly_scores(others, [score], **settings)[score].value
        return found, theirs
    if others is None or n_rows(others) < 2:
        raise PplebmError(f"score '{score}' compares with normal data; give --normal a file of them.")
    half = n_rows(others) // 2  # one half to compare with, the other for p-values: these are then exchangeable
    reference, rest = take_rows(others, slice(0, half)), take_rows(others, slice(half, None))
    found = run.anomaly_scores(x, [score], normal=reference, **settings)[score]
    return found, run.anomaly_scores(rest, [score], normal=reference, **settings)[score].value


def _normal_data(
    run: Run, x: Any, data: str, data_dir: str | None, normal: str | None, most: int
) -> tuple[Any, str]:  # fmt: skip
    """Held-out normal data, or None and the reason why there are none."""
    if normal is not None:
        rows = rows_of(run, normal, run.manifest.source(normal, data_dir)[1])
        return take_rows(rows, slice(0, min(most, n_rows(rows)))), ""
    source, folder = run.manifest.source(None, data_dir)
    if source is None:
        return None, "the run learned from data in memory, which it does not keep; give --normal for p-values"
    if data == run.manifest.data.name or str(source) == data or _is_same(source, data):
        return None, "the data are those of the run itself; give --normal for p-values"
    try:
        rows = run.held_out(source, folder, most)
    except PplebmError as error:
        return None, f"what the run held out cannot be read again ({error}); give --normal for p-values"
    return take_rows(rows, slice(0, min(most, n_rows(rows)))), ""


def _is_same(source: Any, data: str) -> bool:
    one, other = Path(str(source)), Path(data)
    return one.exists() and other.exists() and one.resolve() == other.resolve()


def _told(scores: np.ndarray, theirs: np.ndarray | None, why: str, false_alarm: float, k: int) -> dict[str, Any]:
    """P-values if there are normal scores, and lines of text."""
    from pplebm.scores.conformal import conformal_p_values

    known = np.isfinite(scores)
    lines = [f"{100 * q:3.0f} %  {np.quantile(scores[known], q):.4g}" for q in QUANTILES]
    p_values = None
    if theirs is None:
        lines.append(f"no p-values: {why}")
    else:
        kept = theirs[np.isfinite(theirs)]
        p_values = conformal_p_values(scores, kept)
        lines += _limit(scores, kept, false_alarm)
    if not known.all():
        lines.append(f"{int((~known).sum())} scores cannot be trusted and are left out")
    for i in [i for i in np.argsort(-scores, kind="stable") if known[i]][:k]:
        p = "" if p_values is None else f", p-value {p_values[i]:.3g}"
        lines.append(f"datum {i}: {scores[i]:.4g}{p}")
    return {"lines": lines, "p_values": p_values}


def _limit(scores: np.ndarray, theirs: np.ndarray, false_alarm: float) -> list[str]:
    """The threshold and what exceeds it, or why there is none."""
    from pplebm.scores.conformal import threshold

    try:
        limit = threshold(theirs, false_alarm)
    except PplebmError as error:
        return [f"no threshold: {error}"]
    return [
        f"threshold {limit.value:.4g}: at most {false_alarm:g} false alarms, by {limit.n} held-out normal data "
        f"({limit.low:.2g} to {limit.high:.2g} with probability {limit.level:g})",
        f"{int(limit.flags(scores).sum())} of {len(scores)} data exceed it",
    ]


def _tell_detection(labels: np.ndarray, found: Score, seed: int) -> None:
    from pplebm.scores.metrics import table

    if len(labels) != len(found.value):
        raise PplebmError(f"there are {len(labels)} labels and {len(found.value)} data; give one of each.")
    known = found.is_trusted
    told = table(labels[known], {found.name: found.value[known]}, seed=seed)
    widths = [max(len(row[i]) for row in told) for i in range(len(told[0]))]
    for row in told:
        click.echo("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))


def read_labels(source: str) -> np.ndarray:
    """Labels of a .npy file, of a .csv file with one column, or of a column of a .csv file, FILE.csv:COLUMN.

    Raises:
        PplebmError: if there is no such file or column.
    """
    from pplebm.data.files import read_file

    name, is_column, column = source.partition(".csv:")
    if not is_column:
        return np.asarray(read_file(Path(source)).x).reshape(-1)
    with open(f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or column not in rows[0]:
        there = ", ".join(map(str, rows[0])) if rows else "nothing"
        raise PplebmError(f"'{name}.csv' has no column '{column}'; it has {there}.")
    try:
        return np.array([float(row[column]) for row in rows])
    except ValueError as error:
        raise PplebmError(f"column '{column}' of '{name}.csv' holds what is no number: {error}.") from error


def _write(path: Path, scores: np.ndarray, p_values: np.ndarray | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"anomaly_score": scores} | ({} if p_values is None else {"p_value": p_values})
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("index", *columns))
        writer.writerows((i, *(f"{v:.9g}" for v in row)) for i, row in enumerate(zip(*columns.values(), strict=True)))


COMMANDS = (anomaly,)
