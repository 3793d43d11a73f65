"""Every algorithm page on handwritten digits, default settings, several seeds, beside its untilted twin.

    python benchmarks/algorithms.py --seeds 0 1 2 --write     # keeps rows that are not run again
    python benchmarks/algorithms.py --only info_vae --seeds 3 4 5 6 7 8 9 --brief --write     # does learning hold?

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
    "mle", "short_run_mle", "variational_joint", "dual_mcmc", "two_stage", "noise_contrastive", "multi_stage_nce",
    "info_vae", "short_run_learned_step", "persistent_mle", "alternating_backprop", "flow_posterior",
)  # fmt: skip
GIVEN = {"flow_posterior": "short_run_mle"}  # pages that take their model from a run of another
N = 1000


def measure(page: str, seed: int, backend: str, brief: bool) -> dict[str, Any]:
    """Fit tilted model and twin by one page with one seed, and measure both; or see whether the tilted one holds."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from pplebm import data

    digits, out = data.load("digits", seed=seed), {"page": page, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tilted",) if brief else ("tilted", "twin"):
            run, out[name] = fitted(page, seed, backend, digits, name == "tilted", Path(folder) / name)
            if not brief:
                out[name]["auc"], ess = two_sample(run, digits.held_out, seed, name == "tilted")
                out |= {} if ess is None else {"ess": ess}
    print(f"  {page} seed {seed}: {json.dumps(out)}", file=sys.stderr, flush=True)
    return out


def fitted(page: str, seed: int, backend: str, digits: Any, tilted: bool, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A run, and how learning went."""
    import pplebm

    same = {"data": digits, "seed": seed, "hyper": {"tilted": tilted}, "backend": backend}
    start = None
    if page in GIVEN:
        given = folder.with_name(f"given-{folder.name}")
        start = pplebm.fit("joint_ebm", inference=GIVEN[page], out=given, **same).path
    began = time.perf_counter()
    run = pplebm.fit("joint_ebm", inference=page, out=folder, start=start, **same)
    last = run.metrics[-20:]
    return run, {
        "seconds": time.perf_counter() - began,
        "held_out_error": last[-1]["held_out_error"],
        "tilt_gap": float(np.mean([row.get("tilt_gap", 0.0) for row in last])),
        "rollbacks": len(run.manifest.rollbacks),
        "divergent": max(sum(v for k, v in row.items() if k.startswith("divergent")) for row in run.metrics),
    }


def two_sample(run: Any, held_out: np.ndarray, seed: int, tilted: bool) -> tuple[dict[str, float], float | None]:
    """Areas under the curve by the source of prior draws, and the effective base draws of a tilted model."""
    from digits import forest_auc, long_chain, model_means, resample

    rebuilt, ess = model_means(run, run.posterior_latents(held_out, seed)), None
    means = {"own": model_means(run, run.prior_latents(N, seed))}
    if tilted:
        resampled, ess = resample(run, seed)
        means |= {
            "long": model_means(run, long_chain(run, seed)), "resampled": model_means(run, resampled),
            "base": model_means(run, run.prior_latents(N, seed, base=True)),
        }  # fmt: skip
    return {key: forest_auc(rebuilt, m, seed) for key, m in means.items()}, ess


def table(results: list[dict[str, Any]], backend: str) -> str:
    """Markdown: mean ± standard deviation over seeds."""

    def cell(values: list[float], digits: int = 3) -> str:
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    lines = [
        "| page | AUC, own chain | long chain | resampled base (ESS) | its base | untilted twin | held-out error | "
        "twin's | tilt gap | seconds | seeds measured | in trouble |",
        "|---|---|---|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    for page in PAGES:
        of_page = [r for r in results if r["page"] == page]
        found = [r for r in of_page if "twin" in r]
        if not found:
            continue
        auc = {key: cell([r["tilted"]["auc"][key] for r in found]) for key in ("own", "long", "resampled", "base")}
        twin = cell([r["twin"]["auc"]["own"] for r in found])
        errors = [cell([r[m]["held_out_error"] for r in found], 4) for m in ("tilted", "twin")]
        bad = sum(r["tilted"]["rollbacks"] + (r["tilted"]["divergent"] > 0) > 0 for r in of_page)
        lines.append(
            f"| {page} | {auc['own']} | {auc['long']} | {auc['resampled']} "
            f"({np.mean([r['ess'] for r in found]):.0f}) | {auc['base']} | {twin} | {errors[0]} | {errors[1]} | "
            f"{np.mean([r['tilted']['tilt_gap'] for r in found]):.2f} | "
            f"{np.mean([r['tilted']['seconds'] for r in found]):.0f} | {len(found)} | {bad} of {len(of_page)} |"
        )
    return "\n".join([*lines, "", f"Backend {backend}, one thread; chance is 0.5. `python benchmarks/algorithms.py`"])


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="numpyro")
    parser.add_argument("--jobs", type=int, default=1, help="fits at once, one thread each")
    parser.add_argument("--brief", action="store_true", help="only whether learning of the tilted model holds")
    parser.add_argument("--write", action="store_true", help="keep algorithms.json and put the table into README.md")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    results = json.loads(RESULT.read_text()) if args.write and RESULT.exists() else []
    wanted = [(page, seed) for seed in args.seeds for page in args.only]
    if args.brief:  # what has been measured whole stays
        wanted = [w for w in wanted if w not in {(r["page"], r["seed"]) for r in results}]
    results = [r for r in results if (r["page"], r["seed"]) not in wanted]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for found in pool.map(
            measure, *zip(*wanted, strict=True), [args.backend] * len(wanted), [args.brief] * len(wanted)
        ):
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
