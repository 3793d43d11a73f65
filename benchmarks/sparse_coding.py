"""Atoms of sparse codes with zeros: bars found again, and patches of photographs, beside dictionary learning.

    python benchmarks/sparse_coding.py --seeds 0 1 2

Bars: 1000 images of 4x4, each a sum of some of 8 bars of length one (a bar is there in a quarter of the images, with a
Laplace weight) and noise of 0.1. A seed draws images and starts learning. The cosine is that of an atom with the bar
that is matched to it. Dictionary learning is scikit-learn's, at the best of five penalties by that same cosine, which
only it is shown. log p(x) is of images not learned from, by annealing, beside the truth and a Gaussian with the moments
of the training images. Patches: 4000 of 8x8 of scikit-learn's two photographs at half size, in grey, whitened by a low
pass as by Olshausen and Field (Vision Research 1997), without their means. An atom's pixels are 1 / Σ a⁴: how many it
is spread over, beside principal components and random directions. The picture is of the atoms of seed 0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal
from seeded import cell, command
from sklearn.datasets import load_sample_images
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.feature_extraction.image import extract_patches_2d

import pplebm
from pplebm.report.figures import tiled

RESULT = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "sparse_coding.png"
SHARE, SIGMA, SIDE, N, N_HELD_OUT = 0.25, 0.1, 4, 1000, 24
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
BARS = {"n_atoms": 8, "learning_rate": 0.02}
PATCHES = {"n_atoms": 64, "learning_rate": 0.02, "sigma": 0.5, "batch_size": 128}
UPDATES_OF_PATCHES = 2000
CUT = 0.4  # cycles per pixel, beyond which whitening is a low pass
page = pplebm.load("sparse_coding")


def bars(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bars as rows, images to learn from, and images held out."""
    rng, truth = np.random.default_rng(seed), np.zeros((2 * SIDE, SIDE, SIDE))
    for i in range(SIDE):
        truth[i, i], truth[SIDE + i, :, i] = 1.0, 1.0
    truth = truth.reshape(2 * SIDE, -1) / SIDE**0.5
    there = rng.random((N + N_HELD_OUT, 2 * SIDE)) < SHARE
    x = (there * rng.laplace(size=there.shape)) @ truth + SIGMA * rng.normal(size=(len(there), SIDE**2))
    x = x.reshape(-1, SIDE, SIDE)
    return truth, x[:N], x[N:]


def patches(seed: int, side: int = 8, each: int = 2000) -> np.ndarray:
    """Patches of both photographs, whitened as a whole, of standard deviation one."""
    rng, found = np.random.RandomState(seed), []
    for image in load_sample_images().images:
        grey = image[: len(image) // 2 * 2].mean(-1).reshape(len(image) // 2, 2, -1, 2).mean((1, 3)) / 255.0
        frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in grey.shape[::-1])))
        weight = frequency * np.exp(-((frequency / CUT) ** 4))
        white = np.fft.ifft2(np.fft.fft2(grey) * weight).real
        found.append(extract_patches_2d(white / white.std(), (side, side), max_patches=each, random_state=rng))
    x = np.concatenate(found)
    x = x - x.mean((1, 2), keepdims=True)
    return x / x.std()


def cosines(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Absolute cosine of every bar with the atom that is matched to it."""
    found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    cosine = np.abs(truth @ found.T)
    return cosine[linear_sum_assignment(-cosine)]


def pixels(atoms: np.ndarray) -> float:
    """How many pixels an atom is on: mean of 1 / Σ a⁴ of atoms of length one."""
    return float((1.0 / (atoms**4).sum(1)).mean())


def gaussian(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log p(x) of a Gaussian with mean and covariance of the training data."""
    flat = train.reshape(len(train), -1)
    covariance = np.cov(flat.T) + 1e-6 * np.eye(flat.shape[1])
    return np.asarray(multivariate_normal(flat.mean(0), covariance).logpdf(x.reshape(len(x), -1)))


def learned(train: np.ndarray, hyper: dict[str, Any], updates: int | None, algorithm: str, backend: str, seed: int,
            held_out: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:  # fmt: skip
    """Parameters, and figures of the model that is learned."""
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit("sparse_coding", train, algorithm, f"{folder}/run", updates=updates, seed=seed, hyper=hyper,
                         backend=backend, progress=False)  # fmt: skip
        log_p = None if held_out is None else run.log_evidence(held_out, progress=False)
        at = {name: np.asarray(run.program.ppl.to_numpy(a), float) for name, a in run.params.items()}
    found = {name.removeprefix("log_"): float(np.exp(a)) for name, a in at.items() if name.startswith("log_")}
    found["share of zeros"] = 1.0 - np.exp(-found["rate"] * found["threshold"])
    return at, found | ({} if log_p is None else told(log_p, log_p.is_trusted))


def told(log_p: Any, trusted: Any) -> dict[str, float]:
    """Mean, error over data, and Monte Carlo error, of the data whose estimate is trusted."""
    there = log_p.value[trusted]
    return {"log p(x)": there.mean(), "error": there.std() / len(there) ** 0.5, "rows": len(there),
            "Monte Carlo error": float((log_p.error[trusted] ** 2).mean() ** 0.5)}  # fmt: skip


def truth_of(bars: np.ndarray, train: np.ndarray, held_out: np.ndarray, backend: str) -> dict[str, float]:
    """log p(x) of images under the model that they were drawn from."""
    threshold = float(-np.log(SHARE))
    hyper = {"n_atoms": len(bars), "rate": 1.0, "threshold": threshold, "sigma": SIGMA}
    program = pplebm.Program(pplebm.bind(page, backend, shape=(SIDE, SIDE), **hyper), data=train[:2].astype("float32"))
    params = {"atoms.weight_0": bars.T, "atoms.bias_0": np.zeros(SIDE**2)}
    program = program.with_params(program.params | {k: program.ppl.asarray(a) for k, a in params.items()})
    log_p = pplebm.log_evidence(program, held_out, progress=False)
    return told(log_p, log_p.is_trusted)


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Bars and patches of one seed."""
    truth, train, held_out = bars(seed)
    flat, row = train.reshape(N, -1), dict[str, Any]()
    at, row["bars"] = learned(train, BARS, updates, algorithm, backend, seed, held_out)
    found = {"page": page.atoms(at)} | {
        f"penalty {alpha}": MiniBatchDictionaryLearning(8, alpha=alpha, random_state=seed).fit(flat).components_
        for alpha in PENALTIES}  # fmt: skip
    each = {name: cosines(truth, a) for name, a in found.items()}
    best = max((name for name in each if name != "page"), key=lambda name: each[name].mean())
    chance = cosines(truth, np.random.default_rng(seed).normal(size=truth.shape))
    for name, cosine in (("page", each["page"]), ("dictionary", each[best]), ("chance", chance)):
        row["bars"] |= {f"cosine, {name}": cosine.mean(), f"above 0.95, {name}": (cosine > 0.95).mean()}
    row["bars"] |= {"penalty": float(best.split()[1]), "log p(x), Gaussian": gaussian(train, held_out).mean()}
    row["bars"] |= {f"{name}, truth": a for name, a in truth_of(truth, train, held_out, backend).items()}
    pieces = patches(seed)
    at, row["patches"] = learned(pieces, PATCHES, UPDATES_OF_PATCHES, algorithm, backend, seed, None)
    flat = pieces.reshape(len(pieces), -1)
    principal = np.linalg.svd(flat, full_matrices=False)[2][:-1]  # all but the mean, which patches have not
    chance = np.linalg.qr(np.random.default_rng(seed).normal(size=(64, 64)))[0]
    for name, a in (("page", page.atoms(at)), ("components", principal), ("chance", chance)):
        row["patches"][f"pixels, {name}"] = pixels(a)
    if seed == 0:
        picture(found["page"], page.atoms(at))
    return {name: {k: float(v) for k, v in part.items()} for name, part in row.items()}


def picture(of_bars: np.ndarray, of_patches: np.ndarray) -> None:
    """Atoms of bars beside those of patches, by how far their mass is spread; grey is zero."""
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(1, 2))
    order = np.argsort((of_patches**4).sum(1))[::-1]
    for axis, atoms, side, across in ((axes[0], of_bars, SIDE, 2), (axes[1], of_patches[order], 8, 8)):
        scaled = (atoms / np.abs(atoms).max(1, keepdims=True)).reshape(-1, side, side)
        axis.imshow(tiled(scaled, across, -1.0, 1.0), cmap="gray", vmin=-1.0, vmax=1.0)
        axis.set(xticks=[], yticks=[], title=f"{len(atoms)} atoms of {'bars' if side == SIDE else 'photographs'}")
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | figure | |", "|---|---|---:|"]
    for part in ("bars", "patches"):
        for name in next(iter(rows.values()))[part]:
            lines.append(f"| {part} | {name} | {cell(row[part][name] for row in rows.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 1500, "mle")
