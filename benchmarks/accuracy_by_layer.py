"""Accuracy of a classifier that reads one layer of latents: what each layer of a learned hierarchy knows of the label.

    python benchmarks/accuracy_by_layer.py --data mnist fashion_mnist --data-dir FOLDER --seeds 0 1 2
    python benchmarks/accuracy_by_layer.py --table                       # of what is kept; nothing is run

`hierarchical_features`, one tilt on all layers, and `joint_ebm`, a tilt for every layer, each beside its untilted twin;
all have three layers of 8 latents, so that layers differ in their place and not in their size. They learn from the
first 10000 training images, without labels, by `variational_joint`.

Features of a layer are the means of the guide (at zero noise; the derived guide of `joint_ebm` sees in the layers above
z1 the mean of the layer below). They are standardised, and a logistic regression (L2, C = 1) is fitted to those of the
same 10000 images; it is asked about the first 2000 test images. Beside them: chance, and the same of the guide before
learning, a random net. Standardising hides how much a layer is used; that is told by the variance of its features over
images, which is 1 or more where a latent is known well from x and near 0 where its posterior is its base. Means of
posterior chains, which accept and reject, are compared with the guide's on few rows, the first 200 of either part, of
one cell: the tilted `hierarchical_features` of MNIST and seed 0.

A cell is a set of data, a model and a seed, which starts weights and batches; accuracy_by_layer.json is written after
each, and a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
from seeded import cell
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pplebm
from pplebm.data import load
from pplebm.runs.opening import rebuild

RESULT = Path(__file__).with_suffix(".json")
N_TRAIN, N_HELD_OUT, N_FEW, DIMS = 10_000, 2_000, 200, (8, 8, 8)
CHAINS = {"n_chains": 2, "n_warmup": 80, "n_draws": 25, "thin": 2}
MODELS = {
    f"{page}, {name}": (page, tilted)
    for page in ("hierarchical_features", "joint_ebm")
    for name, tilted in (("tilted", True), ("twin", False))
}
LAYERS = ("z1", "z2", "z3", "all")


def accuracy(train: np.ndarray, y: np.ndarray, held_out: np.ndarray, y_held_out: np.ndarray) -> float:
    """Share of held-out labels that a logistic regression finds."""
    machine = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(train, y)
    return float(machine.score(held_out, y_held_out))


def by_layer(features: list[dict[str, np.ndarray]], labels: list[np.ndarray]) -> dict[str, float]:
    """Accuracy of every layer, and of all side by side, for training and held-out features."""
    both = [f | {"all": np.concatenate([f[name] for name in LAYERS[:-1]], 1)} for f in features]
    return {name: accuracy(both[0][name], labels[0], both[1][name], labels[1]) for name in LAYERS}


def guided(run: Any, params: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Means of the guide, by layer."""
    ppl, guide = run.program.ppl, run.algorithm.guide
    noise = {name: 0.0 * a for name, a in guide.noise(ppl.key(0), len(x)).items()}
    z, _ = guide.at(params, noise, ppl.asarray(x))
    return {name: ppl.to_numpy(a) for name, a in z.items()}


def chained(run: Any, x: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], float]:
    """Means of posterior chains, by layer, and the share of latents whose two chains disagree (R-hat above 1.1)."""
    program = run.program.with_coordinates("noncentered")
    draws = pplebm.sample(program, data=x, seed=seed, progress=False, **CHAINS)
    means, lost = {}, []
    for name in LAYERS[:-1]:
        z = np.asarray(draws[name])  # (chains, draws, rows, latents)
        within, between = z.var(1, ddof=1).mean(0), z.mean(1).var(0, ddof=1)
        lost.append(np.sqrt(1.0 + between / within) > 1.1)
        means[name] = z.mean((0, 1))
    return means, float(np.mean(lost))


def measured(data: Any, model: str, seed: int, updates: int, backend: str) -> dict[str, Any]:
    """One cell."""
    (page, tilted), y = MODELS[model], [data.train_labels[:N_TRAIN], data.held_out_labels[:N_HELD_OUT]]
    x = [data.train[:N_TRAIN], data.held_out[:N_HELD_OUT]]
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit(page, x[0], "variational_joint", f"{folder}/run", updates=updates, seed=seed, backend=backend,
                         hyper={"tilted": tilted, "latent_dims": DIMS}, scaling="none", held_out_fraction=0,
                         progress=False)  # fmt: skip
        begun = rebuild(run.path, run.manifest)  # as before learning
        first = begun.program.params | begun.guide.params
        features = [guided(run, run.params, part) for part in x]
        found: dict[str, Any] = {"guide": by_layer(features, y), "bound": run.metrics[-1]["bound"]}
        found["variance"] = {name: float(a.var(0).mean()) for name, a in features[1].items()}
        found["before learning"] = by_layer([guided(run, first, part) for part in x], y)
        if (data.name, model, seed) == ("mnist", "hierarchical_features, tilted", 0):
            few, of_few = [{name: a[:N_FEW] for name, a in f.items()} for f in features], [a[:N_FEW] for a in y]
            means, found["chains that disagree"] = chained(run, np.concatenate([part[:N_FEW] for part in x]), seed)
            chains = [{name: a[rows] for name, a in means.items()} for rows in (slice(N_FEW), slice(N_FEW, None))]
            found |= {"guide, few rows": by_layer(few, of_few), "chains, few rows": by_layer(chains, of_few)}
        return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All cells, those that are not there measured and kept one by one."""
    settings = {"updates": args.updates, "backend": args.backend}
    kept = json.loads(args.out.read_text()) if args.out.exists() else {"settings": settings, "cells": {}}
    if kept["settings"] != settings:
        raise SystemExit(f"{args.out} is of other settings, {kept['settings']}; give another --out.")
    for seed in args.seeds:
        for name in args.data:
            data = load(name, args.data_dir)
            for model in MODELS:
                key = f"{name}/{model}/{seed}"
                if key in kept["cells"]:
                    continue
                found = measured(data, model, seed, args.updates, args.backend)
                kept["cells"][key] = found
                print(key, json.dumps(found), flush=True)
                args.out.with_suffix(".part").write_text(json.dumps(kept, indent=1) + "\n")
                args.out.with_suffix(".part").replace(args.out)
    return dict(kept["cells"])


def table(cells: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| images | model | features | z1 | z2 | z3 | all | seeds |", "|---|---|---|---:|---:|---:|---:|---:|"]
    for name in dict.fromkeys(key.split("/")[0] for key in cells):
        for model in MODELS:
            rows = [found for key, found in cells.items() if key.startswith(f"{name}/{model}/")]
            for how in ("guide", "variance", "before learning", "guide, few rows", "chains, few rows"):
                if some := [row[how] for row in rows if how in row]:
                    told = (cell(row[layer] for row in some) if layer in some[0] else "" for layer in LAYERS)
                    lines.append(f"| {name} | {model} | {how} | {' | '.join(told)} | {len(some)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=("mnist", "fashion_mnist"), default=["mnist", "fashion_mnist"])
    parser.add_argument("--data-dir", help="where sets of images lie")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--backend", default="numpyro")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only the table of what is kept")
    args = parser.parse_args()
    print(table(json.loads(args.out.read_text())["cells"] if args.table else run(args)))


if __name__ == "__main__":
    main()
