"""Digits turned by an angle: what they are is learned at known angles, and the angle of new ones is inferred.

    python benchmarks/posed_scene.py --seeds 0 1 2

Scikit-learn's digits 2, 3, 4, 5 and 7, each turned by an even angle of its own (bilinear, about the center of an 8 x 8
image). A seed draws the split, the angles, and where learning starts; the angle is a covariate in learning. Of the
first held-out images log p(x given angle) is estimated at angles 15 degrees apart; with an even angle these give
log p(x), and by Bayes' rule the posterior of the angle, whose likeliest values are compared with the truth.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import rotate
from scipy.special import logsumexp
from seeded import cell, command
from sklearn.datasets import load_digits

import pplebm

RESULT = Path(__file__).with_suffix(".json")
N_HELD_OUT, N_ANGLES = 16, 24  # images that are asked about, and at how many angles each
GRID = 2 * np.pi * np.arange(N_ANGLES) / N_ANGLES
FIGURES = {
    "log p(x | angle)": "nats per held-out image, at its own angle",
    "log p(x)": "nats per held-out image, over an even angle",
    "median error": "degrees between the truth and the likeliest angle",
    "within 30 degrees": "share of the images whose likeliest angle is",
    "coverage": "share of the images whose angle is among the likeliest that make up 90 % of the posterior",
    "width": "degrees that these angles take of the circle",
    "log p(angle | x)": "nats per image of the posterior on the grid, at the angle of the grid next to the truth",
}
page = pplebm.load("posed_scene")


def digits(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Training images with directions, held-out images, and their angles."""
    images, labels = load_digits(return_X_y=True)
    images = images[np.isin(labels, [2, 3, 4, 5, 7])].reshape(-1, 8, 8) / 16.0
    rng = np.random.default_rng(seed)
    images, angle = images[rng.permutation(len(images))], rng.uniform(0.0, 2 * np.pi, len(images))
    turn = lambda a, t: rotate(a, np.degrees(t), reshape=False, order=1)
    x = np.stack([turn(a, t) for a, t in zip(images, angle, strict=True)]).astype(np.float32)
    train = {"x": x[200:], "direction": page.as_direction(angle[200:]).astype(np.float32)}
    return train, x[:N_HELD_OUT], angle[:N_HELD_OUT]


def figures(run: Any, x: np.ndarray, angle: np.ndarray, seed: int) -> dict[str, Any]:
    """Of one model, by name; means over images."""
    n = len(x)
    own = run.log_evidence({"x": x, "direction": page.as_direction(angle)}, progress=False, seed=seed)
    every = {"x": np.tile(x, (N_ANGLES, 1, 1)), "direction": np.repeat(page.as_direction(GRID), n, 0)}
    by_angle = run.log_evidence(every, progress=False, seed=seed)
    log_p = by_angle.value.reshape(N_ANGLES, n)
    log_chance = log_p - logsumexp(log_p, axis=0)
    off = np.degrees(np.abs(np.angle(np.exp(1j * (GRID[log_chance.argmax(0)] - angle)))))
    next_to = np.abs(np.angle(np.exp(1j * (GRID[:, None] - angle)))).argmin(0)
    order = np.argsort(-log_chance, axis=0)
    chance = np.take_along_axis(np.exp(log_chance), order, 0)
    counts = (chance.cumsum(0) - chance < 0.9).sum(0)  # angles of the smallest set with 90 %
    place = (order == next_to).argmax(0)
    total = logsumexp(log_p, axis=0) - np.log(N_ANGLES)
    return {
        "log p(x | angle)": own.value.mean(),
        "log p(x | angle), error": own.value.std() / n**0.5,
        "log p(x)": total.mean(),
        "log p(x), error": total.std() / n**0.5,
        "Monte Carlo error": np.sqrt((by_angle.error**2).mean()),
        "trusted": by_angle.is_trusted.mean(),
        "median error": np.median(off),
        "within 30 degrees": (off < 30.0).mean(),
        "coverage": (place < counts).mean(),
        "width": counts.mean() * 360.0 / N_ANGLES,
        "log p(angle | x)": log_chance[next_to, np.arange(n)].mean(),
    }


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """The tilted model and its twin on one split."""
    train, x, angle = digits(seed)
    row: dict[str, Any] = {}
    for name, tilted in (("tilted", True), ("twin", False)):
        with tempfile.TemporaryDirectory() as folder:
            run = pplebm.fit("posed_scene", train, algorithm, f"{folder}/run", updates=updates, seed=seed,
                             hyper={"tilted": tilted}, backend=backend, progress=False)  # fmt: skip
            row[name] = {key: float(value) for key, value in figures(run, x, angle, seed).items()}
    return row


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | tilted | twin |", "|---|---:|---:|"]
    for name in FIGURES:
        cells = [cell((row[model][name] for row in rows.values()), 2) for model in ("tilted", "twin")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 1500, "variational_joint")
