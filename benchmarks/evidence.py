"""Estimators of log Z and log p(x) against exact answers: bias, errors, coverage of their intervals.

    python benchmarks/evidence.py                                # every estimator on every case; some ten minutes
    python benchmarks/evidence.py --only bimodal --estimator ais --backend pyro
    python benchmarks/evidence.py --write                        # keeps evidence.json and .md, with the rows not run
    python benchmarks/evidence.py --table                        # the table of the rows that are kept

The cases are those of tests/beds.py: closed forms and quadrature. Every estimator runs at its defaults with seeds 0, 1,
..., and is compared with the truth by datum. In the table, bias is the mean over data and repetitions, in nats
and in its own standard errors; "told" is the mean of the standard errors that the estimator gives, to be compared with
the root mean square, rmse; coverage is that of nominal 95 % intervals, of what was not refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from beds import BEDS  # noqa: E402
from joint_bed import JOINT  # noqa: E402
from speed_parts.machine import machine  # noqa: E402

import pplebm  # noqa: E402
from pplebm.errors import PplebmError, PplebmWarning  # noqa: E402
from pplebm.evidence import estimators  # noqa: E402
from pplebm.evidence.estimate import Evidence  # noqa: E402

RESULT, TABLE = (ROOT / "benchmarks" / f"evidence.{end}" for end in ("json", "md"))
HEAD = "# Estimators of log Z and log p(x) against exact answers\n\n`python benchmarks/evidence.py --write`\n\n"
CASES = {bed.name: bed for bed in (*BEDS, JOINT)}
NOTE = """
Every estimator at its defaults, on every datum of the case, NumPyro. Bias is the mean over data and seeds, in nats and
in its own standard errors; told is the mean of the standard errors that the estimator gives, to be compared with the
root mean square, rmse; coverage is that of nominal 95 % intervals, of what was not refused, with a Monte Carlo error of
3 % for one log Z and 50 seeds, less for several data; seconds are those of a repetition after the first, which
compiles, on a machine that did other work as well.
"""
LEVEL = 0.95  # of the intervals
ROUNDING = 1e-5  # nats, of single precision: where an estimate is exact, its error is 0 and only rounding is off

Estimator = Callable[[Any, Any, Any, int], Evidence]  # program, params, data, seed


def log_z(program: Any, params: Any, data: Any, seed: int, method: str) -> Evidence:
    """log Z, at the data where the prior needs them."""
    given = data if program.prior_reads or program.has_global_latents else None
    return pplebm.log_z(program, given, params=params, method=method, seed=seed, progress=False)


def log_evidence(program: Any, params: Any, data: Any, seed: int, method: str) -> Evidence:
    """log p(x), with an estimate of log Z of its own in every repetition."""
    return pplebm.log_evidence(program, data, params=params, method=method, seed=seed, progress=False)


ESTIMATORS: dict[str, dict[str, Estimator]] = {
    "log_z": {method: partial(log_z, method=method) for method in estimators.METHODS},
    "log_evidence": {method: partial(log_evidence, method=method) for method in estimators.METHODS},
}
METHODS = sorted({name for of in ESTIMATORS.values() for name in of})


def figures(found: Sequence[Evidence | None], exact: np.ndarray) -> dict[str, float | None]:
    """What repetitions say of an estimator; None stands for one that refused all data."""
    off = np.stack([np.full(len(exact), np.nan) if e is None else e.value - exact for e in found])
    told = np.stack([np.full(len(exact), np.nan) if e is None else e.error for e in found])
    within = np.full(off.shape, np.nan)
    for row, e in enumerate(found):
        if e is not None:
            low, high = e.interval(LEVEL)
            is_in = (low - ROUNDING <= exact) & (exact <= high + ROUNDING)
            within[row] = np.where(np.isfinite(off[row]), is_in, np.nan)
    trusted = np.isfinite(off)
    if not trusted.any():
        return {"bias": None, "refused": 1.0}
    by_repetition = np.array([row[ok].mean() for row, ok in zip(off, trusted, strict=True) if ok.any()])
    error = by_repetition.std(ddof=1) / np.sqrt(len(by_repetition)) if len(by_repetition) > 1 else np.nan
    return {
        "bias": float(by_repetition.mean()),
        "bias_in_errors": float(by_repetition.mean() / max(error, ROUNDING)),
        "worst_bias": float(max((off[ok, i].mean() for i, ok in enumerate(trusted.T) if ok.any()), key=abs)),
        "rmse": float(np.sqrt((off[trusted] ** 2).mean())),
        "told": float(told[trusted].mean()),
        "coverage": float(within[trusted].mean()),
        "refused": float(1.0 - trusted.mean()),
    }


def measured(case: str, quantity: str, name: str, backend: str, repetitions: int) -> dict[str, Any]:
    """One estimator on one case; seconds of a repetition after the first, which compiles."""
    bed, found, seconds = CASES[case], [], []
    program, estimate = bed.program(backend), ESTIMATORS[quantity][name]
    for seed in range(repetitions):
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PplebmWarning)  # refused data are counted below
            try:
                found.append(estimate(program, program.params, bed.data, seed))
            except PplebmError:
                found.append(None)
        seconds.append(time.perf_counter() - began)
    each = float(np.median(seconds[1:])) if repetitions > 1 else seconds[0]
    seen = {"seconds": each, "compile": max(0.0, seconds[0] - each), "repetitions": repetitions, "data": bed.n}
    return figures(found, getattr(bed, quantity)) | seen


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| case | of | estimator | seeds | bias | in errors | rmse | told | coverage, % | refused, % | seconds |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, r in rows.items():
        case, quantity, name, backend = key.split("/")
        what = {"log_z": "log Z", "log_evidence": "log p(x)"}[quantity]
        start = f"| {case} | {what} | {name}{'' if backend == 'numpyro' else ', ' + backend} | {r['repetitions']} "
        if r["bias"] is None:
            lines.append(f"{start}| | | | | | 100 | {r['seconds']:.2f} |")
            continue
        lines.append(
            f"{start}| {r['bias']:+.4f} | {r['bias_in_errors']:+.1f} | {r['rmse']:.4f} | {r['told']:.4f} "
            f"| {100 * r['coverage']:.1f} | {100 * r['refused']:.0f} | {r['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--of", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--estimator", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--backend", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--write", action="store_true", help="keep evidence.json, after every row")
    parser.add_argument("--table", action="store_true", help="run nothing")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for, a line to the error stream for each."""
    args = arguments()
    kept = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    order = [f"{c}/{q}/{name}" for c in CASES for q in ESTIMATORS for name in ESTIMATORS[q]]
    rows = kept if args.write or args.table else {}
    for key in () if args.table else order:
        case, quantity, name = key.split("/")
        if case not in args.only or quantity not in args.of or name not in args.estimator:
            continue
        found = measured(case, quantity, name, args.backend, args.repetitions)
        rows[f"{key}/{args.backend}"] = found
        rows = {k: rows[k] for k in sorted(rows, key=lambda k: (order.index(k.rpartition("/")[0]), k))}
        print(f"  {key}: coverage {found.get('coverage')}, {found['seconds']:.2f} s", file=sys.stderr, flush=True)
        if args.write:
            RESULT.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
            TABLE.write_text(HEAD + table(rows) + NOTE)
    print(table(rows))


if __name__ == "__main__":
    main()
