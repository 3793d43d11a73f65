"""Digits given their labels, and labels given digits by Bayes' rule, with a tilt and a constant for every label.

    python benchmarks/conditional_ebm.py --seeds 0 1 2

A seed draws the 20 % of scikit-learn's digits that are held out, and starts learning. log p(x | c) is estimated for the
first 40 of them and every label, and p(c | x) follows with equal shares. Beside it a support vector machine on the same
rows. The twin has no tilt, and so does not read the label: it cannot tell one from another. Of two layers, the second
of 8 latents, with a tilt each, log p(x | c) is estimated at the image's own label alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell, command
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import pplebm

RESULT = Path(__file__).with_suffix(".json")
N_HELD_OUT = 40  # images that are asked about, at ten labels each
PER_LABEL = 100  # images drawn given every label
FIGURES = {
    "log p(x | label)": "nats per held-out image, at its own label",
    "label of the image": "share of the held-out images whose likeliest label is right",
    "log p(label | x)": "nats per held-out image",
    "image of the label": "share of the images drawn given a label that show it, by the support vector machine",
}
page = pplebm.load("conditional_ebm")


def digits(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and held-out images with their labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    part = lambda rows: {"x": images[rows].reshape(-1, 8, 8) / 8.0 - 1.0, "label": labels[rows].astype(int)}
    return part(order[360:]), part(order[:N_HELD_OUT])


def figures(run: Any, some: dict[str, np.ndarray], machine: Any, seed: int, tilted: bool) -> dict[str, Any]:
    """Of one model, by name; means over images, and their standard errors."""
    n, every = len(some["x"]), page.with_every_label(some["x"], 10)
    evidence = run.log_evidence(every if tilted else some, progress=False, seed=seed)
    by_label = (evidence.value if tilted else np.tile(evidence.value, 10)).reshape(10, n)
    own, chances = by_label[some["label"], np.arange(n)], page.class_probabilities(by_label.ravel(), np.full(10, 0.1))
    log_chance = np.log(chances[np.arange(n), some["label"]])
    given = {"x": np.zeros((10, 8, 8)), "label": np.arange(10)}
    prior = pplebm.sample_prior(run.program.with_coordinates("noncentered"), given=given if tilted else None,
                                n_chains=PER_LABEL if tilted else 10 * PER_LABEL, n_draws=1, n_warmup=300, seed=seed,
                                progress=False)  # fmt: skip
    drawn = pplebm.predictive(prior, mean=True)["x"].reshape(-1, 10, 64)
    shown = machine.predict(drawn.reshape(-1, 64)).reshape(-1, 10) == np.arange(10)
    log_z = run.log_z(given if tilted else None, progress=False)
    return {
        "log p(x | label)": own.mean(),
        "log p(x | label), error": own.std() / n**0.5,
        "log p(x | label), Monte Carlo error": np.sqrt((evidence.error**2).mean()),
        "trusted": evidence.is_trusted.mean(),
        "label of the image": (chances.argmax(1) == some["label"]).mean() if tilted else 0.1,
        "log p(label | x)": log_chance.mean(),
        "log p(label | x), error": log_chance.std() / n**0.5,
        "image of the label": shown.mean(),
        "log Z": log_z.value.tolist(),
        "log Z, error": log_z.error.tolist(),
    }


def two_layers(train: Any, some: dict[str, np.ndarray], seed: int, updates: int, algorithm: str, backend: str) -> Any:
    """Figures of a joint prior given the label."""
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit("conditional_ebm", train, algorithm, f"{folder}/run", updates=updates, seed=seed,
                         hyper={"latent_dims": (16, 8)}, backend=backend, progress=False)  # fmt: skip
        found = run.log_evidence(some, progress=False, seed=seed)
    return {
        "log p(x | label)": found.mean,
        "log p(x | label), Monte Carlo error": float((found.error**2).mean() ** 0.5),
        "trusted": float(found.is_trusted.mean()),
    }


def compare(seed: int, updates: int, algorithm: str, backend: str) -> dict[str, Any]:
    """The tilted model and its twin on one split."""
    train, held_out = digits(seed)
    machine = SVC().fit(train["x"].reshape(-1, 64), train["label"])
    row: dict[str, Any] = {"machine": (machine.predict(held_out["x"].reshape(-1, 64)) == held_out["label"]).mean()}
    for name, tilted in (("tilted", True), ("twin", False)):
        with tempfile.TemporaryDirectory() as folder:
            run = pplebm.fit("conditional_ebm", train, algorithm, f"{folder}/run", updates=updates, seed=seed,
                             hyper={"tilted": tilted}, backend=backend, progress=False)  # fmt: skip
            row[name] = figures(run, held_out, machine, seed, tilted)
    return row | {"two layers": two_layers(train, held_out, seed, updates, algorithm, backend)}


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | tilted | twin |", "|---|---:|---:|"]
    for name in FIGURES:
        cells = []
        for model in ("tilted", "twin"):
            cells.append(cell(row[model][name] for row in rows.values()))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    own, label, cells = "log p(x | label)", "log p(label | x)", []
    for model in ("tilted", "twin"):  # p(x) = p(c) p(x | c) / p(c | x)
        cells.append(cell(row[model][own] - np.log(10.0) - row[model][label] for row in rows.values()))
    lines.append(f"| log p(x) | {' | '.join(cells)} |")
    layers = cell(row["two layers"]["log p(x | label)"] for row in rows.values())
    return "\n".join([*lines, f"| two layers: nats at the label | {layers} |  |"])


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 2000, "variational_joint")
