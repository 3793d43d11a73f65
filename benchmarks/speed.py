"""Speed of one learning iteration, 40 posterior and 60 prior steps and the update, against the published style of loop.

    python benchmarks/speed.py --size S M --write

All candidates run in one process, in turn; ratios are medians of per-round ratios to (a), the faster of one and all
threads. (b) is the same density written by hand, in the same loop: what declaring it costs. Equal work is shown by
the latents at the end of noiseless chains. Sizes: S, x 64, z 16 + 8, perceptrons of 128-128, tilts of 64-64, 128 data;
M, x 28x28, z 32 + 16, a decoder of transposed convolutions 256-128-64-1, perceptrons of 4x200 and 3x200, 100 data.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT, README = ROOT / "benchmarks" / "speed.json", ROOT / "README.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
COLUMNS = ("iteration", "posterior", "prior")
BUSY = 0.1  # cores of other processes from which a warning is given
SAME = {"full": 2e-2, "bf16": 0.5}  # largest difference of a latent; a kink hit by rounding can move one this far

sys.path.insert(0, str(ROOT / "benchmarks"))


def candidates(size: Any, only: list[str] | None) -> list[Any]:
    """All candidates of a size that this machine can run; `only` keeps the letters given."""
    import jax
    import torch
    from speed_parts.candidates import ByHand, Ours, Reference

    kinds = {
        "a": lambda: [Reference(size, n) for n in sorted({1, torch.get_num_threads()})],
        "b": lambda: [ByHand(size, "pyro"), ByHand(size, "numpyro")],
        "c": lambda: [Ours(size, "pyro"), Ours(size, "pyro", precision="bf16")],
        "d": lambda: [Ours(size, "numpyro", devices=n) for n in sorted({1, len(jax.devices())}) if size.batch % n == 0],
    }
    return [c for letter, make in kinds.items() if only is None or letter in only for c in make()]


def equal_work(every: list[Any], size: Any) -> dict[str, float]:
    """Largest difference of the final latents of a noiseless chain from those of the published style."""
    import numpy as np

    rng = np.random.default_rng(1)
    z = {f"z{i}": rng.normal(size=(size.batch, d)) for i, d in enumerate(size.dims, start=1)}
    worst: dict[str, float] = {}
    for phase in ("posterior", "prior"):
        ends = {c.name: c.final(z, phase) for c in every}
        expected = ends[every[0].name]
        for name, end in ends.items():
            off = max(float(np.abs(end[k] - expected[k]).max()) for k in z)
            worst[name] = max(worst.get(name, 0.0), off)
    for name, off in worst.items():
        if off > SAME["bf16" if "bf16" in name else "full"]:
            raise SystemExit(f"'{name}' does other work: its latents are off by {off:.2g} with noise off.")
    return worst


def measure(size: Any, rounds: int, only: list[str] | None) -> dict[str, Any]:
    """Everything about one size."""
    import numpy as np
    from speed_parts import sizes, timing

    every = candidates(size, only)
    for c in every:
        print(f"  {c.name}: compiling", file=sys.stderr, flush=True)
        c.prepare()
    rows: dict[str, Any] = {c.name: {"compile_seconds": c.compile_seconds} for c in every}
    for name, off in equal_work(every, size).items():
        rows[name]["off_without_noise"] = off
    load = timing.others_load()
    for column in COLUMNS:
        seconds = timing.interleaved(every, column, rounds)
        references = [n for n in seconds if n.startswith("(a)")] or list(seconds)[:1]
        baseline = min(references, key=lambda n: np.median(seconds[n]))
        ratios = timing.against(seconds, baseline)
        by_hand = {k: n for n in seconds if n.startswith("(b)") for k in ("torch", "JAX") if k in n}
        for name, s in seconds.items():
            rows[name][column] = {"seconds": float(np.median(s)), "rounds": s, "ratio": ratios[name]}
            pair = {"(c)": by_hand.get("torch"), "(d)": by_hand.get("JAX")}.get(name[:3])
            if pair and "bf16" not in name and "devices" not in name:
                rows[name][column]["over_by_hand"] = 1.0 / timing.against(seconds, pair)[name] - 1.0
    peak = timing.peak()
    for row in rows.values():
        if "iteration" in row:
            useful = sizes.iteration_flops(size) / row["iteration"]["seconds"] / 1e9
            row["of_peak"] = useful / max(v for k, v in peak.items() if "float32" in k)
    return {"rows": rows, "rounds": rounds, "others_load": load, "peak": peak}


def table(name: str, found: dict[str, Any]) -> str:
    """One size as a table."""
    head = "| size {} | iteration, ms | × (a) | posterior, × (a) | prior, × (a) | over by hand | of peak | compile, s |"
    lines = [head.format(name), "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for label, row in found["rows"].items():
        cells = [label]
        it = row.get("iteration")
        cells += [f"{1e3 * it['seconds']:.1f}", f"{it['ratio']:.2f}"] if it else ["", ""]
        cells += [f"{row[c]['ratio']:.2f}" for c in ("posterior", "prior")]
        over = [100 * row[c]["over_by_hand"] for c in ("posterior", "prior") if "over_by_hand" in row[c]]
        cells.append(" / ".join(f"{o:+.1f} %" for o in over))
        cells += [f"{100 * row['of_peak']:.0f} %" if "of_peak" in row else "", f"{row['compile_seconds']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory(size_name: str) -> dict[str, dict[str, float]]:
    """Growth of peak memory in MiB over 5 and over 100 steps a phase, every candidate in a process of its own."""
    found: dict[str, dict[str, float]] = {}
    for letter in "acd":
        for n in (5, 100):
            command = [sys.executable, __file__, "--memory-of", letter, "--size", size_name, "--steps", str(n)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found.setdefault(letter, {})[str(n)] = float(out.split()[-1])
    return found


def memory_of(letter: str, size: Any) -> float:
    """MiB by which the peak rises while one candidate iterates three times."""
    one = candidates(size, [letter])[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        one.calls()["iteration"]()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def growth(rounds: int) -> list[dict[str, Any]]:
    """Size S with one thing changed at a time."""
    from speed_parts import sizes

    changes: list[dict[str, Any]] = [{"dims": (16, *[8] * (n - 1))} for n in (2, 4, 8)]
    changes += [{"batch": n} for n in (32, 512)] + [{"n_posterior": n, "n_prior": n} for n in (10, 200)]
    changes += [{"dims": (d, d // 2)} for d in (8, 64)]
    found = []
    for change in changes:
        print(f"growth: {change}", file=sys.stderr, flush=True)
        rows = measure(sizes.S._replace(**change), rounds, ["a", "c", "d"])["rows"]
        kept = {n: {"seconds": r["iteration"]["seconds"], "ratio": r["iteration"]["ratio"]} for n, r in rows.items()}
        found.append({"change": change, "rows": kept})
    return found


def growth_table(found: list[dict[str, Any]]) -> str:
    """Ratios by what was changed."""
    names = [n for n in found[0]["rows"] if not n.startswith("(a)") and "bf16" not in n]
    lines = ["| size S, but | (a), ms | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    for entry in found:
        rows = entry["rows"]
        ms = min(r["seconds"] for n, r in rows.items() if n.startswith("(a)")) * 1e3
        what = ", ".join(f"{k} {v}" for k, v in entry["change"].items())
        lines.append(f"| {what} | {ms:.1f} | " + " | ".join(f"{rows[n]['ratio']:.2f}" for n in names) + " |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", default=["S", "M"], choices=["S", "M"])
    parser.add_argument("--rounds", type=int, help="21 at S, 5 at M")
    parser.add_argument("--only", nargs="+", choices=list("abcd"), help="leave candidates out; (a) is always timed")
    parser.add_argument("--steps", type=int, help="steps of either phase, in place of 40 and 60")
    parser.add_argument("--growth", action="store_true", help="also change layers, batch, steps and dimension at S")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the JSON here")
    parser.add_argument("--write", action="store_true", help="keep speed.json and put the tables into README.md")
    return parser.parse_args()


def main() -> None:
    args = options()
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={os.cpu_count()}")
    cache = tempfile.TemporaryDirectory()  # compile times are cold ones
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache.name)
    from speed_parts import sizes, timing

    def size_of(name: str) -> Any:
        n = {} if args.steps is None else {"n_posterior": args.steps, "n_prior": args.steps}
        return sizes.SIZES[name]._replace(**n)

    if args.memory_of:
        print(memory_of(args.memory_of, size_of(args.size[0])))
        return
    only = None if args.only is None else ["a", *args.only]
    result: dict[str, Any] = {"machine": timing.machine(), "sizes": {}}
    for name in args.size:
        print(f"size {name}", file=sys.stderr, flush=True)
        size = size_of(name)
        result["sizes"][name] = measure(size, args.rounds or size.rounds, only)
        if args.memory:
            result["sizes"][name]["memory_mib"] = memory(name)
    if args.growth:
        result["growth"] = growth(args.rounds or 9)
    text = report(result)
    print(text)
    if args.out or args.write:
        (args.out or RESULT).write_text(json.dumps(result, indent=1, default=list) + "\n")
    if args.write:
        readme = README.read_text()
        head, _, rest = readme.partition(BEGIN)
        README.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def report(result: dict[str, Any]) -> str:
    """All tables, and the machine in a line."""
    m = result["machine"]
    chip = f"{m['cpu']} (family {m['family']}; {', '.join(m['vectors'])}), {m['cores']} cores"
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    parts = [table(name, found) for name, found in result["sizes"].items()]
    for name, found in result["sizes"].items():
        if (found["others_load"] or 0.0) > BUSY:
            parts.append(f"Warning: other processes kept {found['others_load']:.1f} cores busy during size {name}.")
        if "memory_mib" in found:
            each = "; ".join(f"({k}) {v['5']:.0f} and {v['100']:.0f}" for k, v in found["memory_mib"].items())
            parts.append(f"Rise of peak memory at {name} with 5 and with 100 steps a phase, MiB: {each}.")
    if "growth" in result:
        parts.append(growth_table(result["growth"]))
    peaks = "; ".join(f"{k} {v:.0f}" for k, v in next(iter(result["sizes"].values()))["peak"].items())
    parts.append(
        f"On {chip}{'' if m['gpu'] is None else ', ' + m['gpu']}; {versions}. Peak, 10⁹ operations/s: {peaks}."
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
