"""Commands that learn: fit, demo."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from pplebm.cli.group import SEED, settings
from pplebm.errors import PplebmError
from pplebm.gallery.pages import DEFAULT
from pplebm.runs.signals import Stopped, stopping

if TYPE_CHECKING:
    from pplebm.runs.run import Run

SHOWN_METRICS = ("log_likelihood", "tilt_gap", "tilt_positive", "tilt_negative", "held_out_error", "seconds")
NEW_RUN_ONLY = (  # options that a run has settled
    "inference", "seed", "seeds", "pairs", "backend", "compiled", "precision", "devices", "nodes", "strategy", "ema",
    "patience", "start", "tensorboard", "scaling", "held_out_fraction", "window", "stride", "time", "columns",
)  # fmt: skip
MAX_SEEDS = 1000
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OPTION_NAMES = {  # where option and field have other names
    "pairs": "--set", "compiled": "--compile", "held_out_fraction": "--held-out",
}  # fmt: skip


@click.command()
@click.argument("model", metavar="[PAGE_OR_FILE]", required=False)
@click.option("--inference", default=DEFAULT, show_default=True, help="Algorithm page, by name or path.")
@click.option("--data", help="Name of a data set, or a .npy, .npz or .csv file.  [default: digits]")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--scaling", help="none, unit, standard or auto.  [default: as the page says; none for a model of yours]")
@click.option(
    "--held-out",
    "held_out_fraction",
    default=0.2,
    show_default=True,
    help="Share of rows, of a series the end.",
)
@click.option("--window", type=int, help="Points of a window, for --data that are one series in the order of time.")
@click.option("--stride", type=int, help="Points between the starts of windows.  [default: a quarter of a window]")
@click.option("--time", help="Column of a series that tells the time.  [default: of that name, else the first of text]")
@click.option("--columns", metavar="NAME,NAME", help="Those of a series to learn.  [default: all of numbers]")
@click.option("--backend", default="pyro", show_default=True, help="pyro or numpyro.")
@click.option("--compile/--no-compile", "compiled", default=None, help="Compile the chains.  [default: in long runs]")
@click.option("--precision", default="full", show_default=True, help="full or bf16, of the networks inside a step.")
@click.option("--devices", default=1, show_default=True, help="That share every batch, on each machine.")
@click.option("--nodes", default=1, show_default=True, help="Machines, each of which runs this command.")
@click.option("--strategy", default="auto", show_default=True, help="Of Lightning Fabric: ddp or ddp_spawn.")
@click.option("--out", type=click.Path(), help="Run folder.  [default: runs/MODEL-INFERENCE-seedN, numbered]")
@click.option("--updates", "--steps", type=click.IntRange(1), help="How many.  [default: the algorithm's own number]")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--seeds", metavar="FIRST..LAST", help="Fit once for each seed, and tell means and spreads.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Seeds fitted at once.")
@click.option("--ema", default=0.0, show_default=True, help="Decay of a running average of the parameters.")
@click.option("--patience", default=0, show_default=True, help="Evaluations without progress before an early stop.")
@click.option("--start", type=click.Path(), help="Run whose parameters this one begins with, for instance its twin.")
@click.option("--tensorboard", is_flag=True, help="Write the metrics for TensorBoard as well.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Change a hyperparameter; repeatable.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, or the latest one of PAGE_OR_FILE.")
@click.option("--trust", is_flag=True, help="With --resume, run the pages in the folder, whoever wrote them.")
@click.option("--no-report", is_flag=True, help="Do not write report.html.")
@click.pass_context
def fit(context: click.Context, model: str | None, resume: bool, no_report: bool, **options: Any) -> None:
    """Learn a model from data.

    Everything is kept in a run folder. Ctrl-C, SIGTERM and SIGUSR1 save and say how to go on.
    """
    changes = settings(options["pairs"])
    if resume:
        given = [n for n in NEW_RUN_ONLY if context.get_parameter_source(n) == click.core.ParameterSource.COMMANDLINE]
        run = _resume(model, given, options)
    elif model is None:
        raise PplebmError("fit needs a page or a file, for instance `pplebm fit joint_ebm`; see `pplebm list`.")
    elif options["seeds"] is not None:
        seeds, out = _seeds(options["seeds"]), options["out"]
        wanted = [options | {"seed": n, "out": out and f"{out}-seed{n}"} for n in seeds]
        runs = _at_once(model, changes, wanted, options["jobs"])
        for run in runs:
            finish(run, not no_report)
        return _compare(runs)
    else:
        run = _new(model, changes, options)
    finish(run, not no_report)


def _new(model: str, changes: dict[str, Any], options: dict[str, Any]) -> Run:
    from pplebm.runs.fit import fit as learn

    names = (
        "data_dir", "backend", "compiled", "precision", "devices", "nodes", "strategy", "ema", "patience", "start",
        "tensorboard", "scaling", "held_out_fraction", "window", "stride", "time",
    )  # fmt: skip
    if options["window"] is not None and options["data"] is None:
        raise PplebmError("--window cuts a series into windows; give it as --data, a .csv or .npy file.")
    columns = None if options["columns"] is None else [name.strip() for name in options["columns"].split(",")]
    data = "digits" if options["data"] is None else options["data"]
    return learn(
        model, data, options["inference"], options["out"], options["seed"], options["updates"],
        changes, columns=columns, **{name: options[name] for name in names},
    )  # fmt: skip


def _at_once(model: str, changes: dict[str, Any], wanted: list[dict[str, Any]], jobs: int) -> list[Run]:
    """A run for every one, `jobs` of them at a time, each in a process of its own that shares the cores evenly."""
    if jobs == 1:
        return [_new(model, changes, one) for one in wanted]
    from pplebm.runs.run import open_run

    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    before = {name: os.environ.get(name) for name in THREAD_COUNTS}
    os.environ |= dict.fromkeys(THREAD_COUNTS, threads)  # read when a process begins
    try:
        context = get_context("spawn")
        with stopping(), ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
            waiting = [pool.submit(_folder_of_new, model, changes, one) for one in wanted]
            try:
                for done in tqdm(as_completed(waiting), total=len(waiting), unit="seed", disable=None):
                    done.result()
            except BaseException as error:
                _pass_on(error)
                pool.shutdown(cancel_futures=True)  # those that have not begun
                raise
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    return [open_run(done.result(), trust=True) for done in waiting]  # run just now


def _pass_on(error: BaseException) -> None:
    """Send the processes of the runs the signal that ends this one; Ctrl-C in a terminal has reached them already."""
    if isinstance(error, Stopped) and error.number != signal.SIGINT:
        for process in active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, error.number)


def _folder_of_new(model: str, changes: dict[str, Any], one: dict[str, Any]) -> Path:
    return _new(model, changes, one).path


def _seeds(text: str) -> list[int]:
    """Seeds of "0..4", both ends included, or of "0,3,5".

    >>> _seeds("0..2"), _seeds("4,1")
    ([0, 1, 2], [4, 1])
    """
    first, dots, last = text.partition("..")
    try:
        found: Sequence[int] = range(int(first), int(last) + 1) if dots else [int(n) for n in text.split(",")]
        ends = [found[0], found[-1]] if dots else found
    except (ValueError, IndexError):
        ends = [-1]
    if min(ends) < 0 or max(ends) >= 2**32 or (not dots and len(set(found)) < len(found)):
        raise PplebmError(f"--seeds {text[:40]} are no seeds; write --seeds 0..4, or --seeds 0,3,5.")
    if len(found) > MAX_SEEDS:
        raise PplebmError(f"--seeds {text[:40]} are {len(found)} runs; at most {MAX_SEEDS} go in one command.")
    return list(found)


def _compare(runs: list[Run]) -> None:
    """Last figures over seeds, mean ± standard deviation."""
    last = [{key: value for row in run.metrics for key, value in row.items()} for run in runs]
    click.echo(f"{len(runs)} seeds, mean ± standard deviation:")
    for name in [n for n in SHOWN_METRICS if all(n in row for row in last)]:
        values = [row[name] for row in last]
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5
        click.echo(f"  {name:16} {mean:.4g} ± {spread:.2g}")
    click.echo(f"  {'rolled back':16} {sum(bool(run.manifest.rollbacks) for run in runs)} of {len(runs)} runs")


def _resume(model: str | None, given: list[str], options: dict[str, Any]) -> Run:
    from pplebm.runs.fit import fit as learn
    from pplebm.runs.folders import folder_for
    from pplebm.runs.manifest import read_manifest

    out = options["out"]
    if out is None and model is None:
        raise PplebmError("--resume needs the run folder, --out RUN, or the page or file of the run.")
    if given := [name for name in given if out is not None or name not in ("inference", "seed")]:
        names = ", ".join(OPTION_NAMES.get(n, f"--{n}") for n in given)
        raise PplebmError(
            f"a run keeps its settings, so {names} cannot be given with --resume; start a new run instead."
        )
    folder = folder_for(out, model, options["inference"], options["seed"], resume=True)
    manifest = read_manifest(folder)
    name = manifest.model.name
    if model is not None and Path(model).stem != name:
        raise PplebmError(f"the run in '{folder}' is one of '{name}', not of '{model}'; leave the name out.")
    data, data_dir = manifest.source(options["data"], options["data_dir"])
    if data is None:
        raise PplebmError(f"the run learned from an array ('{manifest.data.name}'); name the same data with --data.")
    updates, trust = options["updates"], options["trust"]
    return learn(name, data, out=folder, updates=updates, data_dir=data_dir, resume=True, trust=trust)


def finish(run: Run, with_report: bool, data: str | None = None, data_dir: str | None = None) -> Path | None:
    """Say where the run is and how it ended, and write the report."""
    for note in run.manifest.data.notes:
        click.echo(f"pplebm: note: {note}", err=True)
    rows = run.metrics
    click.echo(f"{run.manifest.model.name} by {run.manifest.inference.name}: {run.manifest.updates} updates")
    last = {key: value for row in rows for key, value in row.items()}  # held-out figures stand in some rows only
    for name in [n for n in SHOWN_METRICS if n in last] or [n for n in last if n != "update"]:
        click.echo(f"  {name:16} {last[name]:.4g}")
    click.echo(f"  {'first update':16} {run.manifest.first_update_seconds:.1f} s, compilation included")
    if rollbacks := run.manifest.rollbacks:
        click.echo(f"  {'rolled back':16} {len(rollbacks)} times, last at update {rollbacks[-1].update}")
    click.echo(f"run: {run.path}")
    return write_report(run, data, data_dir) if with_report else None


def write_report(run: Run, data: str | None = None, data_dir: str | None = None) -> Path:
    """Write the report with the data of the run, if they can be found again."""
    from pplebm import report

    source, folder = run.manifest.source(data, data_dir)
    try:
        dataset = None if source is None else run.load(source, folder)
    except PplebmError as error:
        if data is not None:
            raise
        click.echo(f"pplebm: note: the report goes without the data: {error}", err=True)
        dataset = None
    path = report.write(run, dataset)
    click.echo(f"report: {path}")
    return path


@click.command()
@click.option("--updates", "--steps", default=1200, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--out", default="runs/demo", show_default=True, type=click.Path(), help="Run folder.")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Change a hyperparameter; repeatable.")
@click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")
def demo(updates: int, out: str, seed: int, pairs: tuple[str, ...], open_it: bool) -> None:
    """Learn handwritten digits and write a report.

    The model is joint_ebm, the algorithm variational_joint. It takes about a minute; learning to the end, in the 3000
    updates that the algorithm takes by default, two.
    """
    from pplebm.runs.fit import fit as learn
    from pplebm.runs.folders import checked, unused

    folder = unused(checked(Path(out)))
    click.echo(f"learning joint_ebm of 8x8 digits by variational_joint, kept in {folder}; Ctrl-C saves and stops")
    path = finish(learn("joint_ebm", "digits", "variational_joint", folder, seed, updates, settings(pairs)), True)
    click.echo(f"more draws: pplebm sample {folder} -n 64 --out {folder / 'samples.npz'}")
    if open_it and path is not None and _has_screen():
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def _has_screen() -> bool:
    display = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return sys.stdout.isatty() and display


COMMANDS = (fit, demo)
