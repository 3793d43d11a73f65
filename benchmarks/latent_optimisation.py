"""Designs for Branin's function from data without its best part, under a tilted prior and its untilted twin.

    python benchmarks/latent_optimisation.py --seeds 0 1 2 3 4

Branin's function has three minima of 0.398 on [-5, 10] x [0, 15]. A seed draws 1000 points, evenly, of which the best
tenth is removed, and starts learning; the value that is learned is minus the logarithm of the function. Then 128
designs are drawn for the best value of the data, and 128 for a value one standard deviation above, and the function
itself is evaluated at all of them; of those outside the domain, at the nearest point inside. Beside it: the data, the
best 128 of them, and 128 even draws, which is what chance finds. log p(x, y) is of new points, in standardised units.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell, command

import pplebm

RESULT = Path(__file__).with_suffix(".json")
N_HELD_OUT = 200  # new points, of which those count that are no better than the data
N_DESIGNS, LOW, HIGH = 128, np.array([-5.0, 0.0]), np.array([10.0, 15.0])
page = pplebm.load("latent_optimisation")


def branin(x: np.ndarray) -> np.ndarray:
    """Branin's function, to be minimised, at rows of x."""
    a, b = x[..., 0], x[..., 1]
    bowl = (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Best and median of the function at designs of both models, at the data, and at even draws."""
    rng = np.random.default_rng(seed)
    x, even = rng.uniform(LOW, HIGH, (1000, 2)), rng.uniform(LOW, HIGH, (N_DESIGNS, 2))
    new = rng.uniform(LOW, HIGH, (N_HELD_OUT, 2))
    x = x[np.argsort(branin(x))[100:]]  # the best of the data first
    new = new[branin(new) >= branin(x).min()]
    y = -np.log(branin(x))
    center, scale, mean, spread = x.mean(0), x.std(0), y.mean(), y.std()
    as_data = lambda x: page.as_data((x - center) / scale, (-np.log(branin(x)) - mean) / spread)
    data, held_out, told = as_data(x), as_data(new), lambda a: {"best": branin(a).min(), "median": np.median(branin(a))}
    row: dict[str, Any] = {"data": told(x), "best 128 of the data": told(x[:N_DESIGNS]), "even draws": told(even)}
    for name, tilted in (("tilted", True), ("twin", False)):
        with tempfile.TemporaryDirectory() as folder:
            run = pplebm.fit("latent_optimisation", data, algorithm, f"{folder}/run", updates=updates, seed=seed,
                             hyper={"tilted": tilted}, backend=backend, progress=False)  # fmt: skip
            for words, above in (("best value", 0.0), ("best value + 1 sd", 1.0)):
                asked = page.wanted(np.full(4, data["y"].max() + above), (2,))
                program = run.program.with_coordinates("noncentered")
                draws = pplebm.sample(program, data=asked, n_chains=N_DESIGNS // 4, n_draws=1, n_warmup=1000, seed=seed,
                                      progress=False)  # fmt: skip
                designs = center + scale * pplebm.predictive(draws, mean=True)["x"].reshape(-1, 2)
                value = branin(designs.clip(LOW, HIGH))
                outside = ((designs < LOW) | (designs > HIGH)).any(-1).mean()
                row[f"{name}, {words}"] = {"best": value.min(), "median": np.median(value), "outside": outside}
            log_z, log_p = run.log_z(progress=False), run.log_evidence(held_out, progress=False)
            row[name] = {"log Z": log_z.value[0], "log Z, error": log_z.error[0], "log p(x, y)": log_p.value.mean(),
                         "rows": len(new), "error": log_p.value.std() / len(new) ** 0.5,
                         "Monte Carlo error": np.sqrt((log_p.error**2).mean()),
                         "trusted": log_p.is_trusted.mean()}  # fmt: skip
    return {name: {k: float(v) for k, v in part.items()} for name, part in row.items()}


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | best | median |", "|---|---:|---:|"]
    for name, part in next(iter(rows.values())).items():
        if "best" in part:
            told = [cell((row[name][figure] for row in rows.values()), 2) for figure in ("best", "median")]
            lines.append(f"| {name} | {' | '.join(told)} |")
    for name in ("tilted", "twin"):
        log_p = cell(row[name]["log p(x, y)"] for row in rows.values() if "log p(x, y)" in row[name])
        lines.append(f"| log p(x, y), {name}: {log_p} | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2, 3, 4], None, "noise_contrastive")
