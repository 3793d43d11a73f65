"""Short runs with learned and with fixed step sizes, and a guide, on one generator: digits of scikit-learn.

    python benchmarks/multi_layer_generator.py --seeds 0 1 2

One generator, two layers of 16 and 8 noises, learns from 80 % of the images by short runs of 25 steps whose sizes are
learned, by short runs whose size stays 0.1 (where the other's begin), both by `short_run_learned_step`, and by
`variational_joint`, whose guide takes the place of the run. A seed draws the split and starts learning. Then, of the
held-out images: the squared error of a pixel in [-1, 1] when an image is reconstructed by the very run or guide that
was learned with, one draw each; and log p(x), by annealing, which knows of no short run. Beside the error, that of
the mean training image.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell, command

import pplebm
from pplebm.data import load

RESULT = Path(__file__).with_suffix(".json")
N_EVIDENCE = 60  # held-out images whose log p(x) is estimated
SHORT = ("short_run_learned_step", 1.0)  # page, and the factor of its updates
FIGURES = {"reconstruction": 4, "log p(x)": 2, "step_size, noise1": 3, "step_size, noise2": 3}  # and their digits
WAYS = {
    "learned step sizes": (*SHORT, {}),
    "step size 0.1": (*SHORT, {"step_rate": 0.0}),
    "guide": ("variational_joint", 4.0, {}),  # updates that cost less, so more of them
}


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Every way on one split."""
    row: dict[str, Any] = {}
    for way, (page, factor, hyper) in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            n = None if updates is None else round(factor * updates)
            run = pplebm.fit("multi_layer_generator", "digits", page, f"{folder}/run", updates=n, seed=seed,
                             hyper=hyper, backend=backend, progress=False)  # fmt: skip
            x = run.held_out()
            model = lambda a, run=run: run.scaling.to_model(a)
            error = (model(run.reconstruct(x, seed=seed)) - model(x)) ** 2
            log_p = run.log_evidence(x[:N_EVIDENCE], progress=False)
            there = log_p.value[log_p.is_trusted]
            row[way] = {"reconstruction": error.mean(), "log p(x)": there.mean(), "rows": len(there),
                        "error": there.std() / len(there) ** 0.5,
                        "Monte Carlo error": np.sqrt((log_p.error[log_p.is_trusted] ** 2).mean()),
                        "updates": run.manifest.updates}  # fmt: skip
            if page == SHORT[0]:
                sizes = {n: np.exp(np.asarray(p)) for n, p in _of_state(run).items()}
                row[way] |= sizes
    data = load("digits", seed=seed)
    row["mean image"] = {"reconstruction": ((data.held_out - data.train.mean(0)) ** 2).mean()}
    return {name: {k: float(v) for k, v in part.items()} for name, part in row.items()}


def _of_state(run: Any) -> dict[str, Any]:
    """Logarithms of the learned step sizes, by name."""
    return {name.replace(".", ", "): p for name, p in run.params.items() if name.startswith("step_size.")}


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | reconstruction | log p(x) | step size of ε1 | of ε2 |", "|---|---:|---:|---:|---:|"]
    for way in next(iter(rows.values())):
        told = []
        for figure, digits in FIGURES.items():
            there = [row[way][figure] for row in rows.values() if figure in row[way]]
            told.append(cell(there, digits) if there else "")
        lines.append(f"| {way} | {' | '.join(told)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 300, "short_run_learned_step")
