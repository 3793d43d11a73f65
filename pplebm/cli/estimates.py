"""The command that tells standard errors of what a run learned: estimates."""

from __future__ import annotations

import csv
from pathlib import Path

import click

from pplebm.cli.group import SEED
from pplebm.cli.use import TRUST, write_report
from pplebm.errors import PplebmError


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", help="What the run learned from, if it cannot be found again by itself.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--name", "names", multiple=True, help="A parameter that is estimated, the others held; again for more.")
@click.option("--level", default=0.95, show_default=True, type=float, help="Of the intervals.")
@click.option("--chains", default=16, show_default=True, type=click.IntRange(4), help="Chains of every datum.")
@click.option("--draws", default=100, show_default=True, type=click.IntRange(2), help="Draws of each, after warm-up.")
@click.option("--warmup", default=500, show_default=True, type=click.IntRange(0), help="Steps of warm-up.")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--out", type=click.Path(), help="A .csv file of the table.")
@TRUST
def estimates(
    run: str,
    data: str | None,
    data_dir: str | None,
    names: tuple[str, ...],
    level: float,
    chains: int,
    draws: int,
    warmup: int,
    seed: int,
    out: str | None,
    trust: bool,
) -> None:
    """Tell standard errors of learned parameters, and whether these are at a maximum of the likelihood.

    Adjusted chains at every datum that the run learned from give the observed information, for models of up to 300
    numbers, or some parameters of larger ones by --name. The estimates are those of data in model units. The table
    becomes a section of the report.
    """
    from pplebm.report import keep_estimates
    from pplebm.runs.run import open_run

    opened = open_run(run, trust=trust)
    source, folder = opened.manifest.source(data, data_dir)
    if source is None:
        raise PplebmError("the run learned from data in memory, which it does not keep; give --data.")
    x = opened.to_user(opened.load(source, folder).train)
    found = opened.estimates(
        x, names=names or None, level=level, n_chains=chains, n_draws=draws, n_warmup=warmup, seed=seed
    )
    click.echo(found.table())
    keep_estimates(opened, found)
    click.echo(f"report: {write_report(opened, data, data_dir)}")
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, "w", newline="") as file:
            csv.writer(file).writerows(found.rows())
        click.echo(f"{out}: {len(found.labels)} estimates")


COMMANDS = (estimates,)
