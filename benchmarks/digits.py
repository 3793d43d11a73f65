"""The joint EBM prior on handwritten digits against its own base and a separately trained untilted twin.

    python benchmarks/digits.py --seeds 0 1 2 3 4 --jobs 2

The page is short_run_mle at its default settings; nothing is chosen by looking at the figures. Held-out digits are a
stratified fifth of scikit-learn's. Columns, all on held-out digits never seen in learning:

* AUC of draws: a random forest, five-fold, tells model draws (observation noise included) from held-out digits with
  noise of the same σ added, since clean grey levels would give any density model away. 0.5 is chance, lower is better.
* AUC of means: the same between noise-free model means and reconstructions of held-out digits.
* MMD²: unbiased, Gaussian kernel with the median distance of the held-out digits, between these and model means.
* ESS: effective number of 20 000 base draws when weighted by e^f.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULT, README = ROOT / "benchmarks" / "digits.json", ROOT / "README.md"
BEGIN, END = "<!-- digits: begin -->", "<!-- digits: end -->"
N_SAMPLES, N_BASE = 1000, 20_000
LONG_STEPS, LONG_SIZE = 1000, 0.1
ROWS = {
    "short": "tilted prior, short chain as in learning",
    "long": f"tilted prior, {LONG_STEPS} steps of size {LONG_SIZE}",
    "resampled": "tilted prior, base draws resampled by eᶠ",
    "base": "its own base, tilt ignored",
    "twin": "untilted twin, trained separately",
    "reconstructed": "reference: reconstructions of held-out digits",
    "training": "reference: training digits",
}


def forest_auc(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    """Five-fold AUC of a random forest that tells a from b, as many rows of each."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    n = min(len(a), len(b))
    x = np.concatenate([a[:n], b[:n]]).reshape(2 * n, -1)
    y = np.repeat([0, 1], n)
    forest = RandomForestClassifier(300, random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return float(roc_auc_score(y, cross_val_predict(forest, x, y, cv=folds, method="predict_proba")[:, 1]))


def mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy, Gaussian kernel, median distance within a."""
    from scipy.spatial.distance import cdist

    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    within = cdist(a, a, "sqeuclidean")
    scale = np.median(within[np.triu_indices(len(a), 1)])
    k_a, k_b, k_ab = (np.exp(-d / scale) for d in (within, cdist(b, b, "sqeuclidean"), cdist(a, b, "sqeuclidean")))
    n, m = len(a), len(b)
    return float((k_a.sum() - n) / (n * (n - 1)) + (k_b.sum() - m) / (m * (m - 1)) - 2 * k_ab.mean())


def resample(run, seed: int) -> tuple[dict, float]:
    """Latents of the tilted prior by importance resampling of base draws, and the effective sample size."""
    program, ppl = run.program, run.program.ppl
    z = program.draw_base(ppl.key(seed), N_BASE, run.params)
    f = ppl.to_numpy(program.log_tilt(run.params, z)).astype(float)
    weights = np.exp(f - f.max())
    weights /= weights.sum()
    rows = np.random.default_rng(seed).choice(N_BASE, N_SAMPLES, p=weights)
    return {name: v[rows] for name, v in z.items()}, float(1 / (weights**2).sum())


def model_means(run, z) -> np.ndarray:
    return run.program.ppl.to_numpy(run.program.predict(run.params, z)["x"])


def long_chain(run, seed: int) -> dict:
    from pplebm.learning.sources import ShortRun

    chain = ShortRun(n_steps=LONG_STEPS, step_size=LONG_SIZE)
    return chain.draw(run.algorithm, run.program.ppl.key(seed), run.params, N_SAMPLES, observed=False).z


def measure(seed: int, steps: int | None) -> dict:
    """Fit tilted model and twin with one seed, and measure both."""
    import torch

    import pplebm
    from pplebm import data

    torch.set_num_threads(1)
    digits, out = data.load("digits", seed=seed), {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name, tilted in (("tilted", True), ("twin", False)):
            began = time.perf_counter()
            runs[name] = pplebm.fit(
                "joint_ebm",
                digits,
                "short_run_mle",
                out=f"{folder}/{name}",
                seed=seed,
                updates=steps,
                hyper={"tilted": tilted},
            )
            last = runs[name].metrics[-20:]
            out[name] = {
                "seconds": time.perf_counter() - began,
                "held_out_error": last[-1]["held_out_error"],
                "tilt_gap": float(np.mean([row["tilt_gap"] for row in last])),
                "rollbacks": len(runs[name].manifest.rollbacks),
                "divergent": max(r["divergent_positive"] + r["divergent_negative"] for r in runs[name].metrics),
                "accepted": float(np.mean([row["accepted_positive"] for row in last])),
            }
        run, twin = runs["tilted"], runs["twin"]
        resampled, ess = resample(run, seed)
        out["tilted"]["ess"] = ess
        means = {
            "short": model_means(run, run.prior_latents(N_SAMPLES, seed)),
            "long": model_means(run, long_chain(run, seed)),
            "resampled": model_means(run, resampled),
            "base": model_means(run, run.prior_latents(N_SAMPLES, seed, base=True)),
            "twin": model_means(twin, twin.prior_latents(N_SAMPLES, seed)),
        }
        held_out, sigma = digits.held_out, run.manifest.model.hyper["sigma"]
        rebuilt = {r: model_means(r, r.posterior_latents(held_out, seed)) for r in (run, twin)}
        rng = np.random.default_rng(seed)
        noisy = held_out + sigma * rng.normal(size=held_out.shape)
        means |= {"reconstructed": rebuilt[run], "training": digits.train[rng.permutation(len(digits.train))]}
        for name, m in means.items():
            reference = rebuilt[twin if name == "twin" else run]
            out[f"row_{name}"] = {
                "auc_draws": forest_auc(noisy, m + sigma * rng.normal(size=m.shape), seed),
                "auc_means": None if name in ("reconstructed", "training") else forest_auc(reference, m, seed),
                "mmd2": mmd2(held_out, m),
            }
    return out


def table(results: list[dict]) -> str:
    """Markdown table of means ± standard deviations over seeds."""

    def cell(values: list[float | None], digits: int, factor: float = 1.0) -> str:
        if values[0] is None:
            return "–"
        v = factor * np.asarray(values, dtype=float)
        return f"{v.mean():.{digits}f} ± {v.std(ddof=1) if len(v) > 1 else 0:.{digits}f}"

    lines = ["| samples | AUC of draws | AUC of means | MMD² · 10³ |", "|---|---|---|---|"]
    for row, label in ROWS.items():
        found = [r[f"row_{row}"] for r in results]
        a, b = (cell([f[k] for f in found], 3) for k in ("auc_draws", "auc_means"))
        lines.append(f"| {label} | {a} | {b} | {cell([f['mmd2'] for f in found], 1, 1e3)} |")
    lines += ["", "| figure | tilted model | untilted twin |", "|---|---|---|"]
    labels = {
        "tilt_gap": ("tilt gap at the end of learning, nats", 2),
        "held_out_error": ("held-out reconstruction error (mean square)", 4),
        "ess": (f"ESS of {N_BASE} weighted base draws", 0),
        "seconds": ("seconds of learning, one thread", 0),
    }
    for key, (label, digits) in labels.items():
        cells = [cell([r[m].get(key) for r in results], digits) for m in ("tilted", "twin")]
        lines.append(f"| {label} | {cells[0]} | {'–' if key == 'tilt_gap' else cells[1]} |")
    bad = [sum(r[m]["rollbacks"] + (r[m]["divergent"] > 0) for r in results) for m in ("tilted", "twin")]
    lines.append(f"| seeds with a divergent chain or a roll-back, of {len(results)} | {bad[0]} | {bad[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--updates", type=int, default=None, help="updates; the algorithm's own number by default")
    parser.add_argument("--jobs", type=int, default=1, help="seeds measured at once, one thread each")
    parser.add_argument("--write", action="store_true", help="keep digits.json and put the table into README.md")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(measure, args.seeds, [args.updates] * len(args.seeds)))
    text = table(results)
    print(text)
    if args.write:
        RESULT.write_text(json.dumps({"command": " ".join(sys.argv), "results": results}, indent=1) + "\n")
        readme = README.read_text()
        head, tail = readme.split(BEGIN)[0], readme.split(END)[1]
        README.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


if __name__ == "__main__":
    main()
