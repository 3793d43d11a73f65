"""Eleven posteriors of posteriordb by pplebm's Hamiltonian Monte Carlo, against the reference draws.

    python benchmarks/posteriordb.py --data FOLDER     # the folder `posteriordb`, with data/ and draws/ as zip files
    python benchmarks/posteriordb.py --data FOLDER --write     # keeps the rows that are not run again

Means and standard deviations are compared in units of the Monte Carlo error of both runs together. Float64.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULT, TABLE = ROOT / "benchmarks" / "posteriordb.json", ROOT / "benchmarks" / "posteriordb.md"
NOT_IN_TORCH = {
    "lotka_volterra": "thousands of operations a gradient, each a call of its own; NumPyro compiles them",
}


def unzipped(path: Path) -> Any:
    """The JSON in a zip file."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def errors(x: np.ndarray) -> tuple[float, float]:
    """Monte Carlo errors of the mean and of the standard deviation of (chains, draws)."""
    from pplebm.sampling.to_arviz import import_arviz

    arviz = import_arviz()
    return float(arviz.mcse(x, method="mean")), float(arviz.mcse(x, method="sd"))


def run(name: str, backend: str, folder: Path, settings: dict[str, int]) -> dict[str, Any]:
    """One posterior on one backend."""
    from posteriors.models import POSTERIORS

    import pplebm
    from pplebm.kernels.hmc import hmc
    from pplebm.ppl.language import load_backend
    from pplebm.sampling import chains
    from pplebm.sampling.to_arviz import import_arviz

    posterior, ppl = POSTERIORS[name], load_backend(backend)
    if backend == "pyro":
        import torch as xp

        xp.set_default_dtype(xp.float64)
    else:
        import jax
        import jax.numpy as xp

        jax.config.update("jax_enable_x64", True)
    given = unzipped(folder / "data" / f"{posterior.data}.json.zip")
    model, y = posterior.declare(ppl, xp, given)
    program = pplebm.Program(model, data=y, backend=backend, coordinates=posterior.coordinates).with_chains(
        compiled=True
    )
    began = time.perf_counter()
    start = chains.warm_start(
        program, ppl.key(0), program.params, ppl.asarray(y), settings["n_chains"], posterior.start, 1000, 0.2
    )
    draws = pplebm.sample(program, hmc(posterior.n_leapfrog), y, init=start, seed=1, progress=False, **settings)
    seconds = time.perf_counter() - began
    found = posterior.derived(draws.values, given)
    gold = unzipped(folder / "draws" / f"{posterior.draws}.json.zip")
    rows, arviz = {}, import_arviz()
    for quantity in gold[0]:
        reference = np.array([chain[quantity] for chain in gold])
        ours, (em, es), (gm, gs) = found[quantity], errors(found[quantity]), errors(reference)
        rows[quantity] = {
            "mean": float(ours.mean()), "sd": float(ours.std()),
            "mean_off": float((ours.mean() - reference.mean()) / np.hypot(em, gm)),
            "sd_off": float((ours.std() - reference.std()) / np.hypot(es, gs)),
            "r_hat": float(arviz.rhat(ours)), "ess": float(arviz.ess(ours)),
        }  # fmt: skip
    return {"seconds": seconds, "divergent": draws.n_divergent, "accept": float(draws.stats["accept_prob"].mean()),
            "quantities": rows}  # fmt: skip


def table(results: dict[str, dict[str, Any]], settings: dict[str, int]) -> str:
    """Markdown."""
    lines = [
        "| posterior | backend | largest offset of a mean, σ | of an sd, σ | largest R-hat | smallest ESS | "
        "divergent | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for key, r in results.items():
        name, backend = key.split("/")
        rows = r["quantities"].values()
        worst = {k: max(abs(q[k]) for q in rows) for k in ("mean_off", "sd_off", "r_hat")}
        lines.append(
            f"| {name} | {backend} | {worst['mean_off']:.1f} | {worst['sd_off']:.1f} | {worst['r_hat']:.3f} | "
            f"{min(q['ess'] for q in rows):,.0f} | {r['divergent']} | {r['seconds']:.0f} |"
        )
    n = sum(len(r["quantities"]) for r in results.values())
    lines += ["", f"{n} means and as many sds; of so many standard normal numbers the largest is expected near "
              f"{np.sqrt(2 * np.log(max(n, 2))):.1f}. Settings: {settings}. Not run in Pyro: "
              + "; ".join(f"{name} ({why})" for name, why in NOT_IN_TORCH.items()) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for, a line to the error stream for each."""
    from posteriors.models import POSTERIORS

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with data/ and draws/")
    parser.add_argument("--only", nargs="+", choices=POSTERIORS, default=list(POSTERIORS))
    parser.add_argument("--backend", nargs="+", choices=("pyro", "numpyro"), default=["pyro", "numpyro"])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="keep posteriordb.json and posteriordb.md")
    args = parser.parse_args()
    settings = {"n_chains": 10, "n_draws": args.draws, "n_warmup": 1000}
    results = json.loads(RESULT.read_text())["results"] if args.write and RESULT.exists() else {}
    for backend in args.backend:
        for name in args.only:
            if backend == "pyro" and name in NOT_IN_TORCH:
                continue
            results[f"{name}/{backend}"] = found = run(name, backend, args.data, settings)
            worst = max(abs(q["mean_off"]) for q in found["quantities"].values())
            told = f"  {name} {backend}: {found['seconds']:.0f} s, means within {worst:.1f} σ"
            print(told, file=sys.stderr, flush=True)
            if args.write:
                keep(results, settings)
    print(table(results, settings))


def keep(results: dict[str, dict[str, Any]], settings: dict[str, int]) -> None:
    """Write JSON and table, after every posterior."""
    RESULT.write_text(json.dumps({"settings": settings, "results": results}, indent=1) + "\n")
    head = "# posteriordb by pplebm's HMC\n\n`python benchmarks/posteriordb.py --data FOLDER --write`\n\n"
    TABLE.write_text(head + table(results, settings))


if __name__ == "__main__":
    main()
