"""Commands that use a run: sample, diagnose, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from pplebm.cli.group import SEED
from pplebm.cli.learning import write_report
from pplebm.errors import PplebmError

if TYPE_CHECKING:
    from pplebm.runs.run import Run

TRUST = click.option("--trust", is_flag=True, help="Run the pages in the run folder, whoever wrote them.")
MAX_IMAGES = 100  # of the picture beside the draws


@click.command()
@click.argument("run", type=click.Path())
@click.option("-n", "n", default=64, show_default=True, type=click.IntRange(1), help="Number of draws.")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--base", is_flag=True, help="Draw from the base, tilts ignored.")
@click.option("--mean", is_flag=True, help="Leave out the observation noise.")
@click.option("--n-steps", type=click.IntRange(1), help="Steps of the prior chain.  [default: as in learning]")
@click.option("--given", type=click.Path(), help="File with covariates: one draw for every row, in the place of -n.")
@click.option("--out", required=True, type=click.Path(), help="An .npz file, or a .npy file.")
@TRUST
def sample(
    run: str,
    n: int,
    seed: int,
    base: bool,
    mean: bool,
    n_steps: int | None,
    given: str | None,
    out: str,
    trust: bool,
) -> None:
    """Draw data from a learned model.

    They are in the units of its data; images also go to a PNG beside the file. Several observed sites go to an .npz by
    name.
    """
    from pplebm.runs.run import open_run

    target = Path(out)
    if target.suffix not in (".npz", ".npy"):
        raise PplebmError(f"'{target}' must end in .npz or .npy.")
    opened = open_run(run, trust=trust)
    rows = None if given is None else rows_of(opened, given)
    x = opened.sample_data(n if rows is None else None, seed, base, mean, n_steps, rows)
    if isinstance(x, dict):
        if target.suffix == ".npy":
            raise PplebmError(f"the model observes {', '.join(x)}; give --out a name that ends in .npz.")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, **x)
        click.echo(f"{target}: {len(next(iter(x.values())))} draws of {', '.join(x)}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, x) if target.suffix == ".npy" else np.savez(target, x=x)
    click.echo(f"{target}: {len(x)} draws of shape {x.shape[1:]}" + ("" if target.suffix == ".npy" else ", key 'x'"))
    picture = grid(opened.scaling.to_model(x)[:MAX_IMAGES]) if opened.event_shape else None
    if picture is not None:
        from matplotlib.image import imsave

        path = target.with_suffix(".png")
        imsave(path, picture)
        click.echo(str(path) + (f": the first {MAX_IMAGES}" if len(x) > MAX_IMAGES else ""))


def grid(x: np.ndarray, zoom: int = 4) -> np.ndarray | None:
    """Images in model units (N, H, W) or (N, H, W, C) side by side, values in [0, 1]; None for what is no image.

    >>> grid(np.zeros((5, 8, 8))).shape
    (66, 100, 3)
    >>> grid(np.zeros((5, 3))) is None
    True
    """
    from pplebm.report.figures import tiled

    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)):
        return None
    zoom = max(1, min(zoom, 128 // max(x.shape[1:3])))
    return tiled(x.repeat(zoom, 1).repeat(zoom, 2), int(np.ceil(len(x) ** 0.5)), -1.0, 1.0)


def rows_of(run: Run, source: str, data_dir: str | None = None) -> Any:
    """All rows of a file, or the held-out part of a named set, in the user's units, as the run takes them."""
    from pplebm.data import Scaling, load_for, names, read_rows
    from pplebm.runs import series

    if run.manifest.settings.cut is not None:
        return series.rows_of(run, series.windows_of(run, source))
    if source in names():
        return run.held_out(source, data_dir)
    if run.manifest.model.is_own:
        return read_rows(source, run.program.signature, data_dir, run.program.levels)
    assert isinstance(run.scaling, Scaling)
    return run.scaling.to_user(load_for(run.scaling, run.event_shape, source, data_dir))


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", help="What the run learned from, if it cannot be found again by itself.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@TRUST
def report(run: str, data: str | None, data_dir: str | None, trust: bool) -> None:
    """Write report.html into a run folder."""
    from pplebm.runs.run import open_run

    write_report(open_run(run, trust=trust), data, data_dir)


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", help="What the run learned from, if it cannot be found again by itself.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(0), help="Held-out data to examine.")
@click.option("--chains", default=16, show_default=True, type=click.IntRange(2), help="Long chains per target.")
@click.option("--draws", default=400, show_default=True, type=click.IntRange(4), help="Draws of each, after warm-up.")
@click.option("--warmup", default=400, show_default=True, type=click.IntRange(0), help="Steps of warm-up.")
@click.option("--seed", default=0, show_default=True, type=SEED)
@TRUST
def diagnose(
    run: str,
    data: str | None,
    data_dir: str | None,
    rows: int,
    chains: int,
    draws: int,
    warmup: int,
    seed: int,
    trust: bool,
) -> None:
    """Set the short runs of learning beside long adjusted chains.

    Prints tables, and adds them with rank plots, energies and autocorrelations to the report.
    """
    from pplebm.report import keep_diagnosis
    from pplebm.report.diagnosis import HEAD, lines
    from pplebm.runs.run import open_run
    from pplebm.runs.short_run_bias import short_run_bias

    opened = open_run(run, trust=trust)
    source, folder = opened.manifest.source(data, data_dir)
    x = None
    if rows and source is not None:
        x = opened.held_out(source, folder, rows)
    for found in (all_found := short_run_bias(opened, x, n_chains=chains, n_draws=draws, n_warmup=warmup, seed=seed)):
        click.echo(f"{found.title}: {chains} chains of {draws} draws, short run beside it")
        told = [HEAD, *lines(found)]
        widths = [max(len(row[i]) for row in told) for i in range(len(HEAD))]
        for row in told:
            click.echo("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
        for sentence in found.diagnosis.verdict or ["the long chains agree"]:
            click.echo(f"  {sentence}")
    keep_diagnosis(opened, all_found)
    write_report(opened, data, data_dir)


COMMANDS = (sample, diagnose, report)
