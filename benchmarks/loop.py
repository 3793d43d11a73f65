r"""Time of an update of `fit`, beside the algorithm's own step and the same update by hand, on 8x8 digits.

    python benchmarks/loop.py --write

For every algorithm page and both backends, in one process, in turn, so many updates of each per round; figures are
medians over rounds, ratios medians of the rounds' ratios. "fit" is all that a user waits for: batches, updates, checks,
metrics, held-out figures, checkpoints. "own step" is the algorithm's compiled step on a block of batches that were read
before, as many in a call as `fit` makes, and nothing else.
Seconds to the first update, imports left out, and the peak of memory are those of a process of their own each, one with
empty folders of compilations ("cold") and one after it ("warm").
"By hand" is the update of a page of guides (`noise_contrastive`) or of chains (`short_run_mle`) without a program, in
plain eager torch and in one compiled scan of JAX; its densities are checked against the program's first.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from by_hand_update import Densities, on_jax, on_torch

import pplebm
from pplebm.learning.batches import BLOCK, Reader
from pplebm.ppl.language import load_backend
from pplebm.ppl.parallel import Alone
from pplebm.runs.config import RunConfig
from pplebm.runs.job import new_job
from pplebm.runs.learn import Recorder
from pplebm.runs.signals import Stop

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "loop.json"
CHAIN_PAGES = {"short_run_mle"}  # beside which the two-phase update by hand stands
GUIDE_PAGES = {"noise_contrastive"}
IN_CHAINS = {  # steps as by hand, and a tilt so slow that no run is sent back and compiled anew
    "posterior.kernel": "langevin", "prior.kernel": "langevin", "optimizer.learning_rate_tilt": 1e-6,
}  # fmt: skip
MODELS = {"score_matching": "data_ebm"}  # of pages that take no latents


def main() -> None:
    """Measure, print the table, and keep the figures if asked to."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--pages", nargs="+", default=sorted(pplebm.inference_available()))
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"], choices=["numpyro", "pyro"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=100, help="of each per round")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="on Pyro")
    parser.add_argument("--only", choices=["updates", "starts"], help="of the figures")
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)  # as a process of its own
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULT.name}")
    args = parser.parse_args()
    if args.start:
        print(json.dumps(start(args.pages[0], args.backends[0], args)))
        return
    for page in args.pages:
        for backend in args.backends:
            row = {"page": page, "backend": backend}
            row |= measured(page, backend, args) if args.only != "starts" else {}
            row |= starts(page, backend, args) if args.only != "updates" else {}
            print(line(row), flush=True)
            if args.write:
                keep(row, args)


def keep(row: dict[str, Any], args: Any) -> None:
    """Put figures in the place of those of their page and backend."""
    from speed_parts.machine import machine

    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows = [kept for kept in rows if kept["page"] in pplebm.inference_available()]
    same = lambda kept: (kept["page"], kept["backend"]) == (row["page"], row["backend"])
    before = next((kept for kept in rows if same(kept)), {})
    told = {"machine": machine()} | ({} if args.only == "starts" else {"rounds": args.rounds, "updates": args.updates})
    rows = [kept for kept in rows if not same(kept)] + [before | row | told]
    rows.sort(key=lambda kept: (kept["page"], kept["backend"]))
    RESULT.write_text(json.dumps({"command": "python benchmarks/loop.py --write", "rows": rows}, indent=1) + "\n")


def measured(page: str, backend: str, args: Any) -> dict[str, Any]:
    """Milliseconds per update, and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        job, recorder, blocks = begun(Path(folder), page, backend, args)
        ways: dict[str, Callable[[int], None]] = {"fit": fit_of(recorder, blocks), "step": step_of(job)}
        if (by_hand := by_hand_of(page, backend, job)) is not None:
            ways["by_hand"] = by_hand
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds + 1):
            for name, run in ways.items():
                began = time.perf_counter()
                run(args.updates)
                if turn:
                    seconds[name].append((time.perf_counter() - began) / args.updates)
    ratio = lambda a, b: float(np.median(np.array(seconds[a]) / np.array(seconds[b]))) if b in seconds else None
    return {
        "ms": {name: 1e3 * float(np.median(values)) for name, values in seconds.items()},
        "fit_over_step": ratio("fit", "step"), "step_over_by_hand": ratio("step", "by_hand"),
    }  # fmt: skip


def begun(folder: Path, page: str, backend: str, args: Any) -> tuple[Any, Recorder, Iterator[int]]:
    """A run after its first block of updates."""
    compiled = args.compile if backend == "pyro" else None
    hyper = IN_CHAINS if page in CHAIN_PAGES else {}
    settings: dict[str, Any] = {"hyper": hyper, "backend": backend, "compiled": compiled}
    settings["updates"] = (args.rounds + 2) * args.updates
    config = RunConfig(MODELS.get(page, "joint_ebm"), "digits", page, **settings).checked()
    job, begin = new_job(folder / "run", config, load_backend(backend).parallel(1, 1, "auto"))
    recorder = Recorder(job, begin, False, Stop())
    blocks = recorder.blocks()
    next(blocks)
    return job, recorder, blocks


def starts(page: str, backend: str, args: Any) -> dict[str, Any]:
    """Seconds to the first update without and with compilations that are kept, and the peak of memory, in MiB."""
    compiled = "--compile" if args.compile else "--no-compile"
    command = [sys.executable, __file__, "--start", "--pages", page, "--backends", backend, compiled]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        places = dict.fromkeys(("PPLEBM_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"), folder)
        for name in ("cold", "warm"):
            done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    seconds = {name: round(row["seconds"], 2) for name, row in found.items()}
    return {"first_update_seconds": seconds, "peak_mib": found["warm"]["peak_mib"]}


def start(page: str, backend: str, args: Any) -> dict[str, float]:
    """What the first update of this process takes, imports left out, as those of torch's compiler."""
    load_backend(backend)
    if backend == "pyro" and args.compile:
        importlib.import_module("torch._inductor.compile_fx")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        begun(Path(folder), page, backend, args)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def fit_of(recorder: Any, blocks: Any) -> Callable[[int], None]:
    """So many updates more of a run."""

    def run(n: int) -> None:
        goal = recorder.progress.update + n
        while recorder.progress.update < goal:
            next(blocks, None)

    return run


def step_of(job: Any) -> Callable[[int], None]:
    """So many steps of the algorithm on the first batches, a block of them in a call."""
    algorithm, ppl = job.algorithm, job.algorithm.ppl
    size, group = algorithm.hyper.batch_size, Alone(lambda a: ppl.asarray(a, keep=True))
    inputs = Reader(algorithm, job.data.train, 0, group, 0.0).read(0, 0)
    state = [algorithm.init(ppl.key(0), algorithm.program.data(job.data.train[:size]), job.data.n_train)]

    def step(state: Any, given: Any) -> tuple[Any, Any, Any]:
        state, info = algorithm.step(given["key"], state, given["x"], given["index"])
        return state, info, ppl.asarray(1.0) > 0.5

    repeated = ppl.repeat(step)

    def run(n: int) -> None:
        with ppl.threads_for(algorithm.program.work(size)):
            for done in range(0, n, BLOCK):
                state[0], info, _ = repeated(state[0], inputs, min(BLOCK, n - done))
        float(next(iter(info.values()))[0])

    return run


def by_hand_of(page: str, backend: str, job: Any) -> Callable[[int], None] | None:
    """The update by hand, at the weights of the program, on its batch."""
    if page not in CHAIN_PAGES | GUIDE_PAGES:
        return None
    algorithm = job.algorithm
    guide = algorithm.guide.params if algorithm.has_guide else {}
    params = {name: algorithm.ppl.to_numpy(a) for name, a in (algorithm.program.params | guide).items()}
    x = np.asarray(job.data.train[: algorithm.hyper.batch_size])
    check_density(params, x, backend)
    chains = {phase: algorithm.source(phase) for phase in ("posterior", "prior")} if page in CHAIN_PAGES else {}
    settings = {phase: (c.n_steps, c.step_size) for phase, c in chains.items()}
    run = (on_jax if backend == "numpyro" else on_torch)(params, x, page, settings)
    if backend == "numpyro":
        return run

    def on_as_many_threads(n: int) -> None:
        with algorithm.ppl.threads_for(algorithm.program.work(len(x))):
            run(n)

    return on_as_many_threads


def check_density(params: dict[str, np.ndarray], x: np.ndarray, backend: str) -> None:
    """Stop where the density by hand is not that of the program."""
    from types import SimpleNamespace

    softplus = lambda a: np.logaddexp(0.0, a)
    xp = SimpleNamespace(
        exp=np.exp, log=np.log, tanh=np.tanh, softplus=softplus, silu=lambda a: a / (1.0 + np.exp(-a)),
        leaky_relu=lambda a: np.where(a > 0, a, 0.2 * a),
    )  # fmt: skip
    program = pplebm.Program(pplebm.bind("joint_ebm", backend, shape=x.shape[1:])).with_coordinates("noncentered")
    rng, ppl = np.random.default_rng(0), program.ppl
    e = [rng.normal(size=(len(x), d)).astype(np.float32) for d in (16, 8)]
    own = {name: ppl.asarray(params[name]) for name in program.params}
    z = {"z1": ppl.asarray(e[0]), "z2": ppl.asarray(e[1])}
    expected = ppl.to_numpy(program.log_density(own, program.data(x))(z))
    np.testing.assert_allclose(Densities(xp).moving(params, e, x), expected, rtol=1e-4)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    parts = []
    if "ms" in row:
        parts.append(", ".join(f"{name} {value:.2f} ms" for name, value in row["ms"].items()))
        parts.append(f"fit / step {row['fit_over_step']:.2f}")
    if row.get("step_over_by_hand") is not None:
        parts.append(f"step / by hand {row['step_over_by_hand']:.2f}")
    if "peak_mib" in row:
        parts.append("first update {cold:.1f} s cold, {warm:.1f} s warm".format(**row["first_update_seconds"]))
        parts.append(f"{row['peak_mib']} MiB")
    return f"{row['page']:24} {row['backend']:8} {'; '.join(parts)}"


if __name__ == "__main__":
    main()
