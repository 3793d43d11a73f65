"""`pplebm.fit`: from a model, data and an algorithm to a run folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pplebm import folder as files
from pplebm import gallery, train
from pplebm.data import Dataset
from pplebm.data import load as load_data
from pplebm.data import names as data_names
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.hyper import override, split_between
from pplebm.phases import Phases
from pplebm.program import Program
from pplebm.runs import Run, open_run, rebuild

LOG_EVERY, EVALUATE_EVERY, CHECKPOINT_EVERY = 10, 100, 100  # updates
EVALUATE_ON = 256  # held-out data per evaluation
COMPILE_FROM = 200  # updates; a shorter run would not earn back the seconds of compiling


class Job(NamedTuple):
    """All that one run needs."""

    folder: Path
    manifest: dict[str, Any]
    program: Program
    page: ModuleType
    hyper: Any
    data: Dataset


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
    if resume:
        job = _old_job(folder, model, data, data_dir)
    else:
        job = _new_job(folder, model, load_data(data, data_dir, seed=seed), inference, seed, dict(hyper or {}), backend)
        job.manifest["data"]["source"] = _source(data, data_dir)
        updates = job.hyper.updates if steps is None else steps
        compiled = updates >= COMPILE_FROM if compiled is None else compiled
        job.manifest["chains"] = {"compiled": compiled, "precision": precision}
    if steps is not None:
        if steps < 1:
            raise PplebmError(f"steps must be positive, got {steps}.")
        job.manifest["inference"]["hyper"]["updates"] = steps
        job = job._replace(hyper=job.hyper._replace(updates=steps))
    job = job._replace(program=job.program.with_chains(**job.manifest["chains"]))
    start = _start(job, resume)
    files.write_manifest(folder, job.manifest)
    _learn(job, start, progress)
    return open_run(folder, model if callable(model) else None)


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


def _new_job(
    folder: Path, model: Any, data: Dataset, inference: str | Path, seed: int, changes: dict[str, Any], backend: str
) -> Job:
    if (folder / files.MANIFEST).exists():
        raise PplebmError(
            f"'{folder}' holds a run already; choose another folder (--out, out=...), or go on with it (--resume, "
            f"resume=True)."
        )
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
        },
        "rollbacks": [],
    }
    return Job(folder, manifest, program, page, hyper, data)


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


def _old_job(folder: Path, model: Any, data: Any, data_dir: Any) -> Job:
    manifest = files.read_manifest(folder)
    program, page, hyper = rebuild(folder, manifest, model if callable(model) else None)
    dataset = load_data(data, data_dir, seed=manifest["seed"])
    if dataset.fingerprint != manifest["data"]["fingerprint"]:
        raise PplebmError(
            f"the run in '{folder}' learned from '{manifest['data']['name']}', and the data given now differ; "
            f"resume with the same data."
        )
    return Job(folder, manifest, program, page, hyper, dataset)


def _start(job: Job, resume: bool) -> train.Progress:
    x = job.program.ppl.asarray(job.data.train[: job.hyper.batch_size])
    begin = train.begin(job.page, job.program, x, job.hyper, job.manifest["seed"])
    if not resume or not (job.folder / files.CHECKPOINT).exists():
        return begin
    progress = files.read_checkpoint(job.folder, job.program.ppl, begin)
    files.cut_metrics(job.folder, progress.update)
    job.manifest["rollbacks"] = [r for r in job.manifest["rollbacks"] if r["update"] <= progress.update]
    return progress


def _learn(job: Job, progress: train.Progress, show: bool | None) -> None:
    """Run the loop, log, evaluate and save; on Ctrl-C save and say how to go on."""
    rows: list[dict[str, Any]] = []
    total, first = job.hyper.updates, True
    phases = Phases(job.program.with_chains(compiled=False), job.page, job.hyper)  # seldom run, and of another shape
    began, before = time.perf_counter(), _seconds_so_far(job.folder)
    bar = tqdm(total=total, initial=progress.update, unit="update", disable=None if show is None else not show)
    loop = train.updates(job.page, job.program, job.data.train, job.hyper, job.manifest["seed"], progress)
    try:
        while progress.update < total:
            bar.set_description("compiling" if first else None)
            with job.program.ppl.threads_for(job.program.work(job.hyper.batch_size)):
                progress, event = next(loop)
            bar.update(1)
            if first:
                job.manifest["first_update_seconds"], first = round(time.perf_counter() - began, 2), False
            if event.rolled_back_to is not None:
                note = {"update": progress.update, "to": event.rolled_back_to, "metrics": {}}
                note["metrics"] = {k: str(v) for k, v in event.metrics.items()}
                job.manifest["rollbacks"].append(note)
                sentence = f"update {progress.update} was not finite; went back to update {event.rolled_back_to}."
                warnings.warn(sentence, PplebmWarning, stacklevel=3)
                continue
            last = progress.update == total
            if progress.update % LOG_EVERY == 0 or last:
                seconds = round(before + time.perf_counter() - began, 2)
                row = {"update": progress.update, "seconds": seconds, **event.metrics}
                if progress.update % EVALUATE_EVERY == 0 or last:
                    row |= _held_out_error(job, phases, progress)
                rows.append(row)
                if "energy_gap" in event.metrics:
                    bar.set_postfix(gap=f"{event.metrics['energy_gap']:.2f}", refresh=False)
            if progress.update % CHECKPOINT_EVERY == 0 or last:
                rows = _save(job, progress, rows)
    except KeyboardInterrupt:
        _save(job, progress, rows)
        bar.close()
        print(
            f"\nstopped at update {progress.update} and saved; go on with: --resume --out {job.folder} "
            f"(in Python: resume=True)."
        )
        raise
    finally:
        bar.close()


def _save(job: Job, progress: train.Progress, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checkpoint first, then metrics: after a kill in between, rows are missing, never ahead of the state."""
    files.write_checkpoint(job.folder, job.program.ppl, progress)
    files.append_metrics(job.folder, rows)
    files.write_manifest(job.folder, job.manifest)
    return []


def _seconds_so_far(folder: Path) -> float:
    rows = files.read_metrics(folder)
    return rows[-1]["seconds"] if rows else 0.0


def _held_out_error(job: Job, phases: Phases, progress: train.Progress) -> dict[str, float]:
    """Mean squared error of posterior-draw reconstructions of held-out data, in model units, where there is one."""
    ppl, params = job.program.ppl, progress.state.params
    x = ppl.asarray(job.data.held_out[:EVALUATE_ON])
    z = phases.posterior(ppl.key(progress.update), params, x)
    try:
        observed = list(job.program.observe(params, z).values())
    except PplebmError:  # the observed distribution has no mean
        return {}
    if len(observed) != 1 or tuple(observed[0].shape) != tuple(x.shape):
        return {}  # several observed sites, or none of the data's shape
    return {"held_out_error": float(((observed[0] - x) ** 2).mean())}
