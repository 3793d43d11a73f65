"""Programs, made of a model and data: pages bound, data loaded, scaled where it was asked, and checked."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from pplebm.data import SCALINGS, Dataset, load_as_given, rescaled, scaling_for
from pplebm.data import load as load_data
from pplebm.data.columns import Signature, signature_of
from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.runs.config import RunConfig

SAMPLE_ROWS = 5  # of each part of the data, on which a program is traced


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


def dataset_of(config: RunConfig, page: ModuleType | None) -> Dataset:
    """The data that are asked for; those of the user's own model unscaled yet."""
    kind, cut = kind_of_scaling(config.scaling, page), config.cut
    if cut is not None:
        is_masked = is_own(page) and {"x", "observed_x"} <= set(signature_for(config, page).names)
        return cut.dataset(config.data, config.held_out_fraction, config.scaling or "standard", is_masked)
    if not is_own(page):
        return load_data(config.data, config.data_dir, config.held_out_fraction, config.seed, kind)
    return load_as_given(
        config.data, signature_for(config, page), config.data_dir, config.held_out_fraction, config.seed
    )  # fmt: skip


def signature_for(config: RunConfig, page: ModuleType | None) -> Signature:
    """Names of the data that a model takes."""
    return signature_of(config.model) if page is None else gallery.data_arguments(page)


def shape_for(page: ModuleType, data: Dataset) -> Any:
    """The shape of one datum that a page is bound for, by name where it names its data."""
    return data.shapes if gallery.takes_columns(page) else data.event_shape


def program_on(bound: Any, data: Dataset, kind: str, own: bool, seed: int, backend: str) -> tuple[Program, Dataset]:
    """The program of a model on its data, and the data in model units, checked against the program."""
    make = lambda data: Program(bound, data=data_sample(data.train), seed=seed, backend=backend)
    program = make(data)
    if not (program.observed or program.factors or program.given):
        raise PplebmError(
            f"the program observes nothing, so that data tell its parameters nothing; give the data to one of its "
            f"sites, by {backend}.sample(..., obs=x)."
        )
    if own and kind != "none":
        kind = "unit" if kind == "auto" and len(data.event_shape) > 1 else "standard" if kind == "auto" else kind
        supports = {site.name: site.support for site in (*program.observed, *program.latents)}
        whole = {path: supports[site] for site, path in program.reads.whole.items()}
        data = rescaled(data, scaling_for(kind, data, whole))
        program = make(data)
    program.levels = dict(data.levels)
    for part in (data.train, data.held_out):
        if n_rows(part):
            program.check_data(part)
    return program, data


def data_sample(data: Any) -> Any:
    """Some rows from the beginning, the middle and the end, on which a program is traced."""
    n = n_rows(data)
    middle, last = n // 2, max(0, n - SAMPLE_ROWS)
    rows = np.unique(np.r_[0 : min(n, SAMPLE_ROWS), middle : min(n, middle + SAMPLE_ROWS), last:n])
    return take_rows(data, rows)
