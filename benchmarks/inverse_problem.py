"""Digits from what instruments leave of them: error and coverage of posteriors under a learned generator.

    python benchmarks/inverse_problem.py --seeds 0 1 2 --backend pyro

A seed draws the 20 % of scikit-learn's digits that are held out, and learns a `latent_ebm` from the rest. Of every
operator there are images of the model (draws of the tilted prior through the generator) and held-out digits; y has the
noise of 0.1, and the model's σ has besides it what the generator's own σ of 0.3 makes of y. Chains are those of
`pplebm.sample` in noise space; flows, of the images of the model alone, those of `sample_flow`. Error: root mean square
over pixels of the posterior mean, images in [-1, 1]. Coverage: share of pixels in their 90 % intervals, for held-out
digits of x with the generator's σ. Beside it the mean image, and what is best under a Gaussian law of images with mean
and covariance of the training digits, for linear operators. The picture is of held-out digits of seed 0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from seeded import cell, command
from sklearn.datasets import load_digits

import pplebm
from pplebm.learning.flow_draws import sample_flow
from pplebm.networks.operators import measured
from pplebm.report.figures import tiled

RESULT = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "inverse_problem.png"
OPERATORS: dict[str, dict[str, Any]] = {
    "mask": {"share": 0.5}, "blur": {"spread": 1.0}, "downsample": {"factor": 2}, "projection": {"share": 0.25},
    "phase": {}, "heat": {"spread": 0.5},
}  # fmt: skip
N, NOISE, SIGMA = 8, 0.1, 0.3  # images of either kind; noise of y; the generator's σ
page = pplebm.load("inverse_problem")


def coverage(draws: np.ndarray, x: np.ndarray) -> float:
    """Share of the numbers of x in 90 % intervals of draws, (draws, *x.shape)."""
    low, high = np.quantile(draws, (0.05, 0.95), axis=0)
    return float(((x > low) & (x < high)).mean())


def error(mean: np.ndarray, x: np.ndarray) -> float:
    """Root mean squared error over images and pixels."""
    return float(((mean - x) ** 2).mean() ** 0.5)


def gaussian_mean(train: np.ndarray, matrix: np.ndarray, y: np.ndarray, noise: float) -> np.ndarray:
    """Posterior mean of images whose law is Gaussian, with the moments of the training images."""
    flat = train.reshape(len(train), -1)
    covariance = np.cov(flat.T)
    gain = covariance @ matrix.T @ np.linalg.inv(matrix @ covariance @ matrix.T + noise**2 * np.eye(len(matrix)))
    return (flat.mean(0) + (y - flat.mean(0) @ matrix.T) @ gain.T).reshape(-1, 8, 8)


def problem(
    rng: np.random.Generator, name: str, train: np.ndarray, x: np.ndarray, n: int, seed: int
) -> tuple[dict[str, Any], Any, np.ndarray]:
    """Hyperparameters of an operator with the σ of y, the operator, and y of images, of which the first n are drawn."""
    hyper = {"operator": name, "operator_seed": seed, **OPERATORS[name]}
    instrument, some = page.instrument(page.Hyper()._replace(**hyper)), train[:400]
    moved = measured(instrument, some + SIGMA * rng.normal(size=some.shape)) - measured(instrument, some)
    sigma = float((NOISE**2 + (moved**2).mean()) ** 0.5)
    clean = measured(instrument, x)
    y = clean + np.where(np.arange(len(x)) < n, sigma, NOISE)[:, None] * rng.normal(size=clean.shape)
    return hyper | {"sigma": sigma}, instrument, y


def solved(
    run: Any, name: str, train: np.ndarray, x: np.ndarray, seed: int, backend: str
) -> tuple[dict[str, float], Any]:
    """Figures of an operator, of images of which the first N are of the model; and what a picture shows."""
    rng = np.random.default_rng([seed, len(name)])
    hyper, instrument, y = problem(rng, name, train, x, N, seed)
    sigma = hyper["sigma"]
    bound = pplebm.bind(page, backend, shape={"y": y.shape[1:]}, **hyper)
    program = pplebm.Program(bound, data={"y": y[:2]}).with_params(run.params).with_coordinates("noncentered")
    draws = pplebm.sample(program, data={"y": y}, n_chains=4, n_draws=50, n_warmup=200, seed=seed,
                          progress=False)["x"].reshape(-1, *x.shape)  # fmt: skip
    flow = sample_flow(program, {"y": y[:N]}, n_draws=200, n_updates=300, seed=seed).values["x"][0]
    seen = draws + SIGMA * rng.normal(size=draws.shape)
    mean, average = draws.mean(0), np.broadcast_to(train.mean(0), x.shape)
    own, real = slice(None, N), slice(N, None)
    found = {"sigma": sigma, "numbers": y.shape[1], "error, chains": error(mean[own], x[own]),
             "coverage, chains": coverage(draws[:, own], x[own]), "error, flow": error(flow.mean(0), x[own]),
             "coverage, flow": coverage(flow, x[own]), "error, mean image": error(average[own], x[own]),
             "error, chains, digits": error(mean[real], x[real]),
             "coverage, chains, digits": coverage(seen[:, real], x[real]),
             "error, mean image, digits": error(average[real], x[real])}  # fmt: skip
    if instrument.imaginary is None:
        linear = gaussian_mean(train, instrument.real, y, NOISE)
        found |= {"error, Gaussian": error(gaussian_mean(train, instrument.real, y, sigma)[own], x[own]),
                  "error, Gaussian, digits": error(linear[real], x[real])}  # fmt: skip
    return found, (mean[N : N + 6], draws.std(0)[N : N + 6])


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """All operators under the model of one seed."""
    images = load_digits().images / 8.0 - 1.0
    images = images[np.random.default_rng(seed).permutation(len(images))]
    train, digits = images[360:], images[:N]
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit("latent_ebm", train, algorithm, f"{folder}/run", updates=updates, seed=seed, scaling="none",
                         backend=backend, held_out_fraction=0.0, compiled=False, progress=False)  # fmt: skip
        prior = pplebm.sample_prior(run.program.with_coordinates("noncentered"), n_chains=N, n_draws=1, n_warmup=500,
                                    seed=seed, progress=False)  # fmt: skip
        x = np.concatenate([pplebm.predictive(prior, mean=True)["x"][:, 0], digits])
        row, shown = {}, {}
        for name in OPERATORS:
            row[name], shown[name] = solved(run, name, train, x, seed, backend)
    if seed == 0:
        picture(digits[:6], shown, PICTURE)
    return row


def picture(truth: np.ndarray, shown: dict[str, Any], path: Path) -> None:
    """Held-out digits, and below them posterior means and standard deviations, by what is shown."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    axes[0].imshow(tiled(truth, 3, -1.0, 1.0))
    axes[0].set_title("held-out digits")
    for axis, (name, (mean, spread)) in zip(axes[1:], shown.items(), strict=False):
        axis.imshow(tiled(np.concatenate([mean, 2.0 * spread - 1.0]), 3, -1.0, 1.0))
        axis.set_title(name)
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    names = list(next(iter(rows.values()))["mask"])
    lines = ["| | " + " | ".join(OPERATORS) + " |", "|---|" + "---:|" * len(OPERATORS)]
    for figure in names:
        cells = [cell(row[o][figure] for row in rows.values()) if figure in next(iter(rows.values()))[o] else ""
                 for o in OPERATORS]  # fmt: skip
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 800, "variational_joint")
