"""A run folder opened again: its program, algorithm and data rebuilt from the copies it keeps; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.data import Dataset, Scaling, load, load_as_given, rescaled
from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import override
from pplebm.guides.guide import Guide
from pplebm.learning import loop
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.runs import checkpoints, files
from pplebm.runs.manifest import Manifest, PageEntry, read_manifest
from pplebm.runs.trust import check as check_trust
from pplebm.runs.trust import checked_page, shipped


def rebuild(folder: Path, manifest: Manifest, model: Any = None, guide: Any = None, trust: bool = False) -> Algorithm:
    """The algorithm of a run on its program, from the copies in its folder.

    Raises:
        PplebmError: if the model or the guide was a callable and is not given, or a page is not trusted.
    """
    settings, entry = manifest.settings, manifest.model
    if settings.has_own_guide != (guide is not None):
        raise PplebmError(
            f"'{folder}' was fitted with{'out' * (guide is not None)} a guide of its own; open it with "
            f"open_run(path{', ..., guide=...' * (guide is None)})."
        )
    if model is None and entry.file is None:
        raise PplebmError(f"'{folder}' was fitted on a callable; open it with open_run(path, model=...).")
    check_trust(folder, [entry, manifest.inference] if model is None else [manifest.inference], trust)
    if model is None:
        page = page_of(folder, entry, settings.seed)
        shape: Any = tuple(manifest.data.event_shape)
        if gallery.takes_columns(page):
            shape = {path: tuple(one) for path, one in manifest.data.shapes.items()}
        model = gallery.bind(page, settings.backend, shape=shape, seed=settings.seed, **entry.hyper)
        guide = guide or gallery.bind_guide(page, settings.backend, shape, settings.seed, entry.hyper)
    page = page_of(folder, manifest.inference, settings.seed)
    hyper = override(page.Hyper(), manifest.inference.hyper, "the algorithm page of this run")
    program = Program(
        model, data=files.read_example(folder, *manifest.example), seed=settings.seed, backend=settings.backend
    )
    program.levels = {name: tuple(levels) for name, levels in manifest.data.levels.items()}
    return Algorithm(page, with_guide(program, guide).with_chains(precision=settings.precision), hyper)


def page_of(folder: Path, entry: PageEntry, seed: int) -> Any:
    """The page that a run keeps a copy of."""
    home = None if entry.sha256 in shipped() else entry.home
    return gallery.load_copy(checked_page(folder, entry), home, seed)


def with_guide(program: Program, guide: Callable[..., Any] | None) -> Program:
    """The program with a guide of the user's, if there is one."""
    if guide is None:
        return program
    return program.with_guide(Guide(program, guide, shares=getattr(guide, "shares", False)))


def data_of(program: Program, manifest: Manifest, source: Any, data_dir: str | Path | None) -> Dataset:
    """A data set split and scaled as that of a run."""
    settings, cut = manifest.settings, manifest.settings.cut
    if cut is not None:
        scaling = manifest.scaling if isinstance(manifest.scaling, Scaling) else manifest.scaling.of("x")
        return cut.dataset(source, settings.held_out_fraction, scaling, "observed_x" in manifest.data.shapes)
    if not manifest.model.is_own:
        kind = settings.scaling or manifest.model.scaling or "auto"
        return load(source, data_dir, settings.held_out_fraction, settings.seed, kind)
    fraction = settings.held_out_fraction
    found = load_as_given(source, program.signature, data_dir, fraction, settings.seed, program.levels)
    return found if manifest.scaling.kind == "none" else rescaled(found, manifest.scaling)


def opened(
    path: str | Path,
    model: Callable[..., Any] | None = None,
    backend: str | None = None,
    guide: Callable[..., Any] | None = None,
    trust: bool = False,
) -> tuple[Path, Manifest, Algorithm, dict[str, Any]]:
    """Folder, manifest, algorithm and learned parameters of a run; see `pplebm.open_run`."""
    folder = Path(path)
    manifest = read_manifest(folder)
    settings = manifest.settings
    if backend is not None and backend != settings.backend:
        if manifest.model.file is None or not manifest.model.hyper:
            raise PplebmError(
                f"'{manifest.model.name}' is a {settings.backend} program; only gallery pages open on '{backend}' as "
                f"well."
            )
        settings = settings._replace(backend=backend, compiled=False, precision="full")
        manifest = manifest._replace(settings=settings)
    algorithm = rebuild(folder, manifest, model, guide, trust)
    program = algorithm.program
    example = program.example
    rows = program.ppl.asarray(np.arange(algorithm.hyper.batch_size) % n_rows(example))
    x = take_rows(example, rows)  # of whose values nothing is used
    template = loop.begin(algorithm, x, settings.seed, manifest.data.n_train, settings.ema > 0)
    progress = checkpoints.read_checkpoint(folder, program.ppl, template)
    params = progress.average or progress.state.params
    if model is not None:
        program.write_back(params)
    if guide is not None:
        program.guide.write_back(params)
    algorithm = algorithm.with_changes(program.with_params(params))
    return folder, manifest._replace(updates=progress.update), algorithm, params
