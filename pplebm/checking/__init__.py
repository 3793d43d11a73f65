"""Checking: faults of a new model or algorithm, found in seconds and told in sentences.

`check` loads page, data and algorithm and puts them through a list of trials: `models` tries one small batch of a
model (sites, gradients, the tilt, stability of chains by `curvature`, `precision`, one update), `algorithms` tries an
algorithm on small models of the gallery. Every trial adds one of `findings` to the report; a trial that fails skips
those that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pplebm.checking import algorithms, models
from pplebm.checking.findings import Checklist, Finding, Report, sentence_of
from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import override, split_between
from pplebm.gallery.pages import DEFAULT
from pplebm.ppl.compilations import quickly
from pplebm.ppl.language import BACKENDS, load_backend
from pplebm.runs.config import RunConfig
from pplebm.runs.modelling import dataset_of, is_own, kind_of_scaling, shape_for

__all__ = ["Finding", "Report", "check", "sentence_of"]


def check(
    model: str | Path | Callable[..., Any],
    data: Any = "digits",
    inference: str | Path = DEFAULT,
    hyper: Mapping[str, Any] | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    backend: str = "pyro",
    scaling: str | None = None,
) -> Report:
    """Find out what is wrong with a model on data under an algorithm, or with an algorithm, without learning.

    A model: does it load and run, what are its sites, do all parameters learn, is the tilt finite and the tilted
    prior normalisable, are the algorithm's chains stable at its step sizes, does one update work. An algorithm: does
    it learn small models of the gallery, keep to the rules of a page, repeat itself, survive a checkpoint.

    Args:
        model: name of a page, path of a file, or any Pyro callable of a batch; or an algorithm's name or path.
        data: as for `pplebm.fit`; not used for an algorithm.
        inference: name or path of an algorithm page.
        hyper: changes to the hyperparameters of either page.
        seed: of data split, initial weights and noise.
        data_dir: where named data sets lie.
        backend: "pyro" or "numpyro"; for a callable or a file of your own, the one it is written for.
        scaling: as for `pplebm.fit`.

    Returns:
        The findings, in order; what they made impossible is skipped. `report.ok` sums them up.

    Raises:
        PplebmError: for bad data, algorithms or hyperparameters; never for a bad model.

    Example:
        >>> import numpy as np
        >>> report = check("conjugate_tilt", np.random.default_rng(0).normal(size=(40, 4)))
        >>> report.ok, report.findings[2].name
        (True, 'runs')
    """
    config = RunConfig(model, data, inference, seed, hyper=dict(hyper or {}), data_dir=data_dir, scaling=scaling)
    config = config._replace(backend=backend)
    if backend in BACKENDS:
        load_backend(backend)
    with quickly():
        return _report(config)


def _report(config: RunConfig) -> Report:
    """The findings of a check."""
    model, inference, backend, seed = config.model, config.inference, config.backend, config.seed
    hyper, items, page = dict(config.hyper), Checklist(), None
    if not callable(model):
        page = _load(items, model, seed)
    subject = f"check of {getattr(model, '__name__', None) or model}"
    if page is not None and gallery.is_algorithm(page):
        algorithms.check(items, page, hyper, seed)
        return Report(subject, tuple(items.findings))
    algorithm = gallery.load(inference, seed)
    if not gallery.is_algorithm(algorithm):
        raise PplebmError(f"'{inference}' is a model page, not an algorithm; see `pplebm list`.")
    shares = _shares(page, algorithm, hyper if page or callable(model) else {})
    settings = override(algorithm.Hyper(), shares["inference"], f"algorithm '{gallery.page_name(algorithm)}'")
    if page is None and not callable(model):
        return Report(subject, tuple(items.findings))
    dataset, kind = dataset_of(config, page), kind_of_scaling(config.scaling, page)
    bound = model if callable(model) else None
    if page is not None:
        bound = _bind(items, page, backend, shape_for(page, dataset), seed, shares["model"])
    start = models.Start(bound, dataset, kind, is_own(page), seed, backend)
    models.check(items, start, algorithm, settings)
    return Report(f"{subject} on {dataset.name} by {gallery.page_name(algorithm)}", tuple(items.findings))


def _load(items: Checklist, model: str | Path, seed: int) -> ModuleType | None:
    """The page; a file that fails to load is a finding, a name that does not exist is the caller's mistake."""
    is_page = str(model) in (*gallery.models_available(), *gallery.inference_available())
    if not is_page and not Path(model).expanduser().is_file():
        gallery.load(model, seed)  # says what was meant
    pages: list[ModuleType] = []

    def loads() -> tuple[bool, str]:
        pages.append(gallery.load(model, seed))
        kind = "an algorithm page" if gallery.is_algorithm(pages[0]) else "a page for every backend"
        if hasattr(pages[0], "model") and not gallery.is_gallery_model(pages[0].model):
            kind = "a plain program"
        return True, f"{pages[0].__file__} is {kind}"

    items.look("loads", loads, essential=True)
    return pages[0] if pages else None


def _shares(page: ModuleType | None, algorithm: ModuleType, changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Changes of hyperparameters by owner; wrong ones are the caller's mistake."""
    defaults = page.Hyper() if page is not None and gallery.is_gallery_model(page.model) else None
    shares = split_between(changes, {"model": defaults, "inference": algorithm.Hyper()})
    if defaults is not None and page is not None:
        override(defaults, shares["model"], f"model '{gallery.page_name(page)}'")
    return shares


def _bind(items: Checklist, page: ModuleType, backend: str, shape: Any, seed: int, hyper: dict[str, Any]) -> Any:
    """The page as a callable of a batch, its networks made."""
    bound: list[Callable[..., Any]] = []

    def networks() -> tuple[bool, str]:
        bound.append(gallery.bind(page, backend, shape=shape, seed=seed, **hyper))
        return True, f"made for data of shape {shape}"

    if not gallery.is_gallery_model(page.model):
        return gallery.bind(page, backend, seed=seed)
    items.look("networks", networks, essential=True)
    return bound[0] if bound else None
