"""Densities of two half moons, learned by chains of the published anisotropic step, of what repairs it, and of others.

    python benchmarks/data_ebm.py --seeds 0 1 2

A seed draws 1000 points of scikit-learn's two moons (noise 0.1) to learn from and 1000 held-out ones, and starts
learning. Beside chains, denoising score matching, at the noise of its page and at half of it. log Z is by quadrature on
a grid of the plane, so that log p of held-out points has no Monte Carlo error. Beside it: the base of the model, the
normal of largest likelihood, and a kernel density estimate whose width five-fold cross-validation chooses. All in
standardised units.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from seeded import cell, command
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

import pplebm

RESULT = Path(__file__).with_suffix(".json")
N, NOISE = 1000, 0.1  # points of either part; of the moons
STEP, THRESHOLD, RATE = 0.15, 1.0, 2e-3  # s and b of the prior's steps, and learning rate of the tilt
KERNELS = ("langevin", "anisotropic_published", "anisotropic")
SCORES = {"score matching": 0.2, "score matching, less noise": 0.1}  # τ; the first is the page's own
LINE = np.linspace(-6.0, 6.0, 401)


def log_z(run: Any) -> float:
    """By quadrature on the plane; what is beyond ±6 standard deviations is at most e^16 of the base's 4e-9."""
    points = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
    program = run.program
    parts = [program.log_given(run.params, program.data(part)) for part in np.array_split(points, 20)]
    return float(logsumexp(np.concatenate([program.ppl.to_numpy(a) for a in parts]).astype(float)) +
                 2.0 * np.log(LINE[1] - LINE[0]))  # fmt: skip


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Held-out log p(x) of all models, nats per point."""
    x, _ = make_moons(2 * N, noise=NOISE, random_state=seed)
    x, held_out = x[:N], x[N:]
    mean, scale = x.mean(0), x.std(0)
    x, held_out = (x - mean) / scale, (held_out - mean) / scale
    widths = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.03, 1.0, 12)}, cv=5).fit(x)
    row: dict[str, Any] = {
        "base": multivariate_normal(np.zeros(2)).logpdf(held_out).mean(),
        "normal": multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(held_out).mean(),
        "kernel density estimate": widths.best_estimator_.score_samples(held_out).mean(),
        "width": widths.best_params_["bandwidth"],
    }
    for kernel in KERNELS:
        hyper = {"prior.kernel": kernel, "prior.step_size": STEP, "prior.threshold": THRESHOLD,
                 "learning_rate_tilt": RATE}  # fmt: skip
        row |= learned(kernel, x, held_out, algorithm, updates, seed, hyper, backend)
    for name, noise in SCORES.items():
        row |= learned(name, x, held_out, "score_matching", None, seed, {"noise": noise}, backend)
    return {name: float(value) for name, value in row.items()}


def learned(
    name: str, x: Any, held_out: Any, algorithm: str, updates: int | None, seed: int, hyper: Any, backend: str
) -> dict[str, float]:
    """Held-out log p(x) of a model that an algorithm learns, nats per point, with its error and log Z."""
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit("data_ebm", x, algorithm, f"{folder}/run", updates=updates, seed=seed, hyper=hyper,
                         backend=backend, scaling="none", progress=False)  # fmt: skip
        program, constant = run.program, log_z(run)
        value = program.ppl.to_numpy(program.log_given(run.params, program.data(held_out))).astype(float)
    return {name: value.mean() - constant, f"{name}, error": value.std() / N**0.5, f"{name}, log Z": constant}


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | log p(x) |", "|---|---:|"]
    for name in (*KERNELS, *SCORES, "kernel density estimate", "normal", "base"):
        lines.append(f"| {name} | {cell(row[name] for row in rows.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 600, "persistent_mle")
