"""`pplebm.fit`: from a model, data and an algorithm to a run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pplebm import folder as files
from pplebm import gallery, train
from pplebm.data import load as load_data
from pplebm.data import names as data_names
from pplebm.errors import PplebmError
from pplebm.hyper import override, split_between
from pplebm.learning import Job, learn
from pplebm.parallel import Parallel, check_batch
from pplebm.program import Program, load_backend
from pplebm.runs import Run, open_run, rebuild

COMPILE_FROM = 200  # updates; a shorter run would not earn back the seconds of compiling
ALONE = {"devices": 1, "nodes": 1, "strategy": "auto"}


def fit(
    model: str | Path | Callable[..., Any],
    data: Any = "digits",
    inference: str | Path = "short_run_mle",
    out: str | Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    hyper: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    backend: str = "pyro",
    compiled: bool | None = None,
    precision: str = "full",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    ema: float = 0.0,
    patience: int = 0,
    resume: bool = False,
    progress: bool | None = None,
) -> Run:
    """Learn a model from data and keep everything in a run folder.

    Args:
        model: name of a page, path of a file, or any Pyro callable of a batch.
        data: name of a data set, path of a .npy, .npz or .csv file, or an array (N, *event).
        inference: name or path of an algorithm page.
        out: run folder; by default runs/<model>-<inference>-seed<seed>.
        seed: of data split, initial weights, batches and noise.
        steps: number of updates; by default the algorithm page's own.
        hyper: changes to the hyperparameters of either page; "model.sigma" names the page where both have a field.
        data_dir: where named data sets lie.
        backend: "pyro" or "numpyro"; for a callable or a file of your own, the language it is written in.
        compiled: on the Pyro side, compile the steps of the chains, which takes seconds and pays for itself in a long
            run; by default runs of 200 updates and more are compiled. NumPyro compiles in any case.
        precision: "full" or, on the Pyro side, "bf16"; see `Program.with_chains`.
        devices: of each machine, that share every batch: GPUs where there are any, otherwise parts of the CPU. On the
            Pyro side a process each, started by running the script again (Lightning Fabric); the others end here.
        nodes: machines, each of which runs this command; see docs/clusters.md.
        strategy: of Lightning Fabric: "ddp", or "ddp_spawn", which also works without a script.
        ema: decay per update of a running average of the parameters, which the run then uses: 0.999 averages over
            about a thousand updates. 0: the last parameters.
        patience: stop when the held-out reconstruction error has not improved for so many of its evaluations, one per
            hundred updates. 0: never.
        resume: go on from the last checkpoint in `out`; equals an uninterrupted run bit for bit.
        progress: show a progress bar; by default only in a terminal.

    Returns:
        The run. A callable's own modules hold the learned weights afterwards.

    Raises:
        PplebmError: for bad input of any kind, and for an existing run unless `resume`.
        KeyboardInterrupt: on Ctrl-C, after saving.

    Example:
        >>> import tempfile, pplebm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("latent_ebm", out=f"{folder}/run", steps=2, hyper={"n_steps_prior": 2})
        ...     run.sample_data(3).shape
        (3, 8, 8)
    """
    folder = Path(out) if out is not None else _default_folder(model, inference, seed)
    if steps is not None and steps < 1:
        raise PplebmError(f"steps must be positive, got {steps}.")
    if not 0 <= ema < 1 or patience < 0:
        raise PplebmError(f"ema must lie in [0, 1) and patience must not be negative, got {ema} and {patience}.")
    course = {"ema": float(ema), "patience": int(patience)}
    wish = Wish(
        model, data, inference, seed, steps, dict(hyper or {}), data_dir, backend, compiled, precision, course, resume
    )
    if resume:
        manifest = files.read_manifest(folder)
        backend, together = manifest["backend"], manifest.get("parallel", ALONE)
    else:
        together = {"devices": devices, "nodes": nodes, "strategy": strategy}
    group = load_backend(backend).parallel(**together)
    group.launch(_in_process, folder, wish, together, progress)
    if group.rank:
        raise SystemExit(0)
    return open_run(folder, model if callable(model) else None)


class Wish(NamedTuple):
    """What the user asked for."""

    model: Any
    data: Any
    inference: str | Path
    seed: int
    steps: int | None
    hyper: dict[str, Any]
    data_dir: str | Path | None
    backend: str
    compiled: bool | None
    precision: str
    course: dict[str, Any]  # ema and patience
    resume: bool


def _in_process(group: Parallel, folder: Path, wish: Wish, together: dict[str, Any], progress: bool | None) -> None:
    """The whole run, in each of the processes; the first one alone writes into the folder."""
    with tempfile.TemporaryDirectory() as elsewhere:
        own = folder if group.rank == 0 else Path(elsewhere) / "run"
        job = _old_job(folder, wish, group) if wish.resume else _new_job(own, wish, together, group)
        check_batch(job.hyper.batch_size, group.size)
        if wish.steps is not None:
            job.manifest["inference"]["hyper"]["updates"] = wish.steps
            job = job._replace(hyper=job.hyper._replace(updates=wish.steps))
        job = job._replace(program=job.program.with_chains(**job.manifest["chains"]))
        start = _start(job, wish.resume)
        own.mkdir(parents=True, exist_ok=True)
        files.write_manifest(own, job.manifest)
        learn(job._replace(folder=own), start, progress)


def _default_folder(model: Any, inference: Any, seed: int) -> Path:
    name = getattr(model, "__name__", None) or Path(str(model)).stem
    return Path("runs") / f"{name}-{Path(str(inference)).stem}-seed{seed}"


def _source(data: Any, data_dir: Any) -> dict[str, str | None]:
    """Where the data can be found again: the path of a file, the folder of a named set; None for arrays."""
    is_path = isinstance(data, (str, Path)) and data not in data_names()
    return {
        "path": str(Path(data).expanduser().absolute()) if is_path else None,
        "data_dir": None if data_dir is None else str(Path(data_dir).expanduser().absolute()),
    }


def _new_job(folder: Path, wish: Wish, together: dict[str, Any], group: Parallel) -> Job:
    if (folder / files.MANIFEST).exists():
        raise PplebmError(
            f"'{folder}' holds a run already; choose another folder (--out, out=...), or go on with it (--resume, "
            f"resume=True)."
        )
    model, inference, seed, changes, backend = wish.model, wish.inference, wish.seed, wish.hyper, wish.backend
    data = load_data(wish.data, wish.data_dir, seed=seed)
    page = gallery.load(inference, seed)
    if not hasattr(page, "step"):
        raise PplebmError(f"'{inference}' is a model page, not an algorithm; see `pplebm list`.")
    model_page = None if callable(model) else gallery.load(model, seed)
    if model_page is not None and not hasattr(model_page, "model"):
        raise PplebmError(f"'{model}' is an algorithm page, not a model; see `pplebm list`.")
    defaults = model_page.Hyper() if model_page and gallery.is_gallery_model(model_page.model) else None
    shares = split_between(changes, {"model": defaults, "inference": page.Hyper()})
    hyper = override(page.Hyper(), shares["inference"], f"algorithm '{gallery.page_name(page)}'")
    shown = {} if defaults is None else override(defaults, shares["model"], f"model '{model}'")._asdict()
    bound = model if model_page is None else gallery.bind(
        model_page, backend, shape=data.event_shape, seed=seed, **shares["model"]
    )  # fmt: skip
    if hyper.batch_size > len(data.train):
        raise PplebmError(
            f"batch_size {hyper.batch_size} exceeds the {len(data.train)} training data; "
            f"use --set batch_size={max(1, len(data.train) // 2)}."
        )
    program = Program(bound, data=data.train[:5], seed=seed, backend=backend)
    updates = hyper.updates if wish.steps is None else wish.steps
    compiled = updates >= COMPILE_FROM if wish.compiled is None else wish.compiled
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "example.npy", data.train[:5])
    manifest = {
        "pplebm_run": 1,
        "versions": files.versions(),
        "seed": seed,
        "backend": backend,
        "model": _page_entry(folder, "model", model_page, getattr(model, "__name__", "model"), shown),
        "inference": _page_entry(folder, "inference", page, "", hyper._asdict()),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "event_shape": list(data.event_shape),
            "n_train": len(data.train),
            "n_held_out": len(data.held_out),
            "scaling": data.scaling.to_json(),
            "notes": list(data.notes),
            "source": _source(wish.data, wish.data_dir),
        },
        "chains": {"compiled": compiled, "precision": wish.precision},
        "parallel": together,
        **wish.course,
        "rollbacks": [],
    }
    return Job(folder, manifest, program, page, hyper, data, group)


def _page_entry(folder: Path, kind: str, page: ModuleType | None, name: str, hyper: dict[str, Any]) -> dict[str, Any]:
    if page is None:
        return {"name": name, "page": None, "home": None, "hyper": hyper, "paper": "", "deviations": []}
    assert page.__file__ is not None
    return {
        "name": gallery.page_name(page),
        "page": files.keep_page(folder, kind, gallery.source(page)),
        "home": str(Path(page.__file__).resolve().parent),
        "hyper": hyper,
        "paper": getattr(page, "PAPER", ""),
        "deviations": list(getattr(page, "DEVIATIONS", ())),
    }


def _old_job(folder: Path, wish: Wish, group: Parallel) -> Job:
    manifest = files.read_manifest(folder)
    program, page, hyper = rebuild(folder, manifest, wish.model if callable(wish.model) else None)
    dataset = load_data(wish.data, wish.data_dir, seed=manifest["seed"])
    if dataset.fingerprint != manifest["data"]["fingerprint"]:
        raise PplebmError(
            f"the run in '{folder}' learned from '{manifest['data']['name']}', and the data given now differ; "
            f"resume with the same data."
        )
    return Job(folder, manifest, program, page, hyper, dataset, group)


def _start(job: Job, resume: bool) -> train.Progress:
    x = job.program.ppl.asarray(job.data.train[: job.hyper.batch_size])
    begin = train.begin(
        job.page, job.program, x, job.hyper, job.manifest["seed"], len(job.data.train), job.manifest["ema"] > 0
    )
    if not resume or not (job.folder / files.CHECKPOINT).exists():
        return begin
    progress = files.read_checkpoint(job.folder, job.program.ppl, begin)
    if job.group.rank == 0:
        files.cut_metrics(job.folder, progress.update)
    job.manifest["rollbacks"] = [r for r in job.manifest["rollbacks"] if r["update"] <= progress.update]
    return progress
