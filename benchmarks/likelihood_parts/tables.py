"""Tables of the cells that are kept, in Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cells import EXACT
from .images import IMAGES

Cells = dict[str, dict[str, Any]]
HEAD_KNOWN = (
    "| generator | page | below the truth | below the exact maximum | its base, below the truth "
    "| twin, below the truth | log p(x) | minutes | seeds |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|",
)
HEAD_IMAGES = (
    "| images, held out | page | log p(x) | its base | twin | minus twin | ± of a seed | ahead | log Z | ± estimator "
    "| ± over images | bits / dim | refused | updates | minutes | seeds |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)
AHEAD = 2.0  # standard errors of a seed's paired difference, by which a tilt counts as ahead of its twin

NATS_OF_IMAGES = (
    "Held-out nats, estimated; of densities of continuous pixels in [-1, 1], or of probabilities of binary pixels. "
    "Ahead: seeds in which the tilted model is, image by image, above its twin by more than twice the standard error."
)


def table(rows: Cells) -> str:
    """Both tables, and what they mean."""
    groups: dict[str, Cells] = {}
    for name, row in rows.items():
        data, page, seed, *more = name.split("/")
        groups.setdefault("/".join((data, page, *more)), {})[seed] = row
    exact = sorted(((n, cells) for n, cells in groups.items() if not _is_image(n)), key=lambda pair: _place(*pair))
    known = [line_of_known(name, cells, rows) for name, cells in exact]
    pictures = sorted(((n, cells) for n, cells in groups.items() if _is_image(n)), key=lambda pair: _rank(*pair))
    images = [line_of_images(name, cells) for name, cells in pictures]
    parts = []
    if known:
        parts += ["Held-out nats, exact; mean ± standard deviation over seeds.", "", *HEAD_KNOWN, *known]
    if images:
        parts += ["", NATS_OF_IMAGES, "", *HEAD_IMAGES, *images]
    return "\n".join([*parts, "", "`python benchmarks/likelihood.py`"]).strip("\n")


def line_of_known(name: str, cells: Cells, rows: Cells) -> str:
    """A line of one page on one generator."""
    data, page, *more = name.split("/")
    of = lambda model, field: _values(cells, model, field)
    there = {model for row in cells.values() for model in row["models"]}
    first = next(model for model in ("tilted", "model", "truth") if model in there)
    at_maximum = {seed: rows.get(f"{data}/{EXACT}/{seed}", {}).get("models", {}).get("tilted") for seed in cells}
    gaps = [
        at_maximum[seed]["mean"] - row["models"][first]["mean"]
        for seed, row in cells.items()
        if at_maximum[seed] is not None and "mean" in row["models"].get(first, {})
    ]
    n_refused = lambda model: sum("refused" in row["models"].get(model, {}) for row in cells.values())
    twin = spread(of("twin", "below_truth"), 3) + (f" ({n_refused('twin')} refused)" if n_refused("twin") else "")
    minutes = [row[f"minutes of {first}"] for row in cells.values() if f"minutes of {first}" in row]
    seeds = f"{len(cells)}" + (f", {n_refused(first)} refused" if n_refused(first) else "")
    return (
        f"| {data} | {' '.join((first if first == 'truth' else page, *more))} "
        f"| {spread(of(first, 'below_truth'), 3)} "
        f"| {spread(gaps, 3) if page != EXACT else ''} | {spread(of('base', 'below_truth'), 3)} "
        f"| {twin} | {spread(of(first, 'mean'), 3)} | {spread(minutes, 1)} | {seeds} |"
    )


def line_of_images(name: str, cells: Cells) -> str:
    """A line of one page on one set of images; its base and twin are told of the seeds in which it is there itself."""
    data, page, *more = name.split("/")
    told = [part for part in more if not part.endswith((" updates", " images"))]
    page = " ".join((page, *(part if part.startswith("by ") else f"of {part}" for part in told)))
    first = _first(cells)
    mean = lambda field, digits: _mean(_values(cells, first, field), digits)
    reasons = [f"refused: {why.split(';')[0]}" for why in dict.fromkeys(_values(cells, first, "reason"))]
    found = spread(_values(cells, first, "mean"), 2)
    beside = {seed: row for seed, row in cells.items() if "mean" in row["models"].get(first, {})} or cells
    gains = list(zip(_values(cells, first, "gain"), _values(cells, first, "gain_error"), strict=True))
    ahead = f"{sum(gain > AHEAD * error for gain, error in gains)} of {len(gains)}" if gains else ""
    n, n_images = len(cells), sum(row["data"] for row in cells.values())
    refused = ", ".join(
        f"{count} of {n_images}" + f" ({model})" * (model != first)
        for model in (first, "base", "twin")
        if (count := sum(row["models"].get(model, {}).get("refused", 0) for row in cells.values())) or model == first
    )
    updates = "/".join(dict.fromkeys(str(row["updates"]) for row in cells.values()))
    return (
        f"| {data}, {n_images // n} | {page} | {'; '.join([found] * bool(found) + reasons)} "
        f"| {spread(_values(beside, 'base', 'mean'), 2)} | {spread(_values(beside, 'twin', 'mean'), 2)} "
        f"| {spread([gain for gain, _ in gains], 2)} | {mean('gain_error', 2)} | {ahead} | {mean('log_z', 2)} "
        f"| {mean('error', 2)} | {mean('data_error', 2)} | {mean('bits', 3)} | {refused} | {updates} "
        f"| {_mean([row['minutes'] for row in cells.values()], 1)} | {n} |"
    )


def _first(cells: Cells) -> str:
    """The model that a page is there for."""
    there = {model for row in cells.values() for model in row["models"]}
    return next(model for model in ("tilted", "model") if model in there)


def _rank(name: str, cells: Cells) -> tuple[int, int, float]:
    """Sets of images in their order, by how many are held out; in each, pages by log p(x), refused ones last."""
    found, n = _values(cells, _first(cells), "mean"), next(iter(cells.values()))["data"]
    return list(IMAGES).index(name.split("/")[0]), n, -float(np.mean(found)) if found else np.inf


def _place(name: str, cells: Cells) -> tuple[str, float]:
    """Generators by name; in each the truth, then pages by how near to it they come, then those that are refused."""
    data, page = name.split("/")[:2]
    found = [*_values(cells, "tilted", "below_truth"), *_values(cells, "model", "below_truth")]
    return data, -np.inf if page == EXACT else float(np.mean(found)) if found else np.inf


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation."""
    if not values:
        return ""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def _mean(values: list[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f}" if values else ""


def _values(cells: Cells, model: str, field: str) -> list[Any]:
    found = [row["models"].get(model, {}) for row in cells.values()]
    return [row[field] for row in found if field in row]


def _is_image(name: str) -> bool:
    return name.split("/")[0] in IMAGES
