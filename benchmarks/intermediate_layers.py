"""Digits from what instruments leave of them, solved in layers of the generator beside the space of its noise.

    python benchmarks/intermediate_layers.py --seeds 0 1 2

Generator, images, operators and noise are as in benchmarks/inverse_problem.py: a seed draws held-out digits, learns a
`latent_ebm` from the others, and asks about images of the model and held-out digits. Activations of 4000 draws of its
prior are whitened, 64 directions of 128; the law of a layer is normal (the untilted twin), tilted by score_matching, or
tilted by persistent_mle. Its nats are of 400 further draws, above those of the normal; log Z is by `pplebm.log_z`.
Chains are those of `pplebm.sample`, as long in every space. The picture is of held-out digits of seed 0, half of whose
pixels are seen.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from inverse_problem import SIGMA, coverage, error, picture, problem
from seeded import cell, command
from sklearn.datasets import load_digits

import pplebm
from pplebm.networks.halves import Whitened, activations, handed, whitened
from pplebm.sampling.convergence import figures

RESULT = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "intermediate_layers.png"
N = 16  # images of either kind
KINDS = ("mask", "blur", "downsample", "projection")
RANK, BOUND, TAU = 64, 30.0, 0.3  # directions; nats of the tilt; noise of score matching, in whitened units
LAWS = ("normal", "score", "mle")
WAYS = ("noise space", *(f"layer {split}, {law}" for split in (1, 2) for law in LAWS if (split, law) != (2, "mle")))
page = pplebm.load("intermediate_layers")


def whitened_layer(run: Any, z: np.ndarray, split: int) -> tuple[Whitened, np.ndarray]:
    """Whitened activations of all draws of z but the last 400, and those of the last."""
    h = activations(page.generator(page.Hyper(split=split))[0], run.params, z)
    white = whitened(h[:-400], RANK)
    return white, (h[-400:] - white.mean) @ np.linalg.pinv(white.factor).T


def tilt_of(law: str, white: Whitened, held_out: np.ndarray, folder: str, seed: int, backend: str) -> tuple[Any, Any]:
    """Parameters of a tilt learned from whitened activations, and its nats above the normal law on others."""
    hyper = {"model.tilt_bound": BOUND} | ({"noise": TAU} if law == "score" else {})
    by = {"score": "score_matching", "mle": "persistent_mle"}[law]
    run = pplebm.fit("data_ebm", white.values, by, folder, seed=seed, hyper=hyper, scaling="none", backend=backend,
                     held_out_fraction=0.0, compiled=False, progress=False)  # fmt: skip
    program, ppl = run.program, run.program.ppl
    data, constant = program.data(held_out), pplebm.log_z(program, seed=seed, n_particles=300, progress=False)
    f = ppl.to_numpy(program.log_given(run.params, data) - program.log_given(run.params, data, base=True))
    found = {"nats": float(f.mean() - constant.value[0]), "error of nats": float(constant.error[0]),
             "error over draws": float(f.std() / len(f) ** 0.5),
             "seconds": float(run.metrics[-1]["seconds"])}  # fmt: skip
    return run.params, found


def solved(
    model: str, hyper: dict[str, Any], params: Any, y: np.ndarray, x: np.ndarray, seed: int, backend: str
) -> Any:
    """Figures of images of which the first N are of the model, and posterior means and deviations of digits."""
    bound = pplebm.bind(model, backend, shape={"y": y.shape[1:]}, **hyper)
    program = pplebm.Program(bound, data={"y": y[:2]}).with_params(params).with_coordinates("noncentered")
    draws = pplebm.sample(program, data={"y": y}, n_chains=4, n_draws=60, n_warmup=250, seed=seed, progress=False)
    images = draws["x"].reshape(-1, *x.shape)
    seen = images + SIGMA * np.random.default_rng([seed, 1]).normal(size=images.shape)
    mean, own, real = images.mean(0), slice(None, N), slice(N, None)
    found = {"error": error(mean[own], x[own]), "coverage": coverage(images[:, own], x[own]),
             "error, digits": error(mean[real], x[real]), "coverage, digits": coverage(seen[:, real], x[real]),
             "R-hat": float(np.nanmax(figures(draws["x"].reshape(*draws["x"].shape[:2], -1)).r_hat))}  # fmt: skip
    return found, (mean[real][:6], images.std(0)[real][:6])


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """All operators in all spaces, under the model of one seed."""
    images = load_digits().images / 8.0 - 1.0
    images = images[np.random.default_rng(seed).permutation(len(images))]
    train, digits, row, shown = images[360:], images[:N], dict[str, Any](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit("latent_ebm", train, algorithm, f"{folder}/run", updates=updates, seed=seed, scaling="none",
                         backend=backend, held_out_fraction=0.0, compiled=False, progress=False)  # fmt: skip
        prior = pplebm.sample_prior(run.program.with_coordinates("noncentered"), n_chains=220, n_draws=20, n_warmup=300,
                                    thin=3, seed=seed, progress=False)  # fmt: skip
        x = np.concatenate([pplebm.predictive(prior, mean=True)["x"][:N, 0], digits])
        z = np.random.default_rng(seed).permutation(prior["z1"].reshape(-1, prior["z1"].shape[-1]))
        spaces: dict[str, Any] = {"noise space": ("inverse_problem", {}, run.params)}
        for split in (1, 2):
            white, held_out = whitened_layer(run, z, split)
            for way in (way for way in WAYS if way.startswith(f"layer {split}")):
                law, tilt = way.split(", ")[1], None
                if law != "normal":
                    tilt, row[way] = tilt_of(law, white, held_out, f"{folder}/{split}{law}", seed, backend)
                hyper = {"split": split, "rank": RANK, "tilt_bound": BOUND, "tilted": tilt is not None}
                spaces[way] = ("intermediate_layers", hyper,
                               handed(run.params, white, split, tilt, run.program.ppl.asarray))  # fmt: skip
    for name in KINDS:
        hyper, _, y = problem(np.random.default_rng([seed, len(name)]), name, train, x, N, seed)
        for way, (model, own, params) in spaces.items():
            row[f"{name}: {way}"], shown[f"{name}: {way}"] = solved(model, hyper | own, params, y, x, seed, backend)
    if seed == 0:
        picture(digits[:6], {way: shown[f"{KINDS[0]}: {way}"] for way in WAYS}, PICTURE)
    return row


def table(rows: dict[str, Any]) -> str:
    """Tables in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | nats above the normal | seconds |", "|---|---:|---:|"]
    for way in (way for way in WAYS if way.endswith(LAWS[1:])):
        figures = [cell((row[way][name] for row in rows.values()), n) for name, n in (("nats", 1), ("seconds", 1))]
        lines.append(f"| {way} | {' | '.join(figures)} |")
    for figure in ("error", "coverage", "error, digits", "coverage, digits", "R-hat"):
        lines += ["", f"| {figure} | {' | '.join(KINDS)} |", "|---|" + "---:|" * len(KINDS)]
        for way in WAYS:
            cells = [cell((row[f"{name}: {way}"][figure] for row in rows.values()), 2) for name in KINDS]
            lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 800, "variational_joint")
