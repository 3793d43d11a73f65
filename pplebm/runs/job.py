"""Jobs, made of what a person asked for: pages bound, data loaded, parameters where they start."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pplebm.data import Dataset
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import flat, override, split_between
from pplebm.guides.guide import PREFIX
from pplebm.learning import loop
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.parallel import Parallel
from pplebm.ppl.trees import take_rows
from pplebm.runs import checkpoints, files
from pplebm.runs.config import RunConfig, settings_of
from pplebm.runs.manifest import Manifest, PageEntry, data_entry, page_entry, read_manifest, write_manifest
from pplebm.runs.modelling import data_sample, dataset_of, is_own, kind_of_scaling, program_on, shape_for
from pplebm.runs.opening import data_of, rebuild, with_guide


class Job(NamedTuple):
    """All that one run needs."""

    folder: Path
    manifest: Manifest
    algorithm: Algorithm
    data: Dataset
    group: Parallel  # processes that learn together


def new_job(folder: Path, config: RunConfig, group: Parallel) -> tuple[Job, loop.Progress]:
    """A job that begins, the files of its folder with it, and its progress before the first update.

    Raises:
        PplebmError: for bad input of any kind.
    """
    model_page, page = pages_of(config)
    defaults = model_page.Hyper() if model_page and gallery.is_gallery_model(model_page.model) else None
    shares = split_between(config.hyper, {"model": defaults, "inference": page.Hyper()})
    hyper = override(page.Hyper(), shares["inference"], f"algorithm '{gallery.page_name(page)}'")
    hyper = hyper if config.updates is None else hyper._replace(updates=config.updates)
    model_hyper = {} if defaults is None else flat(override(defaults, shares["model"], f"model '{config.model}'"))
    data, bound, guide = dataset_of(config, model_page), config.model, config.guide
    if model_page is not None:
        shape = shape_for(model_page, data)
        bound = gallery.bind(model_page, config.backend, shape=shape, seed=config.seed, **shares["model"])
        guide = guide or gallery.bind_guide(model_page, config.backend, shape, config.seed, shares["model"])
    kind, own = kind_of_scaling(config.scaling, model_page), is_own(model_page)
    kind = kind if config.cut is None else "none"  # windows are scaled already, missing entries left out
    program, data = program_on(bound, data, kind, own, config.seed, config.backend)
    hyper, note = _one_batch(hyper, data.n_train)
    if note:
        data = data._replace(notes=(*data.notes, note))
        if group.rank == 0:
            warnings.warn(note, PplebmWarning, stacklevel=2)
    settings = settings_of(config, hyper.updates)
    program = with_guide(program, guide).with_chains(settings.compiled, settings.precision)
    folder.mkdir(parents=True, exist_ok=True)
    example = files.write_example(folder, data_sample(data.train))
    model = PageEntry(getattr(config.model, "__name__", "model"), None, None, None, {}, "", [], is_own=True)
    if model_page is not None:
        scaling = getattr(model_page, "SCALING", None)
        model = page_entry(folder, "model", model_page, model_hyper, scaling=scaling, is_own=own)
    inference = page_entry(folder, "inference", page, flat(hyper))
    manifest = Manifest(settings, model, inference, data_entry(data), files.versions(), example)
    write_manifest(folder, manifest)
    job = Job(folder, manifest, Algorithm(page, program, hyper), data, group)
    begin = _begin(job)
    return job, begin if config.start is None else _warm(job, begin, Path(config.start))


def old_job(folder: Path, config: RunConfig, group: Parallel, trust: bool = False) -> tuple[Job, loop.Progress]:
    """A job that goes on, and its progress at the last checkpoint.

    Raises:
        PplebmError: if the folder holds no run or one whose pages are not trusted, or its data were others.
    """
    manifest = read_manifest(folder)
    if config.updates is not None:
        manifest.inference.hyper["updates"] = config.updates
    algorithm = rebuild(folder, manifest, config.model if callable(config.model) else None, config.guide, trust)
    algorithm = algorithm.with_changes(algorithm.program.with_chains(manifest.settings.compiled))
    data = data_of(algorithm.program, manifest, config.data, config.data_dir)
    if data.fingerprint != manifest.data.fingerprint:
        raise PplebmError(
            f"the run in '{folder}' learned from '{manifest.data.name}', and the data given now differ; resume with "
            f"the same data."
        )
    job = Job(folder, manifest, algorithm, data, group)
    begin = _begin(job)
    if checkpoints.has_checkpoint(folder):
        progress = checkpoints.read_checkpoint(folder, algorithm.ppl, begin, mend=group.rank == 0)
    else:
        note = f"'{folder}' holds no checkpoint yet, so the run begins again."
        if group.rank == 0:
            warnings.warn(note, PplebmWarning, stacklevel=2)
        start = manifest.settings.start
        progress = begin if start is None else _warm(job, begin, Path(start))
    if group.rank == 0:
        files.cut_metrics(folder, progress.update)
    kept = [r for r in manifest.rollbacks if r.update <= progress.update]
    return job._replace(manifest=manifest._replace(rollbacks=kept)), progress


def pages_of(config: RunConfig) -> tuple[ModuleType | None, ModuleType]:
    """Pages of the model, None for a callable, and of the algorithm.

    Raises:
        PplebmError: for a page of the other kind.
    """
    page = gallery.load(config.inference, config.seed)
    if not gallery.is_algorithm(page):
        raise PplebmError(f"'{config.inference}' is a model page, not an algorithm; see `pplebm list`.")
    model_page = None if callable(config.model) else gallery.load(config.model, config.seed)
    if model_page is not None and not hasattr(model_page, "model"):
        raise PplebmError(f"'{config.model}' is an algorithm page, not a model; see `pplebm list`.")
    return model_page, page


def _one_batch(hyper: Any, n_train: int) -> tuple[Any, str]:
    """Hyperparameters for data that may be fewer than a batch, and a note if they are."""
    if hyper.batch_size <= n_train:
        return hyper, ""
    note = f"batch_size {hyper.batch_size} exceeds the {n_train} training data, which are one batch."
    return hyper._replace(batch_size=n_train), note


def _begin(job: Job) -> loop.Progress:
    """Progress before the first update.

    Raises:
        PplebmError: for a guide that the algorithm does not learn.
    """
    algorithm, settings = job.algorithm, job.manifest.settings
    x = algorithm.program.data(take_rows(job.data.train, slice(0, algorithm.hyper.batch_size)))
    begin = loop.begin(algorithm, x, settings.seed, job.data.n_train, settings.ema > 0)
    if settings.has_own_guide and not any(name.startswith(PREFIX) for name in begin.state.params):
        name = algorithm.name
        raise PplebmError(f"algorithm '{name}' learns no guide; drop guide=, or choose one that does (`pplebm list`).")
    return begin


def _warm(job: Job, begin: loop.Progress, source: Path) -> loop.Progress:
    """Progress before the first update, with another run's parameters.

    Raises:
        PplebmError: for a run that has nothing for this model.
    """
    ppl, params, found = job.algorithm.ppl, dict(begin.state.params), checkpoints.read_params(source)
    shared = {n: a for n, a in found.items() if n in params and tuple(params[n].shape) == a.shape}
    if not shared:
        raise PplebmError(f"no parameter of the run in '{source}' has the name and shape of one of this model's.")
    params |= {name: ppl.asarray(a, keep=True) for name, a in shared.items()}
    state = begin.state._replace(params=params)
    return begin._replace(state=state, good=state, average=params if begin.average else ())
