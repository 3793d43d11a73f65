"""Test quantities: numbers of latents, and of latents and data, whose ranks are looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pplebm.calibration.replications import Replications
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.draws import ROWS_AT_ONCE

JOINT, LIKELIHOOD = "log p(x, z)", "log p(x|z)"
Quantity = Callable[[dict[str, np.ndarray]], np.ndarray]


class Numbers(NamedTuple):
    """One quantity at the true latents, and at draws of the posteriors."""

    true: np.ndarray  # (n,)
    draws: np.ndarray  # (chains, draws, n)


def numbers(found: Replications, further: Mapping[str, Quantity] | None = None) -> dict[str, Numbers]:
    """Every coordinate of every latent site, log p̃(x, z) and log p(x|z), and what a user asks for.

    The two densities read the data as well, and find faults that no function of the latents alone finds: a posterior
    that is the prior passes for every one of those.

    Args:
        found: replications.
        further: functions of values by site, (rows, *event) each in its support, to one number per row; deterministic
            sites are among the values.

    Raises:
        PplebmError: for a function that returns something else, or a name that is there already.

    Source: Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman, Vehtari (Bayesian Analysis 2023), section 3.
    """
    chains, n_draws, n = next(iter(found.draws.values())).shape[:3]
    z = {site: np.concatenate([a[None], found.draws[site].reshape(-1, *a.shape)]) for site, a in found.latents.items()}
    values = evaluated(found.program, found.params, z, found.data)
    arrays: dict[str, np.ndarray] = {}
    for site in found.program.latents:
        for index in np.ndindex(*values[site.name].shape[2:]):
            name = f"{site.name}[{','.join(map(str, index))}]" if index else site.name
            arrays[name] = values[site.name][(slice(None), slice(None), *index)]
    arrays |= {name: values.pop(name) for name in (JOINT, LIKELIHOOD)}
    flat = {site: a.reshape(-1, *a.shape[2:]) for site, a in values.items()}
    for name, function in (further or {}).items():
        if name in arrays:
            raise PplebmError(f"there is a quantity '{name}' already; give yours another name.")
        a = np.asarray(function(flat))
        if a.shape != (len(z[found.program.latents[0].name]) * n,):
            raise PplebmError(
                f"quantity '{name}' has shape {a.shape} for values of {len(next(iter(flat.values())))} rows; return "
                f"one number per row."
            )
        arrays[name] = a.reshape(-1, n)
    return {name: Numbers(a[0], a[1:].reshape(chains, n_draws, n)) for name, a in arrays.items()}


def evaluated(program: Program, params: Params, z: dict[str, np.ndarray], x: Any) -> dict[str, np.ndarray]:
    """Values by site and both log densities at latents (draws, data, *event) of every datum, (draws, data, ...).

    Args:
        x: rows of data, or a list of whole data sets of a program with global latents.
    """
    if program.has_global_latents:
        sets = [_of_set(program, params, {site: a[:, i] for site, a in z.items()}, one) for i, one in enumerate(x)]
        return {name: np.stack([found[name] for found in sets], 1) for name in sets[0]}
    ppl, n = program.ppl, n_rows(x)
    n_draws = len(next(iter(z.values())))
    size = max(1, min(n_draws, ROWS_AT_ONCE // n))
    rows = take_rows(x, ppl.asarray(np.tile(np.arange(n), size)))
    run, parts = program.compiled("calibrated numbers", _at(program)), []
    for first in range(0, n_draws, size):
        index = np.arange(first, first + size) % n_draws  # the last part is filled up, so that shapes repeat
        given = {site: ppl.asarray(a[index].reshape(-1, *a.shape[2:]), keep=True) for site, a in z.items()}
        part = run(params, given, rows)
        parts.append({name: ppl.to_numpy(a).reshape(size, n, *a.shape[1:]) for name, a in part.items()})
    return {name: np.concatenate([p[name] for p in parts])[:n_draws] for name in parts[0]}


def _of_set(program: Program, params: Params, z: dict[str, np.ndarray], x: Data) -> dict[str, np.ndarray]:
    """Of one whole data set, (draws, ...)."""
    ppl = program.ppl
    run = program.compiled("calibrated numbers", _at(program))
    found = run(params, {site: ppl.asarray(a, keep=True) for site, a in z.items()}, x)
    return {name: ppl.to_numpy(a) for name, a in found.items()}


def _at(program: Program) -> Callable[..., dict[str, Array]]:
    def run(params: Params, z: Latents, x: Data) -> dict[str, Array]:
        terms = program.log_terms(params, z, x)
        likelihood = program.total(terms, (*program.observed, *program.factors))
        return program.constrain(params, z, x) | {JOINT: program.total(terms), LIKELIHOOD: likelihood}

    return run
