"""Hyperparameters: every page's defaults lie in their ranges, and what does not is refused by its name."""

from __future__ import annotations

import importlib
import math
import typing

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Count, NonNegative, Positive, Range, Schedule, Share, Whole, override

PAGES = [*(f"inference.{p}" for p in pplebm.inference_available()), *(f"models.{p}" for p in pplebm.models_available())]
FREE = {"inference.info_vae": {"alpha"}}  # numbers that may be anything


class Settings(typing.NamedTuple):
    count: Count = 3
    whole: Whole = 0
    positive: Positive = 0.5
    weight: NonNegative = 0.0
    share: Share = 0.3
    schedule: Schedule = "linear"
    drift: Positive | None = None
    sizes: tuple[Count, ...] = (4, 2)
    name: str = "a"
    flag: bool = False


REFUSED = {
    "count": [0, -1, 1.5, True, "many"],
    "whole": [-1, 0.5],
    "positive": [0.0, -1, math.nan, "0", "wide"],
    "weight": [-1e-9, math.nan],
    "share": [-0.1, 1.1, "2"],
    "schedule": ["steps", 1],
    "drift": [0.0, -1.0],
    "sizes": [(4, 0), (-1,), "4,0", 0, (1.5,)],
    "name": [1],
    "flag": [1, "yes"],
}
TAKEN = {
    "count": [1, "7"],
    "whole": [0, "2"],
    "positive": [1, "1e-3", math.inf],
    "weight": [0, 3.0],
    "share": [0, 1, "0.5"],
    "schedule": ["constant"],
    "drift": [None, "None", 2],
    "sizes": [(1, 2, 3), "5", 8],
    "name": ["8"],
    "flag": [True, "True", "false"],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in REFUSED.items() for v in values])
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(PplebmError, match=f"'{field}' of page must be"):
        override(Settings(), {field: value}, "page")


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in TAKEN.items() for v in values])
def test_values_in_range_are_taken(field, value):
    override(Settings(), {field: value}, "page")


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_has_a_range_and_a_default_inside_it(page):
    defaults = importlib.import_module(f"pplebm.{page}").Hyper()
    assert override(defaults, defaults._asdict(), page) == defaults
    for name, hint in typing.get_type_hints(type(defaults), include_extras=True).items():
        assert hint not in (int, float) or name in FREE.get(page, ()), f"{page}: {name}"
        for member in typing.get_args(hint) if typing.get_origin(hint) is not typing.Annotated else (hint,):
            ranges = [m for m in typing.get_args(member)[1:] if isinstance(m, Range)]
            for outside in [r.low - 1 for r in ranges] + [r.high + 1 for r in ranges if r.high < math.inf]:
                value = (int(outside),) if typing.get_origin(hint) is tuple else type(ranges[0].low)(outside)
                with pytest.raises(PplebmError, match=f"'{name}'"):
                    override(defaults, {name: value}, page)


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"updates": 0}, {"learning_rate": -1.0}, {"clip_norm": -1.0}])
def test_a_fit_refuses_before_it_leaves_a_folder(change, tmp_path):
    (field,) = change
    with pytest.raises(PplebmError, match=field):
        pplebm.fit("conjugate_tilt", np.zeros((40, 4)), out=tmp_path / "run", hyper=change, progress=False)
    assert not (tmp_path / "run").exists()


def test_the_number_of_updates_of_a_fit_is_positive(tmp_path):
    with pytest.raises(PplebmError, match="updates must be positive"):
        pplebm.fit("conjugate_tilt", np.zeros((40, 4)), out=tmp_path / "run", updates=0, progress=False)
