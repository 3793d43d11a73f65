"""Effective draws per second and per gradient on two targets of ten dimensions: pplebm beside its hosts and BlackJAX.

    python benchmarks/samplers.py            # a process per sampler, one after the other; some ten minutes
    python benchmarks/samplers.py --write    # and keep samplers.json, with the rows not run, and the table in README.md

Tilted layers: z2 is N(0, I) in four dimensions, z1 given z2 Gaussian in six, both tilted by tanh networks of two
layers of 32. Rotated Gaussian: a posterior whose precision has condition 3000 in axes that are no coordinates. Every
sampler runs its warm-up and its draws; compilation, by a first call, is told apart. Figures are the smallest effective
sample size of the bulk over the ten coordinates, by seconds of warm-up and draws together, and by gradients after
warm-up.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from samplers_parts import peers  # noqa: E402
from samplers_parts.targets import SEED, TARGETS, Target  # noqa: E402
from speed_parts.machine import machine  # noqa: E402

RESULT, README = ROOT / "benchmarks" / "samplers.json", ROOT / "README.md"
BEGIN, END = "<!-- samplers: begin -->", "<!-- samplers: end -->"
N_CHAINS = 100


def ours(backend: str, kind: str | None, target: Target, n_draws: int, compiled: bool = True) -> peers.Runner:
    """pplebm: its default kernel, or one by name, adapted."""
    import pplebm

    program, data = target.declared(backend)
    kernel = None if kind is None else getattr(importlib.import_module(f"pplebm.kernels.{kind}"), kind)()
    if backend == "pyro":
        import torch

        torch.set_num_threads(1)
        program = program.with_chains(compiled=compiled)

    def run(seed: int) -> peers.Found:
        draws = pplebm.sample(
            program,
            kernel,
            data,
            n_chains=N_CHAINS,
            n_draws=n_draws,
            n_warmup=target.n_warmup,
            seed=seed,
            progress=False,
        )
        latents, steps = draws.latents, draws.stats.get("num_steps")
        found = [latents[name].reshape(N_CHAINS, n_draws, -1) for name in target.latents]
        return np.concatenate(found, -1), None if steps is None else int(steps.sum())

    return run


def figures(run: peers.Runner, warm: bool) -> dict[str, float | None]:
    """Seconds of a call after a first one, of the first beyond it, and effective draws."""
    from pplebm.sampling.to_arviz import import_arviz

    arviz, cold = import_arviz(), 0.0
    if warm:
        began = time.perf_counter()
        run(1)
        cold = time.perf_counter() - began
    began = time.perf_counter()
    draws, gradients = run(2)
    seconds = time.perf_counter() - began
    columns = [draws[:, :, i] for i in range(draws.shape[2])]
    return {
        "seconds": seconds, "compile": max(0.0, cold - seconds), "gradients": gradients, "draws": draws.shape[1],
        "chains": draws.shape[0], "ess": min(float(arviz.ess(x, method="bulk")) for x in columns),
        "r_hat": max(float(arviz.rhat(x)) for x in columns), "mean": float(draws.mean()), "sd": float(draws.std()),
    }  # fmt: skip


def samplers() -> dict[str, tuple[str, Callable[[Target], peers.Runner]]]:
    """Label, and maker from a target."""
    found: dict[str, tuple[str, Callable[[Target], peers.Runner]]] = {
        "pyro-nuts": ("Pyro NUTS, 2 chains", partial(peers.pyro_nuts, n_chains=2, n_draws=150))
    }
    for kind, label, n_draws in (("nuts", "NUTS", 500), ("hmc", "HMC, 8 steps", 2000)):
        for library, name in ((peers.numpyro, "NumPyro"), (peers.blackjax, "BlackJAX")):
            made = partial(library, kind, n_chains=N_CHAINS, n_draws=n_draws)
            found[f"{name.lower()}-{kind}"] = (f"{name} {label}", made)
    found["blackjax-chees"] = ("BlackJAX ChEES", partial(peers.blackjax_chees, n_chains=N_CHAINS, n_draws=1000))
    found["blackjax-mams"] = ("BlackJAX MAMS", partial(peers.blackjax_mams, n_chains=N_CHAINS, n_draws=2000))
    found["pplebm-pyro-mala"] = ("pplebm MALA, Pyro", partial(ours, "pyro", "mala", n_draws=4000))
    graph = partial(ours, "pyro", None, n_draws=1000, compiled=False)
    found["pplebm-pyro-graph"] = ("pplebm, Pyro, not compiled", graph)
    for backend, name in (("pyro", "Pyro"), ("numpyro", "NumPyro")):
        found[f"pplebm-{backend}"] = (f"pplebm, {name}", partial(ours, backend, None, n_draws=2000))
        if find_spec("pplebm.kernels.mams"):
            found[f"pplebm-{backend}-mams"] = (f"pplebm MAMS, {name}", partial(ours, backend, "mams", n_draws=2000))
    return found


SAMPLERS = samplers()
ONLY_TILTED = {"pyro-nuts", "pplebm-pyro-mala"}  # the first takes hours on the other target, the second does not move
CASES = [f"{t}/{name}" for t in TARGETS for name in SAMPLERS if t == "tilted" or name not in ONLY_TILTED]
GOALS = (
    ("tilted/pplebm-pyro", "tilted/pyro-nuts", 300.0),
    ("tilted/pplebm-pyro", "tilted/blackjax-nuts", 2.0),
    ("tilted/pplebm-numpyro", "tilted/blackjax-hmc", 1.0),
    ("gaussian/pplebm-pyro", "gaussian/blackjax-nuts", 1.0),
    ("gaussian/pplebm-numpyro", "gaussian/blackjax-nuts", 1.0),
)


def label(case: str) -> tuple[str, str]:
    """Of the target, and of the sampler."""
    target, name = case.split("/")
    return TARGETS[target].label, SAMPLERS[name][0]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    machines = sorted({f"{r['machine']['cpu']}, {r['machine']['cores']} cores" for r in results.values()})
    lines = [
        "| target | sampler | chains × draws | seconds | compile, s | R-hat | ESS | ESS per second | "
        "per 1000 gradients |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in (case for case in CASES if case in results):
        r, (target, sampler) = results[case], label(case)
        each = f"{1000 * r['ess'] / r['gradients']:,.1f}" if r["gradients"] else ""
        lines.append(
            f"| {target} | {sampler} | {r['chains']:.0f} × {r['draws']:.0f} | {r['seconds']:.2f} | {r['compile']:.1f} "
            f"| {r['r_hat']:.3f} | {r['ess']:,.0f} | {r['ess'] / r['seconds']:,.0f} | {each} |"
        )
    steps = ", ".join(f"{t.n_warmup} steps of warm-up on the {t.label}" for t in TARGETS.values())
    lines += [
        "",
        f"{'; '.join(machines)}. Smallest bulk ESS over ten coordinates; {steps}; seconds with warm-up, without "
        "compilation; gradients after warm-up, where the library counts them.",
    ]
    rate = {case: r["ess"] / r["seconds"] for case, r in results.items()}
    for mine, theirs, goal in GOALS:
        if mine in rate and theirs in rate:
            lines.append(
                f"{label(mine)[1]}: {rate[mine] / rate[theirs]:,.1f} times {label(theirs)[1]} on the {label(mine)[0]} "
                f"(goal {goal:,.0f})."
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES, metavar="TARGET/SAMPLER")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="keep samplers.json and put the table into README.md")
    args = parser.parse_args()
    if args.case:
        target, name = args.case.split("/")
        found = figures(SAMPLERS[name][1](TARGETS[target]), warm=name != "pyro-nuts")
        print(json.dumps(found | {"machine": machine()}))
        return
    kept = json.loads(RESULT.read_text())["results"] if args.write and RESULT.exists() else {}
    results = {case: row for case, row in kept.items() if case in CASES}
    for case in args.only:
        print(f"  {': '.join(label(case))}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, __file__, "--case", case], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
        results[case] = json.loads(done.stdout.splitlines()[-1])
    text = table(results)
    print(text)
    if args.write:
        RESULT.write_text(json.dumps({"seed": SEED, "results": results}, indent=1) + "\n")
        page = README.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        README.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


if __name__ == "__main__":
    main()
