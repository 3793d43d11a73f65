"""Effective draws per second on a tilted two-layer prior of ten dimensions: pplebm beside Pyro, NumPyro and BlackJAX.

    python benchmarks/samplers.py            # a process per library, one after the other; some five minutes
    python benchmarks/samplers.py --write    # and keep samplers.json and put the table into README.md

z2 is N(0, I) in four dimensions, z1 given z2 Gaussian in six, both tilted by tanh networks of two layers of 32. Every
library runs its warm-up and its draws; compilation, by a first call, is told apart. Figures are the smallest effective
sample size of the bulk over the ten coordinates by seconds of warm-up and draws together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULT, README = ROOT / "benchmarks" / "samplers.json", ROOT / "README.md"
BEGIN, END = "<!-- samplers: begin -->", "<!-- samplers: end -->"
SEED, N_CHAINS, N_WARMUP = 0, 100, 300
D1, D2, WIDTH = 6, 4, 32


def weights() -> dict[str, np.ndarray]:
    """Weights of the mean of z1 and of the two tilts."""
    rng, found = np.random.default_rng(SEED), {"mean": None}
    found = {"mean": rng.normal(size=(D2, D1)) / 2, "scale": np.exp(0.3 * rng.normal(size=D1))}
    for name, d in (("f1", D1), ("f2", D2)):
        for i, (a, b) in enumerate(((d, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))):
            found[f"{name}.{i}"] = rng.normal(size=(a, b)) * (2.0 if i == 2 else 1.5) / np.sqrt(a)
    return {name: a.astype(np.float32) for name, a in found.items()}


def tilt(w: dict[str, Any], name: str, z: Any, tanh: Callable[[Any], Any]) -> Any:
    """Two hidden layers, one number per row."""
    return (tanh(tanh(z @ w[f"{name}.0"]) @ w[f"{name}.1"]) @ w[f"{name}.2"])[..., 0]


def declared(backend: str) -> Any:
    """The target as a program of pplebm."""
    import pplebm
    from pplebm.ppl.language import load_backend

    ppl = load_backend(backend)
    w = {name: ppl.asarray(a) for name, a in weights().items()}
    if backend == "pyro":
        import torch

        tanh: Any = torch.tanh
    else:
        import jax.numpy as jnp

        tanh = jnp.tanh

    def model(x: Any) -> None:
        with ppl.plate("data", len(x)):
            z2 = ppl.sample("z2", ppl.dist.Normal(ppl.asarray(np.zeros(D2)), 1.0).to_event(1))
            z1 = ppl.sample("z1", ppl.dist.Normal(z2 @ w["mean"], w["scale"]).to_event(1))
            ppl.tilt("f", tilt(w, "f1", z1, tanh) + tilt(w, "f2", z2, tanh))
            ppl.sample("x", ppl.dist.Normal(z1[..., 0], 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)


def ess(draws: np.ndarray) -> float:
    """Smallest bulk effective sample size over coordinates of (chains, draws, d)."""
    from pplebm.sampling.to_arviz import import_arviz

    arviz = import_arviz()
    return min(float(arviz.ess(draws[:, :, i], method="bulk")) for i in range(draws.shape[2]))


def timed(first: Callable[[], Any], again: Callable[[], np.ndarray]) -> dict[str, float]:
    """Seconds of a call after a first one, of the first beyond it, and effective draws."""
    t = time.perf_counter()
    first()
    cold = time.perf_counter() - t
    t = time.perf_counter()
    draws = again()
    seconds = time.perf_counter() - t
    flat = draws.reshape(-1, draws.shape[2])
    return {
        "seconds": seconds, "compile": max(0.0, cold - seconds), "ess": ess(draws), "draws": draws.shape[1],
        "chains": draws.shape[0], "mean": float(flat.mean()), "sd": float(flat.std()),
    }  # fmt: skip


def ours(backend: str, kind: str, n_draws: int, compiled: bool = True) -> dict[str, float]:
    """pplebm; `hmc` or `mala`, adapted."""
    import pplebm
    from pplebm.kernels.hmc import hmc
    from pplebm.kernels.mala import mala

    program = declared(backend)
    if backend == "pyro":
        import torch

        torch.set_num_threads(1)
        program = program.with_chains(compiled=compiled)
    kernel = {"hmc": hmc, "mala": mala}[kind]()

    def run(seed: int) -> np.ndarray:
        draws = pplebm.sample(
            program, kernel, n_chains=N_CHAINS, n_draws=n_draws, n_warmup=N_WARMUP, seed=seed, progress=False
        )
        return np.concatenate([draws.latents["z1"], draws.latents["z2"]], -1)

    return timed(lambda: run(1), lambda: run(2))


def pyro_nuts(n_chains: int, n_draws: int) -> dict[str, float]:
    """Pyro's own NUTS on the same program, chain after chain."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    torch.set_num_threads(1)
    w = {name: torch.as_tensor(a) for name, a in weights().items()}

    def model() -> None:
        z2 = pyro.sample("z2", pyro.distributions.Normal(torch.zeros(D2), 1.0).to_event(1))
        z1 = pyro.sample("z1", pyro.distributions.Normal(z2 @ w["mean"], w["scale"]).to_event(1))
        pyro.factor("f", tilt(w, "f1", z1, torch.tanh) + tilt(w, "f2", z2, torch.tanh))

    def run() -> np.ndarray:
        chains = []
        for seed in range(n_chains):
            pyro.set_rng_seed(seed)
            mcmc = MCMC(NUTS(model), n_draws, N_WARMUP, disable_progbar=True)
            mcmc.run()
            z = mcmc.get_samples()
            chains.append(torch.cat([z["z1"], z["z2"]], -1).numpy())
        return np.stack(chains)

    return timed(lambda: None, run)


def by_hand() -> Callable[[Any], Any]:
    """The log density of the target in JAX, latents of one chain side by side."""
    import jax.numpy as jnp

    w = {name: jnp.asarray(a) for name, a in weights().items()}

    def log_density(z: Any) -> Any:
        z1, z2 = z[:D1], z[D1:]
        base = -0.5 * (z2**2).sum() - 0.5 * (((z1 - z2 @ w["mean"]) / w["scale"]) ** 2).sum()
        return base + tilt(w, "f1", z1, jnp.tanh) + tilt(w, "f2", z2, jnp.tanh)

    return log_density


def numpyro_mcmc(kind: str, n_draws: int) -> dict[str, float]:
    """NumPyro's kernels, vectorised over chains; a second `run` of one MCMC object, compiled by the first."""
    import jax
    from numpyro.infer import HMC, MCMC, NUTS

    potential = by_hand()
    energy = lambda z: -potential(z)
    kernel = (
        NUTS(potential_fn=energy) if kind == "nuts" else HMC(potential_fn=energy, num_steps=8, trajectory_length=None)
    )
    mcmc = MCMC(
        kernel, num_warmup=N_WARMUP, num_samples=n_draws, num_chains=N_CHAINS, chain_method="vectorized",
        progress_bar=False, jit_model_args=True,
    )  # fmt: skip
    start = jax.random.normal(jax.random.key(9), (N_CHAINS, D1 + D2))

    def run(seed: int) -> np.ndarray:
        mcmc.run(jax.random.key(seed), init_params=start)
        return np.asarray(mcmc.get_samples(group_by_chain=True))

    return timed(lambda: run(0), lambda: run(1))


def blackjax_mcmc(kind: str, n_draws: int) -> dict[str, float]:
    """BlackJAX with its window adaptation, every chain for itself, vmapped and compiled as a whole."""
    import blackjax
    import jax

    log_density, extra = by_hand(), {} if kind == "nuts" else {"num_integration_steps": 8}
    algorithm = getattr(blackjax, kind)
    warmup = blackjax.window_adaptation(algorithm, log_density, **extra)

    def chain(key: Any, start: Any) -> Any:
        k_warmup, k_run = jax.random.split(key)
        (state, found), _ = warmup.run(k_warmup, start, num_steps=N_WARMUP)
        kernel = algorithm(log_density, **found).step
        step = lambda state, key: (kernel(key, state)[0], state.position)
        return jax.lax.scan(step, state, jax.random.split(k_run, n_draws))[1]

    start = jax.random.normal(jax.random.key(9), (N_CHAINS, D1 + D2))
    run = jax.jit(lambda key: jax.vmap(chain)(jax.random.split(key, N_CHAINS), start))
    call = lambda seed: np.asarray(run(jax.random.key(seed)))
    return timed(lambda: call(0), lambda: call(1))


CASES: dict[str, tuple[str, Callable[[], dict[str, float]]]] = {
    "pyro-nuts": ("Pyro NUTS, 2 chains", lambda: pyro_nuts(2, 150)),
    "numpyro-nuts": ("NumPyro NUTS", lambda: numpyro_mcmc("nuts", 500)),
    "numpyro-hmc": ("NumPyro HMC, 8 steps", lambda: numpyro_mcmc("hmc", 2000)),
    "blackjax-nuts": ("BlackJAX NUTS", lambda: blackjax_mcmc("nuts", 500)),
    "blackjax-hmc": ("BlackJAX HMC, 8 steps", lambda: blackjax_mcmc("hmc", 2000)),
    "pplebm-pyro-mala": ("pplebm MALA, Pyro", lambda: ours("pyro", "mala", 4000)),
    "pplebm-pyro-graph": ("pplebm HMC, Pyro, not compiled", lambda: ours("pyro", "hmc", 1000, compiled=False)),
    "pplebm-pyro": ("pplebm HMC, Pyro", lambda: ours("pyro", "hmc", 2000)),
    "pplebm-numpyro": ("pplebm HMC, NumPyro", lambda: ours("numpyro", "hmc", 2000)),
}
GOALS = (
    ("pplebm-pyro", "pyro-nuts", 300.0), ("pplebm-pyro", "blackjax-nuts", 2.0), ("pplebm-numpyro", "blackjax-hmc", 1.0),
)  # fmt: skip


def table(results: dict[str, dict[str, float]], cpu: str) -> str:
    """Markdown."""
    lines = [
        "| sampler | chains × draws | seconds | compile, s | ESS | ESS per second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, r in results.items():
        lines.append(
            f"| {CASES[name][0]} | {r['chains']:.0f} × {r['draws']:.0f} | {r['seconds']:.2f} | {r['compile']:.1f} | "
            f"{r['ess']:,.0f} | {r['ess'] / r['seconds']:,.0f} |"
        )
    rate = {name: r["ess"] / r["seconds"] for name, r in results.items()}
    lines += [
        "",
        f"{cpu}. Smallest bulk ESS over ten coordinates; seconds with {N_WARMUP} steps of warm-up, without "
        "compilation.",
    ]
    for ours, theirs, goal in GOALS:
        if ours in rate and theirs in rate:
            lines.append(
                f"{CASES[ours][0]}: {rate[ours] / rate[theirs]:,.1f} times {CASES[theirs][0]} (goal {goal:,.0f})."
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="keep samplers.json and put the table into README.md")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(CASES[args.case][1]()))
        return
    results = {}
    for name in args.only:
        print(f"  {CASES[name][0]}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, __file__, "--case", name], check=True, capture_output=True, text=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from speed_parts.machine import machine

    described = machine()
    text = table(results, f"{described['cpu']}, {described['cores']} cores")
    print(text)
    if args.write:
        RESULT.write_text(json.dumps({"machine": described, "seed": SEED, "results": results}, indent=1) + "\n")
        page = README.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        README.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


if __name__ == "__main__":
    main()
