"""Coherence of three views of handwritten digits under a tilted prior, and under its untilted twin.

    python benchmarks/multimodal_ebm.py --seeds 0 1 2

A row has an image of scikit-learn's digits, another image of the same digit, turned by 90 degrees and inverted, and its
label as a vector with a single 1. A seed draws the 20 % of the images that are held out (pairs are made within a part),
and starts learning. Classifiers (support vector machines) that say which digit a drawn image shows are fitted to the
training images; how often they are right on real held-out images is given beside. Draws are by chains that accept and
reject; means of x given z stand for drawn images.
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
N_HELD_OUT = 120  # rows that are asked about
FIGURES = {
    "three agree": "drawn from the prior, image, label and other image show one digit",
    "images agree": "drawn from the prior, both images show one digit",
    "image to other": "the other image, drawn given the image, shows its digit",
    "label to image": "the image, drawn given the label, shows it",
    "image to label": "the likeliest label given the image is right",
    "log p(label | image)": "nats per row, the mean over the posterior of z given the image",
    "log p(all)": "nats per row, by annealing",
}
page = pplebm.load("multimodal_ebm")


def views(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and held-out rows."""
    images, labels = load_digits(return_X_y=True)
    images, rng = images.reshape(-1, 8, 8) / 8.0 - 1.0, np.random.default_rng(seed)
    order, parts = rng.permutation(len(images)), []
    for rows in (order[360:], order[:360]):
        partner = np.empty(len(rows), int)
        for digit in range(10):
            of_digit = np.flatnonzero(labels[rows] == digit)
            partner[of_digit] = np.roll(of_digit, 1)  # in random order: never an image with itself
        other = -np.rot90(images[rows][partner], axes=(1, 2))
        parts.append({"image": images[rows], "label": np.eye(10)[labels[rows]], "other": other})
    return parts[0], {name: a[:N_HELD_OUT] for name, a in parts[1].items()}


def given(run: Any, some: dict[str, np.ndarray], seen: str, seed: int) -> dict[str, np.ndarray]:
    """Means of views given those that are seen: (draws, rows, ...)."""
    data = page.masked(some, (seen,), ("label",))
    program = run.program.with_coordinates("noncentered")
    draws = pplebm.sample(program, data=data, n_chains=4, n_draws=25, n_warmup=200, thin=2, seed=seed, progress=False)
    return {name: a.reshape(-1, *a.shape[2:]) for name, a in pplebm.predictive(draws, mean=True).items()}


def figures(run: Any, some: dict[str, np.ndarray], digit_of: Any, seed: int) -> dict[str, float]:
    """Of one model, by name; standard errors of the log densities are over rows."""
    truth, found, rng = some["label"].argmax(-1), {}, np.random.default_rng(seed)
    prior = pplebm.sample_prior(run.program.with_coordinates("noncentered"), n_chains=500, n_draws=4, n_warmup=300,
                                thin=20, seed=seed, progress=False)  # fmt: skip
    drawn = {name: a.reshape(-1, *a.shape[2:]) for name, a in pplebm.predictive(prior, mean=True).items()}
    label = (drawn["label"].cumsum(-1) < rng.random((len(drawn["label"]), 1))).sum(-1)
    image, other = digit_of("image", drawn["image"]), digit_of("other", drawn["other"])
    found["three agree"], found["images agree"] = ((image == other) & (image == label)).mean(), (image == other).mean()
    by_image, by_label = given(run, some, "image", seed), given(run, some, "label", seed)
    found["image to other"] = np.mean([digit_of("other", a) == truth for a in by_image["other"]])
    found["label to image"] = np.mean([digit_of("image", a) == truth for a in by_label["image"]])
    probabilities = by_image["label"].mean(0)
    found["image to label"] = (probabilities.argmax(-1) == truth).mean()
    log_p = np.log((probabilities * some["label"]).sum(-1))
    evidence = run.log_evidence(page.masked(some, None, ("label",)), progress=False)
    there = evidence.value[evidence.is_trusted]
    for name, value in (("log p(label | image)", log_p), ("log p(all)", there)):
        found |= {name: value.mean(), f"{name}, error": value.std() / len(value) ** 0.5, f"{name}, rows": len(value)}
    found["log p(all), Monte Carlo error"] = float((evidence.error[evidence.is_trusted] ** 2).mean() ** 0.5)
    return {name: float(a) for name, a in found.items()}


def compare(seed: int, updates: int, algorithm: str, backend: str) -> dict[str, Any]:
    """The tilted model and its twin on one split."""
    train, held_out = views(seed)
    machines = {name: SVC().fit(train[name].reshape(-1, 64), train["label"].argmax(-1)) for name in ("image", "other")}
    digit_of = lambda name, a: machines[name].predict(a.reshape(-1, 64))
    truth, row = held_out["label"].argmax(-1), {}
    row["classifier"] = {name: float((digit_of(name, held_out[name]) == truth).mean()) for name in machines}
    for tilted in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            hyper = {"tilted": tilted, "one_hot": ("label",)}
            run = pplebm.fit("multimodal_ebm", page.masked(train, None, ("label",)), algorithm, f"{folder}/run",
                             updates=updates, seed=seed, hyper=hyper, backend=backend, progress=False)  # fmt: skip
            name = "tilted" if tilted else "twin"
            row[name] = figures(run, held_out, digit_of, seed)
            log_z = run.log_z(progress=False)
            row[name] |= {"log Z": float(log_z.value[0]), "log Z, error": float(log_z.error[0])}
    return row


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | tilted | twin |", "|---|---:|---:|"]
    for name in (*FIGURES, "log Z"):
        cells = []
        for model in ("tilted", "twin"):
            cells.append(cell(row[model][name] for row in rows.values()))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 2000, "variational_joint")
