"""Arrays with the names of their dimensions, as ArviZ knows them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pplebm.ppl.trees import tree_leaves
from pplebm.program import Program
from pplebm.sampling.draws import STANDARD_STATS, Draws
from pplebm.sampling.on_disk import OnDisk

ARVIZ_NAMES = {
    "log_density": "lp", "accept_prob": "acceptance_rate", "is_divergent": "diverging", "num_steps": "n_steps",
}  # fmt: skip
Variables = dict[str, tuple[tuple[str, ...], Any, np.ndarray | None]]  # dimensions, values, numbers of draws


def covariates(draws: Draws) -> Variables:
    """Arrays of the data that are no observed site's value as a whole, ArviZ's constant_data."""
    program, ppl = draws.program, draws.program.ppl
    plate, found = program.plate or "data", Variables()
    for path, a in tree_leaves(draws.data):
        name = program.reads.names.get(path, path)
        if program.reads.parts.get(path, False) or name in {site.name for site in program.observed}:
            continue
        dims = (plate, *(f"{name}_dim_{i}" for i in range(a.ndim - 1)))
        found[name] = (dims, ppl.to_numpy(a), None)
    return found


def stats_of(draws: Draws) -> dict[str, np.ndarray]:
    """Statistics for ArviZ's plots, (chains, draws).

    Of all data the sum, but the mean acceptance and step size, any divergence, and the longest trajectory, for which
    the others of a batch wait.
    """
    together: dict[str, Any] = {
        "is_divergent": np.any, "accept_prob": np.mean, "step_size": np.mean, "num_steps": np.max,
    }  # fmt: skip
    found = {}
    for name, a in draws.stats.items():
        if draws.has_data_axis and name in STANDARD_STATS:
            a = together.get(name, np.sum)(a, axis=2)
        if not draws.has_data_axis or name in STANDARD_STATS:
            found[ARVIZ_NAMES.get(name, name)] = a
    return found


def stats_by_datum(draws: Draws) -> dict[str, np.ndarray]:
    """The same by datum, and the extra fields."""
    if not draws.has_data_axis:
        return {}
    return {f"{ARVIZ_NAMES.get(n, n)}_by_datum" if n in STANDARD_STATS else n: a for n, a in draws.stats.items()}


def named(
    program: Program,
    arrays: dict[str, np.ndarray],
    axis: str | None,
    at: np.ndarray | None = None,
    pointwise: bool = False,
) -> Variables:
    """Arrays (chain, draw, ...) with names of their dimensions: the data's if it comes first, plates', then by site.

    Args:
        axis: name of the first axis after the draws, if it is the data's.
        at: numbers of the draws, if not all are there.
        pointwise: the arrays are by datum and have no axes of events.
    """
    found = Variables()
    sites = {site.name: site for site in (*program.latents, *program.observed)}
    for name, a in arrays.items():
        site, plates = sites.get(name), tuple[str, ...]()
        if site is not None and not pointwise:
            plates = tuple(p for p in site.plates if p)
            plates = plates if len(plates) == len(site.plates) else ()
        first: tuple[str, ...] = ("chain", "draw")
        is_whole = (
            program.has_global_latents and site is not None and bool(plates)
        )  # the data plate is among the others then
        if axis is not None and a.ndim > 2 and not is_whole:
            first = (*first, axis)
        named = plates[: max(0, a.ndim - len(first))]
        rest = a.ndim - len(first) - len(named)
        found[name] = ((*first, *named, *(f"{name}_dim_{i}" for i in range(rest))), a, at)
    return found


def _dataset(variables: Variables, attributes: dict[str, Any], levels: Mapping[str, Sequence[str]]) -> Any:
    """Variables with coordinates: the levels of a column of text for the plate of its name, numbers otherwise."""
    import xarray

    coordinates: dict[str, Any] = {}
    for dims, a, at in variables.values():
        for d, n in zip(dims, a.shape, strict=True):
            coordinates[d] = np.asarray(levels[d]) if len(levels.get(d, ())) == n else np.arange(n)
        if at is not None:
            coordinates["draw"] = at
    held = {name: a.variable(dims) if isinstance(a, OnDisk) else (dims, a) for name, (dims, a, _) in variables.items()}
    return xarray.Dataset(held, coordinates, attributes)


def datasets(
    groups: dict[str, Variables], attributes: dict[str, dict[str, Any]], levels: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    library = {
        "inference_library": "pplebm",
        "inference_library_version": importlib.metadata.version("pplebm"),
    }
    return {name: _dataset(a, library | attributes.get(name, {}), levels) for name, a in groups.items()}


def facts_of(draws: Draws) -> dict[str, Any]:
    plan = draws.plan
    facts = {"sampling_time": draws.facts["seconds"], "tuning_steps": plan.n_warmup, "thinning": plan.thin}
    return facts | {"kernel": plan.kernel}
