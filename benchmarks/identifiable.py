"""Every algorithm page on a tilted hierarchy of eight identifiable parameters, whose likelihood is known by quadrature.

    python benchmarks/identifiable.py --write                                  # every page, three seeds
    python benchmarks/identifiable.py --only two_stage --seeds 0 --set prior.n_steps=60
    python benchmarks/identifiable.py --maximum                                # the maximum of the likelihood itself

    z2 ~ N(m, 1) tilted by f(z2) = b1 exp(-(z2 - 1.5)² / .5) + b2 exp(-(z2 + 1)² / .3)
    z1 ~ N(sin(2 z2), exp(ls)²),   x ~ N((v1 z1, v2 z2, v3 z1 z2), exp(lsig)² I)

Learning begins at one start for all, at the page's default settings but for both learning rates, which are .02. Figures
are nats per datum by which the exact mean log p(x) of held-out data is below that of the maximum-likelihood estimate.
A page that takes its tilt or its model as given gets the true one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

RESULT = Path(__file__).with_suffix(".json")
README = Path(__file__).resolve().parent.parent / "inference" / "README.md"
BEGIN, END = "<!-- identifiable: begin -->", "<!-- identifiable: end -->"
PAGES = (
    "mle", "short_run_mle", "variational_joint", "dual_mcmc", "two_stage", "noise_contrastive", "multi_stage_nce",
    "info_vae", "short_run_learned_step", "persistent_mle", "alternating_backprop", "flow_posterior",
)  # fmt: skip
TRUE = {"m": 0.3, "ls": -0.7, "b1": 3.0, "b2": 2.0, "v1": 1.0, "v2": 1.0, "v3": 0.5, "lsig": float(np.log(0.3))}
START = {"m": 0.0, "ls": 0.0, "b1": 0.0, "b2": 0.0, "v1": 0.5, "v2": 0.5, "v3": 0.2, "lsig": 0.0}
TILTS, RATE = ("b1", "b2"), 0.02
MAXIMUM = -0.0047  # held-out nats of the maximum-likelihood estimate from the truth, `--maximum`
N_TRAIN, N_HELD_OUT = 1500, 400

Theta = dict[str, float]


def tilt_of(theta: Any, z2: Any, exp: Any) -> Any:
    """f(z2)."""
    return theta["b1"] * exp(-((z2 - 1.5) ** 2) / 0.5) + theta["b2"] * exp(-((z2 + 1.0) ** 2) / 0.3)


def simulated(n: int, rng: np.random.Generator) -> np.ndarray:
    """Exact draws of the true model, (n, 3)."""
    grid = np.linspace(-6.0, 6.0, 20_001)
    weight = np.exp(-0.5 * (grid - TRUE["m"]) ** 2 + tilt_of(TRUE, grid, np.exp))
    z2 = rng.choice(grid, n, p=weight / weight.sum())
    z1 = np.sin(2 * z2) + np.exp(TRUE["ls"]) * rng.normal(size=n)
    means = np.stack([TRUE["v1"] * z1, TRUE["v2"] * z2, TRUE["v3"] * z1 * z2], 1)
    return means + np.exp(TRUE["lsig"]) * rng.normal(size=(n, 3))


def log_evidence(theta: Theta, x: np.ndarray, n_grid: tuple[int, int] = (261, 121), chunk: int = 100) -> np.ndarray:
    """log p(x), (n,), by quadrature in noncentered coordinates; good to 1e-3 for scales between e^-6 and e."""
    u, e = np.linspace(-6.5, 6.5, n_grid[0]), np.linspace(-6.5, 6.5, n_grid[1])
    z2, noise = (a.ravel() for a in np.meshgrid(theta["m"] + u, e, indexing="ij"))
    z1 = np.sin(2 * z2) + np.exp(theta["ls"]) * noise
    prior = _normal(z2, theta["m"], 1.0) + _normal(noise, 0.0, 1.0) + tilt_of(theta, z2, np.exp)
    prior = prior - logsumexp(prior)
    means, sd = (theta["v1"] * z1, theta["v2"] * z2, theta["v3"] * z1 * z2), np.exp(theta["lsig"])
    parts = np.array_split(x, max(1, len(x) // chunk))
    at = lambda rows: logsumexp(prior + sum(_normal(rows[:, [i]], mean, sd) for i, mean in enumerate(means)), axis=1)
    return np.concatenate([at(rows) for rows in parts])


def _normal(x: Any, mean: Any, sd: Any) -> Any:
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2.0 * np.pi)


def maximum(x: np.ndarray) -> Theta:
    """The maximum-likelihood estimate, by finite differences."""
    at = lambda v: dict(zip(TRUE, map(float, v), strict=True))
    fall = lambda v: -log_evidence(at(v), x, (131, 61)).mean()
    return at(minimize(fall, list(TRUE.values()), method="L-BFGS-B", options={"maxiter": 25}).x)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Data to learn from, and held-out ones."""
    rng = np.random.default_rng(42)
    return simulated(N_TRAIN, rng), simulated(1000, rng)[:N_HELD_OUT]


def program(start: Theta) -> Any:
    """The model as a NumPyro program, whose parameters begin there."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    from pplebm.numpyro import tilt

    def model(x: Any) -> None:
        theta = {name: numpyro.param(name, jnp.asarray(value)) for name, value in start.items()}
        with numpyro.plate("data", len(x)):
            z2 = numpyro.sample("z2", dist.Normal(theta["m"], 1.0))
            z1 = numpyro.sample("z1", dist.Normal(jnp.sin(2 * z2), jnp.exp(theta["ls"])))
            tilt("f", tilt_of(theta, z2, jnp.exp))
            means = jnp.stack([theta["v1"] * z1, theta["v2"] * z2, theta["v3"] * z1 * z2], -1)
            numpyro.sample("x", dist.Normal(means, jnp.exp(theta["lsig"])).to_event(1), obs=x)

    return model


def measure(page: str, seed: int, updates: int | None, changes: dict[str, Any]) -> dict[str, Any]:
    """Learn by a page, and see what the likelihood of held-out data says of it."""
    import pplebm

    train, held_out = data()
    own = pplebm.load(page).Hyper().optimizer
    start = dict(START)
    if own.learning_rate_tilt == 0.0:  # the tilt is given, and by flow_posterior the model
        start = TRUE if page == "flow_posterior" else START | {name: TRUE[name] for name in TILTS}
    hyper = {"learning_rate": RATE} | ({"learning_rate_tilt": RATE} if own.learning_rate_tilt > 0 else {}) | changes
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit(
            program(start), train.astype(np.float32), page, out=f"{folder}/run", seed=seed, updates=updates,
            hyper=hyper, backend="numpyro", progress=False,
        )  # fmt: skip
        found = {name: float(np.asarray(run.params[name])) for name in TRUE}
        last = run.metrics[-20:]
        out = {"page": page, "seed": seed, "seconds": time.perf_counter() - began, "params": found}
        out["rollbacks"] = len(run.manifest.rollbacks)
        if "bound" in last[-1]:
            out["bound"] = float(np.mean([row["bound"] for row in last]))
    fall = log_evidence(TRUE, held_out).mean() + MAXIMUM - log_evidence(found, held_out).mean()
    return out | {"nats_below": float(fall)}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: nats below the maximum, mean and every seed, and parameters of the tilt."""
    lines = ["| page | nats below the maximum | worst seed | b1, b2 (true 3, 2) | seconds | seeds |",
             "|---|---:|---:|---|---:|---:|"]  # fmt: skip
    for page in PAGES:
        rows = [r for r in results if r["page"] == page]
        if not rows or page == "flow_posterior":
            continue
        falls = [r["nats_below"] for r in rows]
        b1, b2 = (np.mean([r["params"][name] for r in rows]) for name in TILTS)
        seconds = np.mean([r["seconds"] for r in rows])
        lines.append(
            f"| {page} | {np.mean(falls):.3f} | {max(falls):.3f} | {b1:.1f}, {b2:.1f} | {seconds:.0f} | {len(rows)} |"
        )
    return "\n".join([*lines, "", "NumPyro, both learning rates .02. `python benchmarks/identifiable.py`"])


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--updates", type=int, help="in the place of the page's own number")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="changes to hyperparameters")
    parser.add_argument("--maximum", action="store_true", help="find the maximum of the likelihood")
    parser.add_argument("--write", action="store_true", help="keep identifiable.json and put the table into README.md")
    args = parser.parse_args()
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if args.maximum:
        (train, held_out), true = data(), log_evidence(TRUE, data()[1]).mean()
        best = maximum(train)
        print({k: round(v, 3) for k, v in best.items()}, round(float(log_evidence(best, held_out).mean() - true), 4))
        return
    from pplebm.cli.group import settings

    changes = settings(args.set)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else []
    for page in args.only:
        for seed in args.seeds:
            found = measure(page, seed, args.updates, changes)
            print(json.dumps(found | {"params": {k: round(v, 2) for k, v in found["params"].items()}}), flush=True)
            results = [r for r in results if (r["page"], r["seed"]) != (page, seed)] + [found]
            if args.write:
                RESULT.write_text(json.dumps(results, indent=1) + "\n")
    print(text := table(results))
    if args.write:
        readme = README.read_text()
        README.write_text(f"{readme.split(BEGIN)[0]}{BEGIN}\n{text}\n{END}{readme.split(END)[1]}")


if __name__ == "__main__":
    main()
