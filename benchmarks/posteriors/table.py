"""The table of posteriordb: pplebm beside NUTS, what misses the aims and why, and what was run."""

from __future__ import annotations

from typing import Any

import numpy as np

from posteriors.runs import CHAINS, DRAWS, WARMUP, Task

Row = dict[str, Any]
R_HAT, OFF, BEHIND = 1.01, 4.0, 0.75  # aims of every row: R-hat below, offsets within, ESS per gradient at least
NOT_RUN = {  # posterior and language, or posterior and precision
    ("lotka_volterra", "pyro"): "thousands of operations a gradient, each a call of its own; NumPyro compiles them",
    (
        "gp_pois_regr",
        "float32",
    ): "in seven digits the covariance matrix has no Cholesky factor at 41 of 100 reference draws",
}
EXPLAINED = {  # posterior whose rows miss an aim -> why
    "eight_schools_centered": "a funnel in these coordinates, whose neck no one step size fits; noncentered it is none",
}


def misses(row: Row, ratio: float | None) -> list[str]:
    """Aims that a row does not reach."""
    found = []
    if not row["r_hat"] < R_HAT:
        found.append("R-hat")
    found += [f"an {kind}" if kind == "sd" else f"a {kind}" for kind in ("mean", "sd") if not row[f"{kind}_off"] <= OFF]
    if ratio is not None and ratio < BEHIND:
        found.append("ESS per gradient")
    return found


def per_gradient(row: Row) -> float:
    """ESS per 1000 gradients after warm-up."""
    return 1000.0 * row["ess"] / row["gradients"]


def table(rows: dict[str, Row]) -> str:
    """Markdown: pplebm's rows beside NUTS's, the geometric means, NUTS by itself, and what was run."""
    split = {Task(*key.split("/")): row for key, row in sorted(rows.items())}
    ours = {task: row for task, row in split.items() if task.sampler == "pplebm"}
    nuts = {task: row for task, row in split.items() if task.sampler == "nuts"}
    numpyro = {task.posterior: row for task, row in nuts.items() if task.backend == "numpyro"}
    ratios = {
        t: per_gradient(r) / per_gradient(numpyro[t.posterior]) for t, r in ours.items() if t.posterior in numpyro
    }
    lines = [*_beside(ours, numpyro, ratios), "", *_means(ratios), "", *_alone(nuts), "", _said(split)]
    return "\n".join(lines) + "\n"


def _beside(ours: dict[Task, Row], nuts: dict[str, Row], ratios: dict[Task, float]) -> list[str]:
    lines = [
        "| posterior | language | precision | R-hat | mean off, errors | sd off, errors | ESS | ESS / 1000 gradients | "
        "NUTS' | ratio | ESS / s | NUTS' | divergent | misses, and why |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for task, r in ours.items():
        other, missed = nuts.get(task.posterior), misses(r, ratios.get(task))
        why = f"{', '.join(missed)}: {EXPLAINED.get(task.posterior, 'not explained')}" if missed else ""
        theirs = f"{per_gradient(other):.1f}" if other else ""
        rate = f"{other['ess'] / other['seconds']:,.0f}" if other else ""
        ratio = f"{ratios[task]:.2f}" if task in ratios else ""
        lines.append(
            f"| {task.posterior} | {task.backend} | {task.precision} | {r['r_hat']:.3f} | {r['mean_off']:.1f} | "
            f"{r['sd_off']:.1f} | {r['ess']:,.0f} | {per_gradient(r):.1f} | {theirs} | {ratio} | "
            f"{r['ess'] / r['seconds']:,.0f} | {rate} | {r['divergent']} | {why} |"
        )
    return lines


def _means(ratios: dict[Task, float]) -> list[str]:
    groups: dict[tuple[str, str], list[float]] = {}
    for task, ratio in ratios.items():
        groups.setdefault((task.backend, task.precision), []).append(ratio)
    return [
        f"{backend}, {precision}: {np.exp(np.mean(np.log(found))):.2f} times NumPyro's NUTS in ESS per gradient, the "
        f"geometric mean of {len(found)} posteriors; {min(found):.2f} at least."
        for (backend, precision), found in groups.items()
    ]


def _alone(nuts: dict[Task, Row]) -> list[str]:
    lines = [
        "| NUTS on | of | R-hat | mean off, errors | sd off, errors | ESS | ESS / 1000 gradients | ESS / s | "
        "gradients | of warm-up | divergent | seconds | prepared, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for task, r in nuts.items():
        lines.append(
            f"| {task.posterior} | {task.backend} | {r['r_hat']:.3f} | {r['mean_off']:.1f} | {r['sd_off']:.1f} | "
            f"{r['ess']:,.0f} | {per_gradient(r):.1f} | {r['ess'] / r['seconds']:,.0f} | {r['gradients']:,} | "
            f"{r['warmup_gradients']:,} | {r['divergent']} | {r['seconds']:.1f} | {r['prepared']:.1f} |"
        )
    return lines


def _said(rows: dict[Task, Row]) -> str:
    """What was run, and how the figures are meant."""
    n = sum(2 * len(row["quantities"]) for row in rows.values())
    machines = sorted({f"{r['machine']['cpu']}, {r['machine']['cores']} cores" for r in rows.values()})
    busy = max((row.get("others_load") or 0.0 for row in rows.values()), default=0.0)
    seeds = sorted({row["seed"] for row in rows.values()})
    left_out = "; ".join(f"{name} in {where} ({why})" for (name, where), why in NOT_RUN.items())
    return (
        "Every posterior as its Stan program declares it: published columns, flat priors, the supports' own "
        "coordinates. pplebm: `pplebm.sample(program, data=y)`, nothing set. NUTS: the host's at its defaults, "
        f"float64, on the same program, a chain at a time. Both: {CHAINS} chains of {WARMUP} + {DRAWS}; seeds {seeds}. "
        "NUTS beside pplebm is NumPyro's in float64. ESS is the smallest over all quantities of bulk and tail, R-hat "
        "and offsets are the largest; offsets in Monte Carlo errors of both runs together, the reference's with ours. "
        "Gradients are those after warm-up; seconds include warm-up and leave out tracing and compilation, told as "
        f"`prepared`. Aims: R-hat < {R_HAT}, offsets within {OFF:.0f}, ESS per gradient at least {BEHIND} of NUTS. "
        f"{n} means and sds in all; of so many standard normal numbers the largest is expected near "
        f"{np.sqrt(2 * np.log(max(n, 2))):.1f}. {'; '.join(machines)}; others kept up to {busy:.1f} cores busy "
        f"meanwhile. Not run: {left_out}."
    )
