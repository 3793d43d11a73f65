"""From what a user asked for to a job: pages bound, data loaded, parameters where they start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pplebm.data import SCALINGS, Dataset, load_as_given, rescaled, scaling_for
from pplebm.data import load as load_data
from pplebm.data import names as data_names
from pplebm.data.columns import signature_of
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import override, split_between
from pplebm.guides.guide import PREFIX
from pplebm.learning import loop as train
from pplebm.ppl.parallel import Parallel
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.runs import files
from pplebm.runs.learn import Job
from pplebm.runs.run import data_of, rebuild, with_guide

FEW = 5  # rows of each part of the data
COMPILE_FROM = 200  # updates; a shorter run would not earn back the seconds of compiling


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
    course: dict[str, Any]  # ema, patience, tensorboard
    guide: Callable[..., Any] | None
    start: str | Path | None
    resume: bool
    scaling: str | None


def _source(data: Any, data_dir: Any) -> dict[str, str | None]:
    """Where the data can be found again: the path of a file, the folder of a named set; None for arrays."""
    is_path = isinstance(data, (str, Path)) and str(data) not in data_names()
    return {
        "path": str(Path(data).expanduser().absolute()) if is_path else None,
        "data_dir": None if data_dir is None else str(Path(data_dir).expanduser().absolute()),
    }


def new_job(folder: Path, wish: Wish, together: dict[str, Any], group: Parallel) -> Job:
    """A job that begins, its run folder with it.

    Raises:
        PplebmError: for bad input of any kind, or a folder that holds a run.
    """
    if (folder / files.MANIFEST).exists():
        raise PplebmError(
            f"'{folder}' holds a run already; choose another folder (--out, out=...), or go on with it (--resume, "
            f"resume=True)."
        )
    model, seed, backend = wish.model, wish.seed, wish.backend
    model_page, page = _pages(wish)
    defaults = model_page.Hyper() if model_page and gallery.is_gallery_model(model_page.model) else None
    shares = split_between(wish.hyper, {"model": defaults, "inference": page.Hyper()})
    hyper = override(page.Hyper(), shares["inference"], f"algorithm '{gallery.page_name(page)}'")
    shown = {} if defaults is None else override(defaults, shares["model"], f"model '{model}'")._asdict()
    data, kind, bound, guide = (
        dataset_of(wish, model_page),
        kind_of_scaling(wish.scaling, model_page),
        model,
        wish.guide,
    )
    if model_page is not None:
        shape = data.shapes if gallery.takes_columns(model_page) else data.event_shape
        bound = gallery.bind(model_page, backend, shape=shape, seed=seed, **shares["model"])
        guide = guide or gallery.bind_guide(model_page, backend, shape, seed, shares["model"])
    program, data = program_on(bound, data, kind, is_own(model_page), seed, backend)
    program = with_guide(program, guide)
    hyper, note = one_batch(hyper, data.n_train)
    if note:
        data = data._replace(notes=(*data.notes, note))
        if group.rank == 0:
            warnings.warn(note, PplebmWarning, stacklevel=2)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_example(folder, data_sample(data.train))
    updates = hyper.updates if wish.steps is None else wish.steps
    compiled = updates >= COMPILE_FROM if wish.compiled is None else wish.compiled
    manifest = {
        "pplebm_run": 1,
        "versions": files.versions(),
        "seed": seed,
        "backend": backend,
        "model": _page_entry(folder, "model", model_page, getattr(model, "__name__", "model"), shown)
        | {"scaling": getattr(model_page, "SCALING", None), "is_own": is_own(model_page)},
        "inference": _page_entry(folder, "inference", page, "", hyper._asdict()),
        "data": _data_entry(data, wish),
        "chains": {"compiled": compiled, "precision": wish.precision},
        "parallel": together,
        **wish.course,
        "has_own_guide": wish.guide is not None,
        "start": None if wish.start is None else str(Path(wish.start).expanduser().absolute()),
        "rollbacks": [],
    }
    return Job(folder, manifest, program, page, hyper, data, group)


def kind_of_scaling(wanted: str | None, page: ModuleType | None) -> str:
    """The scaling that was asked for, else what the page expects; none for a model of the user's own.

    Raises:
        PplebmError: for one that is not known.
    """
    kind = wanted or getattr(page, "SCALING", "none" if is_own(page) else "auto")
    if kind not in SCALINGS:
        raise PplebmError(f"scaling '{kind}' is not known; choose one of {', '.join(SCALINGS)}.")
    return str(kind)


def is_own(page: ModuleType | None) -> bool:
    """Whether a model sees its data as given: a callable (None), a plain file, or a page that names its data."""
    return page is None or not gallery.is_gallery_model(page.model) or gallery.takes_columns(page)


def dataset_of(wish: Any, page: ModuleType | None) -> Dataset:
    """The data of a wish with model, data, data_dir, seed and scaling; those of the user's own model unscaled yet."""
    kind = kind_of_scaling(wish.scaling, page)
    if not is_own(page):
        return load_data(wish.data, wish.data_dir, seed=wish.seed, scaling=kind)
    signature = signature_of(wish.model) if page is None else gallery.data_arguments(page)
    return load_as_given(wish.data, signature, wish.data_dir, seed=wish.seed)


def program_on(bound: Any, data: Dataset, kind: str, own: bool, seed: int, backend: str) -> tuple[Program, Dataset]:
    """The program of a model on its data, and the data in model units, checked against the program."""
    make = lambda data: Program(bound, data=data_sample(data.train), seed=seed, backend=backend)
    program = make(data)
    if own and kind != "none":
        kind = "unit" if kind == "auto" and len(data.event_shape) > 1 else "standard" if kind == "auto" else kind
        supports = {site.name: site.support for site in program.observed}
        whole = {path: supports[site] for site, path in program.reads.whole.items()}
        data = rescaled(data, scaling_for(kind, data, whole))
        program = make(data)
    program.levels = dict(data.levels)
    for part in (data.train, data.held_out):
        program.check_data(program.data(part))
    return program, data


def data_sample(data: Any) -> Any:
    """Some rows from the beginning, the middle and the end, on which a program is traced."""
    n = n_rows(data)
    rows = np.unique(np.r_[0 : min(n, FEW), n // 2 : min(n, n // 2 + FEW), max(0, n - FEW) : n])
    return take_rows(data, rows)


def one_batch(hyper: Any, n_train: int) -> tuple[Any, str]:
    """Hyperparameters for data that may be fewer than a batch, and a note if they are."""
    if hyper.batch_size <= n_train:
        return hyper, ""
    note = f"batch_size {hyper.batch_size} exceeds the {n_train} training data, which are one batch."
    return hyper._replace(batch_size=n_train), note


def _pages(wish: Wish) -> tuple[ModuleType | None, ModuleType]:
    """Pages of the model, None for a callable, and of the algorithm."""
    page = gallery.load(wish.inference, wish.seed)
    if not hasattr(page, "step"):
        raise PplebmError(f"'{wish.inference}' is a model page, not an algorithm; see `pplebm list`.")
    model_page = None if callable(wish.model) else gallery.load(wish.model, wish.seed)
    if model_page is not None and not hasattr(model_page, "model"):
        raise PplebmError(f"'{wish.model}' is an algorithm page, not a model; see `pplebm list`.")
    return model_page, page


def _data_entry(data: Dataset, wish: Wish) -> dict[str, Any]:
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "event_shape": list(data.event_shape),
        "shapes": {path: list(shape) for path, shape in data.shapes.items()},
        "levels": {name: list(levels) for name, levels in data.levels.items()},
        "columns": None if data.columns is None else list(data.columns),
        "n_train": data.n_train,
        "n_held_out": data.n_held_out,
        "scaling": data.scaling.to_json(),
        "scaling_wanted": wish.scaling,
        "notes": list(data.notes),
        "source": _source(wish.data, wish.data_dir),
    }


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


def old_job(folder: Path, wish: Wish, group: Parallel) -> Job:
    """A job that goes on.

    Raises:
        PplebmError: if the folder holds no run, or its data were others.
    """
    manifest = files.read_manifest(folder)
    program, page, hyper = rebuild(folder, manifest, wish.model if callable(wish.model) else None, wish.guide)
    dataset = data_of(program, manifest, wish.data, wish.data_dir)
    if dataset.fingerprint != manifest["data"]["fingerprint"]:
        raise PplebmError(
            f"the run in '{folder}' learned from '{manifest['data']['name']}', and the data given now differ; "
            f"resume with the same data."
        )
    return Job(folder, manifest, program, page, hyper, dataset, group)


def start(job: Job, wish: Wish) -> train.Progress:
    """Progress of the last checkpoint, or before the first update.

    Raises:
        PplebmError: for a guide that the algorithm does not learn, or a start that has nothing for this model.
    """
    x = job.program.data(take_rows(job.data.train, slice(0, job.hyper.batch_size)))
    begin = train.begin(
        job.page, job.program, x, job.hyper, job.manifest["seed"], job.data.n_train, job.manifest["ema"] > 0
    )
    if job.manifest.get("has_own_guide", False) and not any(name.startswith(PREFIX) for name in begin.state.params):
        name = gallery.page_name(job.page)
        raise PplebmError(f"algorithm '{name}' learns no guide; drop guide=, or choose one that does (`pplebm list`).")
    if not wish.resume or not (job.folder / files.CHECKPOINT).exists():
        return begin if wish.start is None else _warm(job, begin, Path(wish.start))
    progress = files.read_checkpoint(job.folder, job.program.ppl, begin)
    if job.group.rank == 0:
        files.cut_metrics(job.folder, progress.update)
    job.manifest["rollbacks"] = [r for r in job.manifest["rollbacks"] if r["update"] <= progress.update]
    return progress


def _warm(job: Job, begin: train.Progress, source: Path) -> train.Progress:
    """Progress before the first update, with another run's parameters."""
    ppl, params, found = job.program.ppl, dict(begin.state.params), files.read_params(source)
    shared = {n: a for n, a in found.items() if n in params and tuple(params[n].shape) == a.shape}
    if not shared:
        raise PplebmError(f"no parameter of the run in '{source}' has the name and shape of one of this model's.")
    params |= {name: ppl.asarray(a, keep=True) for name, a in shared.items()}
    state = begin.state._replace(params=params)
    return begin._replace(state=state, good=state, average=params if begin.average else ())
