"""log p(x) of held-out images under a tilted model, its base and its untilted twin, in nats, with error bars.

    python benchmarks/nats.py --seeds 0 1 2 --write                             # digits
    python benchmarks/nats.py --data mnist --data-dir FOLDER --seeds 0 --write
    python benchmarks/nats.py                                                   # the table of the rows that are kept

`joint_ebm` and the same generator without tilts, each learned by itself by the same algorithm at its default settings.
Evidence is that of `Run.log_evidence` at its defaults, on the first so many held-out images, the same for all models;
nothing is chosen by them. Nats are those of densities of pixels in [-1, 1].
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks")]

from speed_parts.machine import machine  # noqa: E402

import pplebm  # noqa: E402
from pplebm.runs.evaluate import compared, evaluate  # noqa: E402

RESULT = ROOT / "benchmarks" / "nats.json"
ROWS = {"digits": 200, "mnist": 100, "fashion_mnist": 100}  # held-out images


def measured(data: str, data_dir: str | None, inference: str, seed: int, updates: int | None) -> dict[str, Any]:
    """Figures of one seed: means and errors by model, differences to the twin, minutes."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fits = {}
        for name, tilted in (("tilted", True), ("twin", False)):
            fits[name] = pplebm.fit(
                "joint_ebm", data, inference, hyper={"tilted": tilted}, backend="numpyro", seed=seed, updates=updates,
                data_dir=data_dir, out=f"{folder}/{name}", progress=False,
            )  # fmt: skip
        learned = time.perf_counter()
        run = fits["tilted"]
        x = run.to_user(run.load(data_dir=data_dir).held_out)[: ROWS[data]]
        rows = evaluate(run, x, fits["twin"], seed=seed, progress=False)
        done = time.perf_counter()
    found: dict[str, Any] = {
        "minutes of learning": (learned - began) / 60,
        "minutes of evidence": (done - learned) / 60,
        "updates": run.manifest.updates,
    }
    for row in rows:
        gain = compared(row.evidence, rows[-1].evidence)
        found[row.model] = {
            "mean": row.mean, "error": row.error, "data_error": row.data_error, "bits": row.bits, "gain": gain[0],
            "gain_error": gain[1], "log_z": row.log_z, "log_z_error": row.log_z_error,
            "refused": int((~row.evidence.is_trusted).sum()), "data": len(row.evidence),
        }  # fmt: skip
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line for every data set, algorithm and model, over its seeds."""
    lines = [
        "| data | algorithm | model | seeds | log p(x), nats | ± estimator | ± over images | minus twin | ± | log Z |"
        " bits / dim | refused |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key in dict.fromkeys(name.rpartition("/")[0] for name in rows):
        of = [r for name, r in rows.items() if name.rpartition("/")[0] == key]
        for model in ("tilted model", "its base", "twin"):
            mean = lambda field, of=of, model=model: np.mean([r[model][field] for r in of])
            sd = f" ± {np.std([r[model]['mean'] for r in of], ddof=1):.2f}" if len(of) > 1 else ""
            data, inference = key.split("/")
            refused, n = (sum(r[model][field] for r in of) for field in ("refused", "data"))
            gain = " | " if model == "twin" else f"{mean('gain'):+.2f} | {mean('gain_error'):.2f}"
            lines.append(
                f"| {data} | {inference} | {model} | {len(of)} | {mean('mean'):.2f}{sd} | {mean('error'):.2f} "
                f"| {mean('data_error'):.2f} | {gain} "
                f"| {mean('log_z'):.2f} | {mean('bits'):.3f} | {refused} of {n} |"
            )
    told = "; ".join(
        f"{name}: {r['updates']} updates, {r['minutes of learning']:.1f} minutes of learning, "
        f"{r['minutes of evidence']:.1f} of evidence"
        for name, r in rows.items()
    )
    return "\n".join(lines) + f"\n\nMean ± standard deviation over seeds. {told}.\n"


def main() -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", choices=ROWS, default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--inference", default="noise_contrastive")
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--updates", type=int)
    parser.add_argument("--write", action="store_true", help="keep nats.json, after every seed")
    args = parser.parse_args()
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    for seed in args.seeds:
        found = measured(args.data, args.data_dir, args.inference, seed, args.updates)
        rows[f"{args.data}/{args.inference}/{seed}"] = found
        print(f"  {args.data}, seed {seed}: {found}", file=sys.stderr, flush=True)
        if args.write:
            RESULT.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
