"""The first run of a NumPyro model: what its statements are, its parameters, and where its latents start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from pplebm.backends.numpyro import sites
from pplebm.backends.numpyro.graphs import UNTRACEABLE, is_traced, quickly_compiled
from pplebm.backends.numpyro.messengers import Checks
from pplebm.backends.numpyro.parameters import Parameters
from pplebm.backends.structure import structure_of
from pplebm.backends.visit import At, Visit
from pplebm.errors import PplebmError
from pplebm.ppl.language import Data
from pplebm.ppl.trees import n_rows, take_rows

if TYPE_CHECKING:
    from pplebm.backends.numpyro.traced import TracedProgram

Arrays = dict[str, jax.Array]


def first_run(traced: TracedProgram, data: Data, key: Any, plate: str | None) -> tuple[Arrays, Arrays]:
    """Note a program's structure and parameters; coordinates of the latents, and values of the observed sites.

    Compiled as a whole, because operations one by one take seconds. A compiled run only says whether all is well:
    where it is not, or cannot be told, a plain run follows, which refuses by name.
    """
    known: Arrays = {}  # parameters that are numbers while the run is traced

    def run(data: Data, key: Any) -> tuple[Any, ...]:
        checks = Checks()
        with checks:
            trace = traced.forward(data, key)
        found = _note(traced, trace, n_rows(data), plate)
        statements = {name: msg for name, msg in trace.items() if msg["type"] == "param"}
        traced.parameters = Parameters(statements)
        traced.params = traced.parameters.flat({name: msg["value"] for name, msg in statements.items()})
        known.update({name: a for name, a in traced.params.items() if not is_traced(a)})
        z = traced.moved(Visit(traced, At(), found), "centered")
        observed = {site.name: found[site.name]["value"] for site in traced.structure.observed}
        return z, observed, {name: a for name, a in traced.params.items() if name not in known}, checks.all()

    def compiled(data: Data, key: Any) -> tuple[Any, ...]:
        with jax.ensure_compile_time_eval():  # what the model keeps for later runs must be numbers
            found = run(data, key)
        if any(map(is_traced, jax.tree.leaves((traced.parameters.constraints, traced.supports)))):
            raise PplebmError("a constraint depends on data.")
        return found

    try:
        z, observed, params, is_well = quickly_compiled(compiled)(data, key)
        if not is_well:
            raise PplebmError("an argument is out of range.")
    except UNTRACEABLE:
        known.clear()
        z, observed, params, _ = run(data, key)
    traced.params = {name: known.get(name, params.get(name)) for name in traced.params}
    if not traced.structure.has_global_latents:
        _check_plate(traced, data, key, plate)
    return z, observed


def _note(traced: TracedProgram, trace: dict[str, Any], n: int, plate: str | None) -> dict[str, Any]:
    """Note the structure, and what else is the same in every run; statements by name."""
    traced.structure = structure_of(*_split(trace), n, plate, sites.BACKEND)
    found = {name: msg for name, msg in trace.items() if msg["type"] in ("sample", "deterministic")}
    traced.note(found)
    looped = [site.name for site in traced.structure.latents if site.name in traced.looped]
    traced.supports = {name: found[name]["fn"].support for name in looped}
    return found


def _check_plate(traced: TracedProgram, data: Data, key: Any, plate: str | None) -> None:
    """Refuse a plate of fixed size, by a run on fewer data; numbers are only looked at if they must be."""

    def run(data: Data, key: Any) -> None:
        half = take_rows(data, slice(0, n_rows(data) // 2 + 1))
        structure_of(*_split(traced.forward(half, key)), n_rows(half), plate, sites.BACKEND)

    try:
        jax.eval_shape(run, data, key)
    except UNTRACEABLE:
        run(data, key)


def _split(trace: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Sample and deterministic statements in program order, and the full sizes of plates."""
    full_sizes = {name: site["args"][0] for name, site in trace.items() if site["type"] == "plate"}
    return [site for site in trace.values() if site["type"] in ("sample", "deterministic")], full_sizes
