"""The command that tells how well a run explains data, in nats: evaluate."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import click
import numpy as np

from pplebm.cli.group import SEED
from pplebm.cli.use import TRUST, rows_of, write_report
from pplebm.errors import PplebmError
from pplebm.ppl.trees import n_rows, take_rows


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", help="Name of a data set (its held-out part), or a file.  [default: what the run held out]")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option(
    "--rows", default=200, show_default=True, type=click.IntRange(1), help="Data to evaluate, the first ones."
)
@click.option("--twin", type=click.Path(), help="Run of the untilted twin, or of another model of the same data.")
@click.option("--method", default="auto", show_default=True, help="Estimator, as pplebm.log_evidence knows it.")
@click.option("--particles", type=click.IntRange(16), help="Of every datum.  [default: as suits the method]")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--out", type=click.Path(), help="A .csv file of log p(x) and its error by datum and model.")
@TRUST
def evaluate(
    run: str,
    data: str | None,
    data_dir: str | None,
    rows: int,
    twin: str | None,
    method: str,
    particles: int | None,
    seed: int,
    out: str | None,
    trust: bool,
) -> None:
    """Estimate log p(x) of held-out data under a run, its base, and its twin.

    Nats per datum in model units, with the standard error of the estimator and that over the data; prints a table, and
    adds it to the report. What is done is kept in the run folder, and the same command goes on after an interruption.
    """
    from pplebm.report import keep_evaluation
    from pplebm.runs.evaluate import HEAD, lines
    from pplebm.runs.evaluate import evaluate as evaluated
    from pplebm.runs.run import open_run

    opened = open_run(run, trust=trust)
    source, folder = opened.manifest.source(data, data_dir)
    if source is None:
        raise PplebmError("the run learned from data in memory, which it does not keep; give --data.")
    x = rows_of(opened, source, folder) if data is not None else opened.held_out(source, folder, rows)
    x = take_rows(x, slice(0, min(rows, n_rows(x))))
    found = evaluated(opened, x, None if twin is None else open_run(twin, trust=trust), method=method,
                      n_particles=particles, seed=seed)  # fmt: skip
    told = [HEAD, *lines(found)]
    widths = [max(len(row[i]) for row in told) for i in range(len(HEAD))]
    click.echo(f"log p(x) of {n_rows(x)} data by {found[0].evidence.method}, nats per datum in model units:")
    for row in told:
        click.echo("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    keep_evaluation(opened, found)
    write_report(opened, None, data_dir)
    if out is not None:
        _write(Path(out), {row.model: row.evidence for row in found})
        click.echo(f"{out}: log p(x) of {n_rows(x)} data under {len(found)} models")


def _write(path: Path, found: dict[str, Any]) -> None:
    """log p(x) and its error by datum, a pair of columns for every model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", *(f"{model} {what}" for model in found for what in ("log p(x)", "error"))])
        columns = np.stack([a for one in found.values() for a in (one.value, one.error)], 1)
        writer.writerows([i, *(f"{v:.9g}" for v in row)] for i, row in enumerate(columns))


COMMANDS = (evaluate,)
