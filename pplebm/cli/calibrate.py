"""The command that tells whether the posteriors of a run are right on data of its own: calibrate."""

from __future__ import annotations

import click

from pplebm.cli.group import SEED
from pplebm.cli.use import TRUST, write_report
from pplebm.errors import PplebmError

N_SHOWN = 12  # quantities: those that look worst


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", help="What the run learned from, if it cannot be found again by itself.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--replications", default=200, show_default=True, type=click.IntRange(20), help="Data to simulate.")
@click.option(
    "--by",
    "ways",
    multiple=True,
    default=("learning", "chains"),
    show_default=True,
    type=click.Choice(("learning", "chains")),
    help="Inference to calibrate: that of learning, adjusted chains; may be given twice.",
)
@click.option("--seed", default=0, show_default=True, type=SEED)
@TRUST
def calibrate(
    run: str,
    data: str | None,
    data_dir: str | None,
    replications: int,
    ways: tuple[str, ...],
    seed: int,
    trust: bool,
) -> None:
    """Tell whether the posteriors of a run are right, on data simulated from it.

    Ranks of true latents among draws of their posteriors are uniform where these are right. Prints tables, and adds
    them with pictures to the report.
    """
    from pplebm.report import keep_calibration
    from pplebm.report.calibration import sentences
    from pplebm.runs.calibrate import calibrate as calibrated
    from pplebm.runs.run import open_run

    opened = open_run(run, trust=trust)
    source, folder = opened.manifest.source(data, data_dir)
    x = None
    if opened.program.covariates or opened.program.has_global_latents:
        if source is None:
            raise PplebmError("the program simulates at rows of data, and the run does not keep its own; give --data.")
        x = opened.held_out(source, folder)
    all_found = calibrated(opened, x, ways=ways, n_replications=replications, seed=seed)
    for found in all_found:
        click.echo(f"posteriors by {found.method}: {found.n_replications} replications, {found.n_draws} draws of each")
        told = found.table()[: N_SHOWN + 1]
        widths = [max(len(row[i]) for row in told) for i in range(len(told[0]))]
        for row in told:
            click.echo("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
        for sentence in sentences(found):
            click.echo(f"  {sentence}")
    keep_calibration(opened, all_found)
    write_report(opened, data, data_dir)


COMMANDS = (calibrate,)
