"""Sequences of twelve letters with a property that is known: designs in three rounds, against data and chance.

    python benchmarks/sequence_design.py --seeds 0 1 2

The property is a sum over neighbours, a number for every pair of the four letters, drawn once for all seeds; its
largest value over all 4^12 sequences is known by dynamic programming. A seed draws 500 even sequences, of which the
best tenth is removed, and starts learning. In each of three rounds the model is learned anew, 100 sequences are drawn
for a property half a standard deviation above the best there is, the property itself is computed of them, and all are
added to the data. Beside them: the best of the data, and as many even sequences, which is what chance finds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell, command

import pplebm

RESULT = Path(__file__).with_suffix(".json")
LETTERS, LENGTH, N_ROUNDS, N_DESIGNS, ABOVE = 4, 12, 3, 100, 0.5
PAIRS = np.random.default_rng(2024).normal(size=(LETTERS, LETTERS))  # of the property
HYPER = {"symbols": LETTERS + 1, "units": 32}
page = pplebm.load("sequence_design")


def value(x: np.ndarray) -> np.ndarray:
    """The property of sequences of letters 1..4, (..., 12); of one that ends before, as far as it goes."""
    pairs = PAIRS[x[..., :-1] - 1, x[..., 1:] - 1]
    return np.where((x[..., :-1] > 0) & (x[..., 1:] > 0), pairs, 0.0).sum(-1)


def optimum() -> float:
    """Largest property of all sequences.

    >>> every = np.stack([a.ravel() for a in np.meshgrid(*[np.arange(1, 5)] * 4)], 1)
    >>> best = np.zeros(LETTERS)
    >>> for _ in range(3):
    ...     best = (best[:, None] + PAIRS).max(0)
    >>> bool(np.isclose(best.max(), value(every).max()))
    True
    """
    best = np.zeros(LETTERS)
    for _ in range(LENGTH - 1):
        best = (best[:, None] + PAIRS).max(0)
    return float(best.max())


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Best and median of the property of designs, round by round, of the data, and of even sequences."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(1, LETTERS + 1, size=(n, LENGTH))
    x, even = draw(500), draw(N_ROUNDS * N_DESIGNS)
    x = x[np.argsort(-value(x))[50:]]  # the best first
    told = lambda x: {"best": float(value(x).max()), "median": float(np.median(value(x)))}
    row: dict[str, Any] = {"optimum": {"best": optimum()}, "data": told(x), "even sequences": told(even)}
    for turn in range(1, N_ROUNDS + 1):
        y = value(x)
        center, scale = y.mean(), y.std()
        with tempfile.TemporaryDirectory() as folder:
            run = pplebm.fit("sequence_design", page.known(x, (y - center) / scale), algorithm, f"{folder}/run",
                             updates=updates, seed=seed, hyper=HYPER, backend=backend, progress=False)  # fmt: skip
            asked = page.wanted(np.full(4, (y.max() - center) / scale + ABOVE), LENGTH)
            draws = pplebm.sample(run.program, data=asked, n_chains=N_DESIGNS // 4, n_draws=1, n_warmup=200,
                                  seed=seed, progress=False)  # fmt: skip
            designs = pplebm.predictive(draws, seed=seed)["x"].reshape(-1, LENGTH)
        row[f"round {turn}"] = told(designs) | {"new": len(np.unique(designs, axis=0))}
        x = np.concatenate([x, designs])
    return row


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds; higher is better."""
    lines = ["| | best | median |", "|---|---:|---:|"]
    for name, part in next(iter(rows.values())).items():
        told = [cell((row[name][figure] for row in rows.values()), 2) if figure in part else ""
                for figure in ("best", "median")]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 300, "variational_joint")
