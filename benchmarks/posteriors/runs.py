"""One posterior by one sampler: draws, what they cost, and how far they are from the reference draws."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from posteriors.models import POSTERIORS

CHAINS, WARMUP, DRAWS = 4, 1000, 1000  # the defaults of `pplebm.sample`; NUTS gets the same
Values = dict[str, np.ndarray]  # (chains, draws, ...) by site


class Run(NamedTuple):
    """Draws, and what they cost."""

    values: Values
    gradients: int  # of all chains after warm-up
    warmup_gradients: int | None  # None where the sampler does not count them
    divergent: int
    facts: dict[str, float]


class Task(NamedTuple):
    """What is run: the key of a row."""

    posterior: str
    backend: str
    precision: str
    sampler: str  # "pplebm" or "nuts"

    @property
    def key(self) -> str:
        """Its parts side by side."""
        return "/".join(self)


def unzipped(path: Path) -> Any:
    """The JSON in a zip file."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def declared(task: Task, folder: Path) -> tuple[Any, np.ndarray]:
    """Model and data, after the precision of the language is set."""
    from pplebm.ppl.language import load_backend

    if task.backend == "pyro":
        import torch as xp

        xp.set_default_dtype(getattr(xp, task.precision))
    else:
        import jax
        import jax.numpy as xp

        jax.config.update("jax_enable_x64", task.precision == "float64")
    posterior = POSTERIORS[task.posterior]
    data = unzipped(folder / "data" / f"{posterior.data}.json.zip")
    return posterior.declare(load_backend(task.backend), xp, data)


# --- samplers


def by_pplebm(task: Task, model: Any, y: np.ndarray) -> Callable[[int], Run]:
    """`pplebm.sample` with nothing set."""
    import pplebm

    program = pplebm.Program(model, data=y, backend=task.backend)

    def run(seed: int) -> Run:
        draws = pplebm.sample(program, data=y, seed=seed, progress=False)
        count, warmup = int(draws.stats["num_steps"].sum()), int(draws.facts["n_gradients_warmup"])
        return Run(draws.values, count, warmup, draws.n_divergent, dict(draws.facts))

    return run


def by_numpyro(model: Any, y: np.ndarray) -> Callable[[int], Run]:
    """NumPyro's NUTS at its defaults: a chain with its warm-up compiled as a whole, and called for every chain."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS

    mcmc, given = MCMC(NUTS(model), num_warmup=WARMUP, num_samples=DRAWS, progress_bar=False), jnp.asarray(y)

    def chain(key: Any) -> Any:
        mcmc.warmup(key, given, extra_fields=("num_steps",), collect_warmup=True)
        warmup = mcmc.get_extra_fields()["num_steps"].sum()
        mcmc.run(mcmc.post_warmup_state.rng_key, given, extra_fields=("num_steps", "diverging"))
        fields = mcmc.get_extra_fields()
        return mcmc.get_samples(), fields["num_steps"].sum(), warmup, fields["diverging"].sum()

    compiled = jax.jit(chain).lower(jax.random.key(0)).compile()

    def run(seed: int) -> Run:
        chains = [jax.device_get(compiled(key)) for key in jax.random.split(jax.random.key(seed), CHAINS)]
        values = {site: np.stack([chain[0][site] for chain in chains]) for site in chains[0][0]}
        gradients, warmup, divergent = (sum(int(chain[i]) for chain in chains) for i in (1, 2, 3))
        return Run(values, gradients, warmup, divergent, {})

    return run


def by_pyro(model: Any, y: np.ndarray) -> Callable[[int], Run]:
    """Pyro's NUTS at its defaults, chain after chain; its gradients are the calls of the potential."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS
    from pyro.infer.mcmc.util import initialize_model

    import pplebm

    given, count = torch.as_tensor(y), 0
    program = pplebm.Program(model, data=y, backend="pyro")  # for the values that belong to coordinates

    def chain() -> tuple[Values, int, int]:
        """Coordinates, gradients of the warm-up, divergent steps."""
        start, potential, _, _ = initialize_model(model, (given,))
        began, ends = count, []

        def counted(z: Any) -> Any:
            nonlocal count
            count += 1
            return potential(z)

        mcmc = MCMC(
            NUTS(potential_fn=counted), DRAWS, WARMUP, initial_params=start, disable_progbar=True,
            hook_fn=lambda kernel, z, stage, i: ends.append(count) if stage == "Warmup" else None,
        )  # fmt: skip
        mcmc.run()
        return mcmc.get_samples(), ends[-1] - began, len(mcmc.diagnostics()["divergences"]["chain 0"])

    def run(seed: int) -> Run:
        nonlocal count
        count = 0
        pyro.set_rng_seed(seed)
        chains = [chain() for _ in range(CHAINS)]
        at = [program.constrain(program.params, z, program.data(y)) for z, _, _ in chains]
        values = {site: np.stack([a[site].numpy() for a in at]) for site in at[0]}
        warmup, divergent = sum(c[1] for c in chains), sum(c[2] for c in chains)
        return Run(values, count - warmup, warmup, divergent, {})

    return run


# --- figures


def quantities(values: Values, names: list[str]) -> Values:
    """Sites spread over their numbers, as the reference draws name them."""
    found: Values = {}
    for site, a in values.items():
        found |= {site: a} if a.ndim == 2 else {f"{site}[{i + 1}]": a[..., i] for i in range(a.shape[-1])}
    return {name: np.asarray(found[name], dtype=float) for name in names}


def measured(task: Task, folder: Path, seed: int) -> dict[str, Any]:
    """A row of the table; tracing and compilation are told apart, as `prepared`, in seconds."""
    from pplebm.sampling.to_arviz import import_arviz

    began = time.perf_counter()
    model, y = declared(task, folder)
    if task.sampler == "pplebm":
        run = by_pplebm(task, model, y)
        run(seed + 1)
    else:
        run = (by_pyro if task.backend == "pyro" else by_numpyro)(model, y)
    prepared = time.perf_counter() - began
    began = time.perf_counter()
    done = run(seed)
    seconds = time.perf_counter() - began
    prepared = max(0.0, prepared - seconds) if task.sampler == "pplebm" else prepared
    gold = unzipped(folder / "draws" / f"{POSTERIORS[task.posterior].draws}.json.zip")
    ours, arviz = quantities(done.values, list(gold[0])), import_arviz()
    rows = {name: compared(arviz, a, np.array([chain[name] for chain in gold])) for name, a in ours.items()}
    return {
        "seed": seed, "seconds": seconds, "prepared": prepared, "gradients": done.gradients,
        "warmup_gradients": done.warmup_gradients, "divergent": done.divergent, "facts": done.facts,
        "ess": min(min(q["ess_bulk"], q["ess_tail"]) for q in rows.values()),
        "r_hat": max(q["r_hat"] for q in rows.values()),
        "mean_off": max(abs(q["mean_off"]) for q in rows.values()),
        "sd_off": max(abs(q["sd_off"]) for q in rows.values()),
        "quantities": rows,
    }  # fmt: skip


def compared(arviz: Any, ours: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """One quantity, (chains, draws) each; offsets in Monte Carlo errors of both together."""
    error = lambda method: np.hypot(float(arviz.mcse(ours, method=method)), float(arviz.mcse(gold, method=method)))
    return {
        "mean": float(ours.mean()), "sd": float(ours.std()),
        "mean_off": float((ours.mean() - gold.mean()) / error("mean")),
        "sd_off": float((ours.std() - gold.std()) / error("sd")),
        "r_hat": float(arviz.rhat(ours)),
        "ess_bulk": float(arviz.ess(ours, method="bulk")), "ess_tail": float(arviz.ess(ours, method="tail")),
    }  # fmt: skip
