"""What a report shows, drawn from a run as NumPy arrays; no picture is made here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pplebm import chains
from pplebm.data import Dataset, Source, load, names
from pplebm.errors import PplebmError
from pplebm.kernels import langevin
from pplebm.runs import Run

N_BASE = 2000  # base draws: enough for two digits of an effective sample size
N_DRAWS = 512  # tilted prior draws, and held-out data with a posterior draw each
N_CHAINS = 256  # followed step by step
N_GRID = 64  # pictures of a grid
LENGTHEN = 3  # the followed chains run so many times longer than those of learning
MAX_KEPT = 240  # steps of the followed chains that are looked at
CHAIN_FIELDS = ("n_steps_prior", "step_size_prior")


class Draws(NamedTuple):
    """Latents by site, (B, *event), and the tilt at them, (B,)."""

    latents: dict[str, np.ndarray]
    tilt: np.ndarray


class Chain(NamedTuple):
    """Prior chains followed by step; `energy` and `tilt` are (T, N_CHAINS)."""

    steps: np.ndarray  # (T,)
    energy: np.ndarray  # -log p̃(z) in the coordinates of the chain
    tilt: np.ndarray
    learned: int  # steps of a chain in learning
    strip_steps: np.ndarray  # (S,) from the start to `learned`
    strip: np.ndarray | None  # (S, 6, *event) decoded means, user units
    level: tuple[float, float] | None  # energy and tilt under the tilted prior, by reweighting base draws


class Held(NamedTuple):
    """Held-out data, what the model makes of them, in user units unless said otherwise."""

    x: np.ndarray
    labels: np.ndarray | None
    draws: Draws  # one posterior draw per datum
    error: np.ndarray | None  # (B,) mean squared reconstruction error in model units
    spread: float  # mean squared deviation of the data from their mean, model units
    log_likelihood: np.ndarray | None  # (B,)
    reconstructions: np.ndarray | None


class Samples(NamedTuple):
    """Data drawn from the model, user units."""

    base: np.ndarray
    prior: np.ndarray | None  # None without a tilt


class Material(NamedTuple):
    """All that the page is made of; where a part is missing, `why` has a sentence under its name."""

    run: Run
    rows: list[dict[str, Any]]
    base: Draws
    prior: Draws | None  # None without a tilt
    held: Held | None
    samples: Samples | None
    chain: Chain | None
    why: dict[str, str]


def gather(run: Run, data: Source | None) -> Material:
    """Draw everything a report needs, always from the same seeds."""
    why: dict[str, str] = {}
    dataset, why["held"] = _find_data(run, data)
    base = _draws(run, run.prior_latents(N_BASE, seed=1, base=True))
    tilted = bool(run.program.tilts)
    return Material(
        run,
        run.metrics,
        base,
        _draws(run, run.prior_latents(N_DRAWS, seed=2)) if tilted else None,
        None if dataset is None else _try(lambda: _hold(run, dataset), "held", why),
        _try(lambda: _sample(run), "samples", why),
        _try(lambda: _follow(run), "chain", why),
        why,
    )


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether one datum is a grey or colour picture."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def effective_size(tilt: np.ndarray) -> float:
    """Effective sample size of the weights e^f: how many draws of the tilted prior the base draws are worth.

    >>> effective_size(np.zeros(10))
    10.0
    """
    weights = np.exp(tilt - tilt.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def reweighted(values: np.ndarray, tilt: np.ndarray) -> tuple[float, float]:
    """Mean of `values` at base draws under the tilted prior, and its standard error."""
    weights = np.exp(tilt - tilt.max())
    weights = weights / weights.sum()
    mean = float(weights @ values)
    return mean, float(((weights * (values - mean)) ** 2).sum() ** 0.5)


def data_source(entry: dict[str, Any]) -> tuple[str | None, str | None]:
    """Name or path of a run's data, and the folder of named sets; None for data that cannot be found again."""
    source = entry.get("source") or {}
    named = entry["name"] if entry["name"] in names() else None
    return source.get("path") or named, source.get("data_dir")


def _try(part: Any, name: str, why: dict[str, str]) -> Any:
    try:
        return part()
    except PplebmError as error:
        why[name] = str(error)
        return None


def _find_data(run: Run, data: Source | None) -> tuple[Dataset | None, str]:
    """The data set and a remark on it, or None and why."""
    entry = run.manifest["data"]
    source, data_dir = data_source(entry) if data is None else (data, None)
    if source is None:
        return None, (
            f"The data (“{entry['name']}”) were given as an array, which the run does not keep; pass them once more, "
            "as in pplebm.report.write(run, data), to see them here."
        )
    try:
        dataset = load(source, data_dir, seed=run.manifest["seed"])
    except PplebmError as error:
        if data is not None:
            raise
        return None, f"The data could not be read: {error}"
    if dataset.event_shape != run.event_shape:
        raise PplebmError(
            f"data have event shape {dataset.event_shape}, the run learned from {run.event_shape}; give the same data."
        )
    same = dataset.fingerprint == entry["fingerprint"]
    return dataset, "" if same else "These data differ from those the run learned from; held-out data may be known."


def _draws(run: Run, z: Any) -> Draws:
    tilt = run.program.log_tilt(run.params, z)
    return Draws({k: run.program.ppl.to_numpy(v) for k, v in z.items()}, run.program.ppl.to_numpy(tilt))


def _hold(run: Run, data: Dataset) -> Held:
    """Posterior draws of held-out data, and how well they fit."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(data.held_out))[:N_DRAWS]
    user = data.scaling.to_user(data.held_out[rows])
    x, program, ppl = run.scaling.to_model(user), run.program, run.program.ppl
    z = run.posterior_latents(x, seed=3)
    observed = [ppl.to_numpy(a) for a in program.observe(run.params, z).values()]
    means = observed[0] if len(observed) == 1 and observed[0].shape == x.shape else None
    event = tuple(range(1, x.ndim))
    return Held(
        user,
        None if data.held_out_labels is None else np.asarray(data.held_out_labels)[rows],
        _draws(run, z),
        None if means is None else ((means - x) ** 2).mean(event),
        float(((x - x.mean(0)) ** 2).mean()),
        ppl.to_numpy(program.log_likelihood(run.params, z, ppl.asarray(x))),
        None if means is None else run.scaling.to_user(means),
    )


def _sample(run: Run) -> Samples:
    """Pictures without observation noise; tables with it, as their distributions are compared with the data's."""
    image = is_image(run.event_shape)
    n = N_GRID if image else N_DRAWS
    tilted = run.sample_data(n, seed=4, mean=image) if run.program.tilts else None
    return Samples(run.sample_data(n, seed=5, mean=image, base=True), tilted)


def _follow(run: Run) -> Chain:
    """Run the prior chain of learning beyond its end, and look at it step by step."""
    if not run.program.tilts:
        raise PplebmError("The model has no tilt: prior draws are exact, and no chain is needed.")
    missing = [name for name in CHAIN_FIELDS if not hasattr(run.hyper, name)]
    if missing:
        raise PplebmError(f"The algorithm does not run prior chains of this kind (it has no {', '.join(missing)}).")
    hyper, ppl, params = run.hyper, run.program.ppl, run.params
    moving = run.program.with_coordinates(getattr(hyper, "coordinates", "noise"))  # what short runs default to
    k_start, k_run, k_base = ppl.split(ppl.key(6), 3)
    temperature, init = getattr(hyper, "temperature", 1.0), getattr(hyper, "init", "normal")
    kernel = langevin.langevin(ppl, hyper.step_size_prior, temperature)
    state = kernel.init(chains.start(moving, k_start, params, N_CHAINS, init), moving.log_density(params))
    n_steps = LENGTHEN * hyper.n_steps_prior
    every = -(-n_steps // MAX_KEPT)
    _, kept = chains.record(moving, k_run, kernel, state, params, n_steps, every)
    looked = [_energy_and_tilt(moving, params, z) for z in kept]
    steps = every * np.arange(len(kept))
    last = int(np.searchsorted(steps, hyper.n_steps_prior, side="right")) - 1
    chosen = np.unique(np.linspace(0, last, 12).round().astype(int))
    strip = [_decoded(run, moving, {k: v[:6] for k, v in kept[i].items()}) for i in chosen]
    pictures = [a for a in strip if a is not None and is_image(run.event_shape)]
    base = _energy_and_tilt(moving, params, moving.draw_base(k_base, N_BASE, params))
    reliable = effective_size(base[1]) > 50 and temperature == 1.0
    return Chain(
        steps,
        np.stack([e for e, _ in looked]),
        np.stack([f for _, f in looked]),
        hyper.n_steps_prior,
        steps[chosen],
        np.stack(pictures) if pictures else None,
        (reweighted(base[0], base[1])[0], reweighted(base[1], base[1])[0]) if reliable else None,
    )


def _energy_and_tilt(program: Any, params: Any, z: Any) -> tuple[np.ndarray, np.ndarray]:
    terms = program.log_terms(params, z)
    return -program.ppl.to_numpy(program.total(terms)), program.ppl.to_numpy(program.total(terms, program.tilts))


def _decoded(run: Run, moving: Any, z: Any) -> np.ndarray | None:
    observed = [moving.ppl.to_numpy(a) for a in moving.observe(run.params, z).values()]
    if len(observed) != 1 or observed[0].shape[1:] != run.event_shape:
        return None
    return run.scaling.to_user(observed[0])
