"""Speed of one learning iteration, 40 posterior and 60 prior steps and the updates, beside the published style of loop.

    python benchmarks/speed.py --size S M --write

All candidates run in one process, in turn; "× (a)" is the median over rounds of the time of (a) over theirs in the same
round, (a) on as many threads as suit it best, one or all. With --reference PATH the functions of the released code run
too, from a checkout. (b) is the same density written by hand, through the same compiler: what (c) and (d) cost over it
is the price of a declaration. "Of peak" is the share of the best measured product of float32 matrices. "Compile" is the
first iteration less a later one, caches cold, in a process of its own. That all do equal work is shown by the
latents at the end of noiseless chains.

Sizes: S, 8 × 8 pixels, z 16 + 8, perceptrons of 128-128, tilts of 64-64, 128 data; M, 28 × 28 pixels, z 32 + 16,
transposed convolutions of 256-128-64-1 channels, 4 × 200 between the layers, tilts of 3 × 200, 100 data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT, README = ROOT / "benchmarks" / "speed.json", ROOT / "README.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
ROUNDS = {"S": 21, "M": 7}
QUICK_ROUNDS, QUICK_STEPS = 2, 3


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    add, flag = parser.add_argument, argparse.BooleanOptionalAction
    add("--size", nargs="+", default=["S", "M"], choices=["S", "M"])
    add("--rounds", type=int, help=f"of every column; {ROUNDS['S']} at S and {ROUNDS['M']} at M")
    add("--only", nargs="+", help="letters or keys of candidates: a b c d, b-torch, c-bf16, d-sharded; (a) always runs")
    add("--reference", help="a checkout of hierarchical-joint-ebm, whose own functions are then timed too")
    add("--growth", action=flag, default=None, help="vary layers, batch, steps and dimension at S; minutes")
    add("--memory", action=flag, default=None, help="peak memory and cold compile times in processes of their own")
    add("--compile", action=flag, default=True, help="compile torch's steps; without, to check the command only")
    add("--quick", action="store_true", help="few steps and rounds, nothing else unless asked: to check the command")
    add("--out", type=Path, help="write the JSON here")
    add("--write", action="store_true", help="keep speed.json and put the tables into README.md")
    for name, kind in (("--fresh", str), ("--place", str), ("--steps", int)):  # of a process of its own
        add(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(size: Any, place: str, rounds: int, choice: Any, memory: bool) -> dict[str, Any]:
    """Everything about one size on one place."""
    from speed_parts import fresh, machine, roster, sizes, timing

    print(f"size {size.name} on {place}", file=sys.stderr, flush=True)
    candidates, skipped = roster.roster(size, place, choice)
    first = timing.first_calls(candidates)
    equal = timing.equal_work(candidates, size, place)
    print(f"  {rounds} rounds", file=sys.stderr, flush=True)
    found = timing.timed(candidates, rounds)
    rows = found["columns"]["iteration"]["rows"]
    peak, work = machine.peak(place), sizes.work(size)
    best = max(v for name, v in peak.items() if "float32" in name)
    found |= {
        "size": size.name, "place": place, "rounds": rounds, "peak": peak, "operations": work, "skipped": skipped,
        "labels": {c.key: c.label for c in candidates},
        "equal_work": equal,
        "compile_seconds": {key: max(0.0, f["iteration"] - rows[key]["seconds"]) for key, f in first.items()},
        "of_peak": {key: work["iteration"] / row["seconds"] / 1e9 / best for key, row in rows.items()},
        "workload": size._asdict() | {"hyper": size.hyper._asdict()},
        "differences": {c.key: c.differences for c in candidates if hasattr(c, "differences")},
    }  # fmt: skip
    if memory:
        found["fresh"] = fresh.measured(__file__, [key for key in found["labels"] if key != "a-1"], size, place, choice)
    return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All that was asked for."""
    from speed_parts import growth, machine, roster, sizes, table

    only = None if args.only is None else roster.expanded(args.only)
    choice = roster.Choice(only, args.reference, args.compile)
    where = {args.reference: "PATH", str(args.out): "FILE"}  # paths of one machine are of no use to others
    result: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/speed.py", *(where.get(a, a) for a in sys.argv[1:])]),
        "quick": args.quick, "seed": sizes.SEED, "choice": roster.as_dict(choice), "machine": machine.machine(),
        "sizes": [],
    }  # fmt: skip
    memory, grow = (not args.quick if wish is None else wish for wish in (args.memory, args.growth))
    for place in roster.places():
        for name in args.size:
            rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS[name])
            result["sizes"].append(measure(resized(args, name), place, rounds, choice, memory))
    if grow:
        rounds = args.rounds or (QUICK_ROUNDS if args.quick else 9)
        result["growth"] = growth.growth(resized(args, "S"), rounds, choice, args.quick)
    if not args.quick:
        result["goals"] = table.goals(result["sizes"])
    return result


def resized(args: argparse.Namespace, name: str) -> Any:
    """A size by name, its chains shortened if the command says so."""
    from speed_parts import sizes

    n = args.steps or (QUICK_STEPS if args.quick else None)
    return sizes.SIZES[name] if n is None else sizes.SIZES[name]._replace(n_posterior=n, n_prior=n)


def main() -> None:
    """The command."""
    args = options()
    flag = "--xla_force_host_platform_device_count"
    if flag not in os.environ.get("XLA_FLAGS", ""):  # read when JAX starts, so all rows run with as many
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={os.cpu_count()}".strip()
    from speed_parts import fresh, roster, table

    from pplebm.errors import PplebmError

    with fresh.cold_caches():
        try:
            if args.fresh:
                choice = roster.Choice(None, args.reference, args.compile)
                size = resized(args, args.size[0])
                print(json.dumps(fresh.report(args.fresh, size, args.place or "cpu", choice)))
                return
            result = run(args)
        except (PplebmError, roster.Skipped) as error:
            sys.exit(f"speed.py: {error}")
    text = table.text(result)
    print(text)
    if "goals" in result:
        print("\n" + table.goals_table(result["goals"]))
    if args.out or args.write:
        (args.out or RESULT).write_text(json.dumps(result, indent=1) + "\n")
    if args.write:
        head, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
