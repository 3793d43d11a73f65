"""Draws as groups of a file that grows while a run goes on."""

from __future__ import annotations

from typing import Any

from pplebm.sampling.draws import STANDARD_STATS, Draws
from pplebm.sampling.labelled import ARVIZ_NAMES, covariates, datasets, facts_of, named, stats_by_datum, stats_of


def streamed_groups(draws: Draws) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Groups of draws as they are written to a file while a run goes on, and where in them the draws are.

    Returns:
        Datasets by group: draws in the supports of the sites and unconstrained, figures of the kernel, the data; and by
        "values", "latents" and "stats" the place of every name, "group/variable".
    """
    kind, plate = "prior" if draws.is_prior else "posterior", draws.program.plate or "data"
    axis, whole = plate if draws.has_data_axis else None, f"unconstrained_{'prior' if draws.is_prior else 'posterior'}"
    figures = "sample_stats_prior" if draws.is_prior else "sample_stats"
    groups = {
        kind: named(draws.program, draws.values, axis),
        whole: named(draws.program, draws.latents, axis),
        figures: named(draws.program, stats_of(draws), None) | named(draws.program, stats_by_datum(draws), axis),
    }
    if constant := covariates(draws):
        groups["constant_data"] = constant
    if not draws.is_prior and draws.program.observed:
        observed = {name: draws.program.ppl.to_numpy(a) for name, a in draws.program.observed_data(draws.data).items()}
        as_draws = named(draws.program, {name: a[None, None] for name, a in observed.items()}, plate)
        groups["observed_data"] = {name: (dims[2:], a[0, 0], None) for name, (dims, a, _) in as_draws.items()}
    called = {n: ARVIZ_NAMES.get(n, n) + "_by_datum" * (draws.has_data_axis and n in STANDARD_STATS)
              for n in draws.stats}  # fmt: skip
    places = {
        "values": {name: f"{kind}/{_in_file(name)}" for name in draws.values},
        "latents": {name: f"{whole}/{_in_file(name)}" for name in draws.latents},
        "stats": {name: f"{figures}/{_in_file(other)}" for name, other in called.items()},
    }
    renamed = {
        group: {_in_file(name): (tuple(map(_in_file, dims)), a, at) for name, (dims, a, at) in found.items()}
        for group, found in groups.items()
    }
    return datasets(renamed, {kind: facts_of(draws)}, draws.program.levels), places


def _in_file(name: str) -> str:
    """A slash would open a group."""
    return name.replace("/", ".")
