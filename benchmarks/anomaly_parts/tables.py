"""Tables of held-out digits and of out-of-distribution images, in Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from .published import DIGITS, PUBLISHED, SOURCES

Cells = dict[str, dict[str, Any]]
MODELS = ("tilted", "base", "twin")
OF_PAPERS = "log_joint"


def page(rows: Cells, fixed: str) -> str:
    """Everything that is kept."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows.items():
        groups.setdefault(name.rpartition("/")[0], []).append(row)
    digits = {name: cells for name, cells in groups.items() if name.startswith("digit")}
    parts = [headline(digits, fixed)] if digits else []
    parts += [scores_table(name, cells, fixed) for name, cells in groups.items()]
    return "\n\n".join(parts)


def headline(groups: dict[str, list[dict[str, Any]]], fixed: str) -> str:
    """AUPRC by digit of the one score that was named beforehand and of the papers', beside what these report."""
    lengths = sorted({name.partition("/")[2] for name in groups})
    lines = [
        "## AUPRC of a held-out digit",
        "",
        f"| model, score | {' | '.join(map(str, DIGITS))} |",
        "|---|" + "---|" * len(DIGITS),
    ]
    for length in lengths:
        cells = [groups.get(f"digit {digit}/{length}", []) for digit in DIGITS]
        for score in (fixed, OF_PAPERS):
            for model in MODELS:
                shown = [area([row["models"][model][score] for row in of], "auprc") for of in cells]
                mark = "**" if score == fixed else ""
                lines.append(f"| {mark}{model}{mark}, `{score}`, {length} | {' | '.join(shown)} |")
        share = [f"{np.mean([row['prevalence'] for row in of]):.3f}" if of else "" for of in cells]
        floors = [f"{np.mean([r['models']['tilted'][fixed]['floor'] for r in of]):.3f}" if of else "" for of in cells]
        lines += [f"| prevalence = chance, {length} | {' | '.join(share)} |",
                  f"| least attainable, {length} | {' | '.join(floors)} |"]  # fmt: skip
    lines += [f"| published: {name} | {' | '.join(figures)} |" for name, figures in PUBLISHED.items()]
    return "\n".join([*lines, "", SOURCES])


def scores_table(name: str, cells: list[dict[str, Any]], fixed: str) -> str:
    """AUPRC and AUROC of every score under all three models."""
    first = cells[0]
    minutes = [np.mean([c[f"minutes of {of}"] for c in cells]) for of in ("learning", "scores")]
    lines = [
        f"### {name}: {len(cells)} seed{'s' if len(cells) > 1 else ''}",
        "",
        f"Learned from {first['learned from']} images in {minutes[0]:.1f} minutes, both models; {first['n']} judged in "
        f"{minutes[1]:.1f}, prevalence {first['prevalence']:.3f}.",
        "",
        "| score | " + " | ".join(f"AUPRC, {m}" for m in MODELS) + " | " + " | ".join(f"AUROC, {m}" for m in MODELS)
        + " | images | floor |",
        "|---|" + "---|" * 8,
    ]  # fmt: skip
    for score in first["models"]["tilted"]:
        of = lambda model, score=score: [c["models"][model][score] for c in cells if score in c["models"][model]]
        areas = [area(of(model), metric) for metric in ("auprc", "auroc") for model in MODELS]
        told = first["models"]["tilted"][score]
        shown = f"**`{score}`**" if score == fixed else f"`{score}`"
        lines.append(f"| {shown} | {' | '.join(areas)} | {told.get('n', '')} | {told.get('floor', 0.0):.3f} |")
    return "\n".join(lines)


def area(found: list[dict[str, Any]], metric: str) -> str:
    """Mean ± standard deviation over seeds; of one seed, its bootstrap interval."""
    there = [f[metric] for f in found if metric in f]
    if not there:
        return "refused" if found else ""
    values = [a[0] for a in there]
    if len(values) == 1:
        return f"{values[0]:.3f} [{there[0][1]:.3f}, {there[0][2]:.3f}]"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
