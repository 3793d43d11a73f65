"""The command that draws a single picture of a run: picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pplebm.cli.group import SEED
from pplebm.cli.use import TRUST, rows_of
from pplebm.errors import PplebmError

if TYPE_CHECKING:
    from pplebm.data import Dataset
    from pplebm.runs.run import Run

KINDS = ("hierarchy", "transition", "long-run", "traverse", "between", "latents")


@click.command()
@click.argument("run", type=click.Path())
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--out", type=click.Path(), help="A .png file.  [default: KIND.png in the run folder]")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--site", help="The layer, of traverse and latents.  [default: all]")
@click.option("--n-steps", type=click.IntRange(1), help="Steps of the prior chain.  [default: as in learning, or 2500]")
@click.option("--given", type=click.Path(), help="File with covariates: a draw for every row.")
@click.option("--data", help="What the run learned from, if it cannot be found again by itself.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--dpi", default=150, show_default=True, type=click.IntRange(20, 600), help="Pixels per inch.")
@TRUST
def picture(
    run: str,
    kind: Any,
    out: str | None,
    seed: int,
    site: str | None,
    n_steps: int | None,
    given: str | None,
    data: str | None,
    data_dir: str | None,
    dpi: int,
    trust: bool,
) -> None:
    """Draw what the layers of a learned model mean.

    \b
    hierarchy   draws that share layers, and differ in those below
    transition  prior chains from their start to where learning ends them
    long-run    the same for 2500 steps, with their energy
    traverse    one latent moved at a time over its quantiles
    between     ways between two held-out data, straight and where the prior is dense
    latents     each layer under the base, the tilted prior and given data
    """
    from pplebm.runs.run import open_run

    opened = open_run(run, trust=trust)
    target = opened.path / f"{kind}.png" if out is None else Path(out)
    if target.suffix != ".png":
        raise PplebmError(f"'{target}' must end in .png.")
    from matplotlib.image import imsave

    from pplebm.report.layers import stitched
    from pplebm.report.pictures import draw

    dataset = _data(opened, data, data_dir) if kind in ("between", "latents") else None
    rows = None if given is None else rows_of(opened, given)
    drawn = stitched(draw(opened, kind, seed, dataset, site, n_steps, rows), dpi)
    target.parent.mkdir(parents=True, exist_ok=True)
    imsave(target, drawn)
    click.echo(f"{target}: {kind}, {drawn.shape[1]} x {drawn.shape[0]} pixels")


def _data(run: Run, data: str | None, data_dir: str | None) -> Dataset | None:
    """The data of the run, or a note that the picture goes without them."""
    source, folder = run.manifest.source(data, data_dir)
    try:
        if source is not None:
            return run.load(source, folder)
        reason = f"the run learned from data in memory ('{run.manifest.data.name}'); name them with --data"
    except PplebmError as error:
        if data is not None:
            raise
        reason = str(error)
    click.echo(f"pplebm: note: the picture goes without the data: {reason}", err=True)
    return None


COMMANDS = (picture,)
