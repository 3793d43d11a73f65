"""Every algorithm page on handwritten digits, default settings, several seeds, beside its untilted twin.

    python benchmarks/algorithms.py --seeds 0 1 2 --write     # keeps rows that are not run again
    python benchmarks/algorithms.py --only two_stage --seeds 0 1 2 3 4 5 6 7 8 9

The model is `joint_ebm`. Nothing is chosen by looking at the figures, which are those of benchmarks/digits.py: the AUC
of a random forest that tells model means of prior draws from reconstructions of held-out digits (0.5 is chance, lower
is better), for the page's own chain, a long chain, resampled base draws, the base, and for the untilted twin
that the same page learns with the same settings.
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
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULT, README = ROOT / "benchmarks" / "algorithms.json", ROOT / "inference" / "README.md"
BEGIN, END = "<!-- digits: begin -->", "<!-- digits: end -->"
PAGES = (
    "short_run_mle", "variational_joint", "dual_mcmc", "two_stage", "noise_contrastive", "info_vae",
    "short_run_learned_step", "persistent_mle", "alternating_backprop", "flow_posterior",
)  # fmt: skip
GIVEN = {"flow_posterior": "short_run_mle"}  # pages that take their model from a run of another
N = 1000


def measure(page: str, seed: int, backend: str) -> dict[str, Any]:
    """Fit tilted model and twin by one page with one seed, and measure both."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from digits import forest_auc, long_chain, model_means, resample

    import pplebm
    from pplebm import data

    digits, out = data.load("digits", seed=seed), {"page": page, "seed": seed}
    held_out = digits.held_out
    with tempfile.TemporaryDirectory() as folder:
        for name, tilted in (("tilted", True), ("twin", False)):
            same = {"data": digits, "seed": seed, "hyper": {"tilted": tilted}, "backend": backend}
            start = None
            if page in GIVEN:
                start = pplebm.fit("joint_ebm", inference=GIVEN[page], out=f"{folder}/{name}-given", **same).path
            began = time.perf_counter()
            run = pplebm.fit("joint_ebm", inference=page, out=f"{folder}/{name}", start=start, **same)
            last = run.metrics[-20:]
            out[name] = {
                "seconds": time.perf_counter() - began,
                "held_out_error": last[-1]["held_out_error"],
                "energy_gap": float(np.mean([row.get("energy_gap", 0.0) for row in last])),
                "rollbacks": len(run.manifest["rollbacks"]),
                "divergent": max(sum(v for k, v in row.items() if k.startswith("divergent")) for row in run.metrics),
            }
            rebuilt = model_means(run, run.posterior_latents(held_out, seed))
            means = {"own": model_means(run, run.prior_latents(N, seed))}
            if tilted:
                resampled, out["ess"] = resample(run, seed)
                means |= {
                    "long": model_means(run, long_chain(run, seed)), "resampled": model_means(run, resampled),
                    "base": model_means(run, run.prior_latents(N, seed, base=True)),
                }  # fmt: skip
            out[name]["auc"] = {key: forest_auc(rebuilt, m, seed) for key, m in means.items()}
    print(f"  {page} seed {seed}: {json.dumps(out)}", file=sys.stderr, flush=True)
    return out


def table(results: list[dict[str, Any]], backend: str) -> str:
    """Markdown: mean ± standard deviation over seeds."""

    def cell(values: list[float], digits: int = 3) -> str:
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    lines = [
        "| page | AUC, own chain | long chain | resampled base (ESS) | its base | untilted twin | held-out error | "
        "twin's | energy gap | seconds | seeds in trouble |",
        "|---|---|---|---|---|---|---|---|---:|---:|---:|",
    ]
    for page in PAGES:
        found = [r for r in results if r["page"] == page]
        if not found:
            continue
        auc = {key: cell([r["tilted"]["auc"][key] for r in found]) for key in ("own", "long", "resampled", "base")}
        twin = cell([r["twin"]["auc"]["own"] for r in found])
        errors = [cell([r[m]["held_out_error"] for r in found], 4) for m in ("tilted", "twin")]
        bad = sum(r["tilted"]["rollbacks"] + (r["tilted"]["divergent"] > 0) > 0 for r in found)
        lines.append(
            f"| {page} | {auc['own']} | {auc['long']} | {auc['resampled']} "
            f"({np.mean([r['ess'] for r in found]):.0f}) | {auc['base']} | {twin} | {errors[0]} | {errors[1]} | "
            f"{np.mean([r['tilted']['energy_gap'] for r in found]):.2f} | "
            f"{np.mean([r['tilted']['seconds'] for r in found]):.0f} | {bad} of {len(found)} |"
        )
    return "\n".join([*lines, "", f"Backend {backend}, one thread; chance is 0.5. `python benchmarks/algorithms.py`"])


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="numpyro")
    parser.add_argument("--jobs", type=int, default=1, help="fits at once, one thread each")
    parser.add_argument("--write", action="store_true", help="keep algorithms.json and put the table into README.md")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    results = json.loads(RESULT.read_text()) if args.write and RESULT.exists() else []
    wanted = [(page, seed) for seed in args.seeds for page in args.only]
    results = [r for r in results if (r["page"], r["seed"]) not in wanted]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for found in pool.map(measure, *zip(*wanted, strict=True), [args.backend] * len(wanted)):
            results.append(found)
            if args.write:
                RESULT.write_text(json.dumps(results, indent=1) + "\n")
    text = table(results, args.backend)
    print(text)
    if args.write:
        readme = README.read_text()
        head, tail = readme.split(BEGIN)[0], readme.split(END)[1]
        README.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


if __name__ == "__main__":
    main()
