"""Twelve posteriors of posteriordb by `pplebm.sample` at its defaults, against the reference draws and beside NUTS.

    python benchmarks/posteriordb.py --data FOLDER             # the folder `posteriordb`, with data/ and draws/
    python benchmarks/posteriordb.py --data FOLDER --ours      # pplebm's rows alone; --nuts: NumPyro's NUTS alone
    python benchmarks/posteriordb.py --data FOLDER --write     # keeps the rows that are not run again
    python benchmarks/posteriordb.py --data FOLDER --check     # declarations against the published densities
    python benchmarks/posteriordb.py                           # the table of the rows that are kept

Every row is a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from posteriors.models import POSTERIORS  # noqa: E402
from posteriors.runs import CHAINS, DRAWS, WARMUP, Task, declared, measured, unzipped  # noqa: E402
from posteriors.table import table  # noqa: E402

RESULT, TABLE = ROOT / "benchmarks" / "posteriordb.json", ROOT / "benchmarks" / "posteriordb.md"
HEAD = "# posteriordb by `pplebm.sample`\n\n`python benchmarks/posteriordb.py --data FOLDER --write`\n\n"
PYRO_NUTS = ("arK", "eight_schools_noncentered")  # Pyro's takes minutes each, and starts no improper distribution


def tasks(args: argparse.Namespace) -> Iterable[Task]:
    """What is to be run, NUTS first."""
    from posteriors.table import NOT_RUN

    if not args.ours and not args.pyro_nuts:
        yield from (Task(name, "numpyro", "float64", "nuts") for name in args.only)
    if args.pyro_nuts:
        yield from (Task(name, "pyro", "float64", "nuts") for name in args.only if name in PYRO_NUTS)
    if not args.nuts and not args.pyro_nuts:
        for precision in args.precision:
            for backend in args.backend:
                named = (Task(name, backend, precision, "pplebm") for name in args.only)
                yield from (
                    task
                    for task in named
                    if not {(task.posterior, backend), (task.posterior, precision)} & set(NOT_RUN)
                )


def row(task: Task, folder: Path, seed: int) -> dict[str, Any]:
    """A row with the machine it was measured on, and how many of its cores others kept busy meanwhile."""
    from speed_parts.machine import Load, machine

    load = Load()
    return measured(task, folder, seed) | {"others_load": load.of_others(), "machine": machine()}


def apart(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """The same by a process of its own."""
    line = [sys.executable, __file__, "--data", str(args.data), "--seed", str(args.seed), "--row", task.key]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{task.key} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str, backend: str, folder: Path) -> float:
    """Largest difference between two points of the declared log density less the published one, at reference draws."""
    from posteriors.checks import excess

    import pplebm

    task, gold = (
        Task(name, backend, "float64", "pplebm"),
        unzipped(folder / "draws" / f"{POSTERIORS[name].draws}.json.zip"),
    )
    model, y = declared(task, folder)
    program = pplebm.Program(model, data=y, backend=backend)
    rng, values = np.random.default_rng(0), {}
    for site in program.latents:
        names = [site.name, *(f"{site.name}[{i + 1}]" for i in range(int(np.prod(site.shape))))]
        columns = [gold[0][n][::100] for n in names if n in gold[0]]
        values[site.name] = (
            np.reshape(np.transpose(columns), (10, *site.shape)) if columns else rng.normal(size=(10, *site.shape))
        )
    z = program.unconstrain(program.params, values, program.data(y))
    given = unzipped(folder / "data" / f"{POSTERIORS[name].data}.json.zip")
    return float(np.ptp(excess(program, name, given, y, {k: program.ppl.to_numpy(a) for k, a in z.items()})))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with data/ and draws/")
    parser.add_argument("--only", nargs="+", choices=POSTERIORS, default=list(POSTERIORS))
    parser.add_argument("--backend", nargs="+", choices=("pyro", "numpyro"), default=["pyro", "numpyro"])
    parser.add_argument("--precision", nargs="+", choices=("float64", "float32"), default=["float64", "float32"])
    parser.add_argument("--seed", type=int, default=0)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ours", action="store_true", help="pplebm alone")
    which.add_argument("--nuts", action="store_true", help="NumPyro's NUTS alone, in float64")
    which.add_argument("--pyro-nuts", action="store_true", help=f"Pyro's alone, on {' and '.join(PYRO_NUTS)}")
    parser.add_argument("--check", action="store_true", help="compare the declarations with the published densities")
    parser.add_argument("--write", action="store_true", help="keep posteriordb.json and posteriordb.md")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run what is asked for, a line to the error stream for each."""
    args = arguments()
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    if args.row:
        print(json.dumps(row(Task(*args.row.split("/")), args.data, args.seed)))
        return
    if args.check:
        for name in args.only:
            print(
                f"{name}: " + ", ".join(f"{check(name, b, args.data):.1e} nats by {b}" for b in args.backend),
                flush=True,
            )
        return
    for task in tasks(args) if args.data else ():
        rows[task.key] = found = apart(task, args)
        told = f"R-hat {found['r_hat']:.3f}, means within {found['mean_off']:.1f} errors, {found['seconds']:.1f} s"
        print(f"  {task.key}: {told}", file=sys.stderr, flush=True)
        if args.write:
            keep(rows)
    print(table(rows))


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """Write JSON and table, after every row."""
    settings = {"n_chains": CHAINS, "n_warmup": WARMUP, "n_draws": DRAWS}
    RESULT.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
    TABLE.write_text(HEAD + table(rows))


if __name__ == "__main__":
    main()
