"""What a GPU is worth: speed, loop, samplers and training at the size of CIFAR-10, by one command, in one table.

    python benchmarks/gpu.py --write                            # all four, then gpu.json and gpu.md; some half an hour
    python benchmarks/gpu.py --only training --updates 200      # on whatever device torch and JAX see
    python benchmarks/gpu.py --only training --quick            # 8 x 8 x 3 images, 6 updates: to check the command

Speed (`speed.py`), loop (`loop.py`) and samplers (`samplers.py`) are the benchmarks of those names, and what they print
stands below the table. Training: the convolutional forms of `joint_ebm` and `latent_ebm` learn images of 32 x 32 x 3
bytes by short_run_mle and variational_joint at their defaults, each in a process of its own, on Pyro in full precision
and in bfloat16, on NumPyro, and over all devices where there are several. Images are made up, and smooth: time does not
depend on what they show. ms are those of an update in the second half of a run, all that a user waits for; memory is
the device's own peak, or the process's on a CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_parts.training import Cell, cells, run_cell
from speed_parts.machine import machine, named

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "gpu.json"
PARTS = ("speed", "loop", "samplers", "training")
COMMANDS = {
    "speed": ["speed.py", "--size", "S", "M", "--no-growth", "--no-memory"],
    "loop": ["loop.py", "--pages", "noise_contrastive", "short_run_mle", "--rounds", "5"],
    "samplers": ["samplers.py", "--only", "tilted/pplebm-numpyro", "tilted/numpyro-nuts", "tilted/pplebm-pyro"],
}


def own_table(part: str) -> list[str]:
    """Run another benchmark, and keep what it prints."""
    script, *more = COMMANDS[part]
    done = subprocess.run([sys.executable, script, *more], cwd=ROOT / "benchmarks", text=True, stdout=subprocess.PIPE)
    if done.returncode:
        return [f"benchmarks/{script} ended with {done.returncode}"]
    return [line for line in done.stdout.splitlines() if line.strip()]


def in_its_own_process(cell: Cell) -> dict[str, Any]:
    """Figures of one training, or why there are none."""
    command = [sys.executable, __file__, "--cell", json.dumps(cell._asdict())]
    done = subprocess.run(command, text=True, capture_output=True)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["nothing was printed"]
    return cell._asdict() | (json.loads(lines[-1]) if done.returncode == 0 else {"wrong": lines[-1]})


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    head = "| {model} | {inference} | {backend} | {precision} | {devices} |".format(**found)
    if "wrong" in found:
        return f"{head} | | | | {found['wrong']} |"
    return f"{head} {found['ms']:.1f} | {found['images']:.0f} | {found['first']:.1f} | {found['mib']} | |"


def page(found: dict[str, Any]) -> str:
    """All that was measured, in Markdown."""
    lines = ["# On a GPU", "", f"`python benchmarks/gpu.py`, on {found['machine']}.", ""]
    if found["training"]:
        lines += ["| model | by | backend | precision | devices | ms / update | images / s | first update, s | MiB | |"]
        lines += ["|---|---|---|---|---:|---:|---:|---:|---:|---|", *map(row, found["training"]), ""]
    for part, told in found["parts"].items():
        lines += [f"## {part}", "", *told, ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print one table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--updates", type=int, default=200, help="of a training")
    parser.add_argument("--quick", action="store_true", help="small images and few updates, to check the command")
    parser.add_argument("--write", action="store_true", help="keep gpu.json and gpu.md")
    parser.add_argument("--cell", help=argparse.SUPPRESS)  # of a process of its own
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(run_cell(Cell(**json.loads(args.cell)))))
        return
    found: dict[str, Any] = {"machine": named(machine()), "training": [], "parts": {}}
    for part in args.only:
        if part != "training":
            found["parts"][part] = own_table(part)
            continue
        for cell in cells(args.quick, args.updates):
            found["training"].append(in_its_own_process(cell))
            print(row(found["training"][-1]), file=sys.stderr, flush=True)
    print(page(found))
    if args.write:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
        RESULT.with_suffix(".md").write_text(page(found))


if __name__ == "__main__":
    main()
