"""The material of a report, drawn from a run as NumPy arrays; no picture is made here."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np

from pplebm.data import Dataset, Source
from pplebm.errors import PplebmError
from pplebm.ppl.compilations import quickly
from pplebm.ppl.language import Latents
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.runs.layers import Hierarchy, Traversal, hierarchy, traverse
from pplebm.runs.long_run import LongRun, follow
from pplebm.runs.run import Run

N_BASE = 2000  # base draws: enough for two digits of an effective sample size
N_DRAWS = 512  # tilted prior draws, and held-out data with a posterior draw each
N_CHAINS = 256  # followed step by step
N_GRID = 64  # pictures of a grid
N_REDRAWS = 8  # of each of the prior draws whose layers are drawn anew
N_STRIP = 6  # followed chains that are shown
LENGTHEN = 3  # the followed chains run so many times longer than those of learning
MAX_KEPT = 240  # steps of the followed chains that are looked at


class Draws(NamedTuple):
    """Latents by site, (B, *event), and the tilt at them, (B,)."""

    latents: dict[str, np.ndarray]
    tilt: np.ndarray


class Held(NamedTuple):
    """Held-out data and what the model makes of them, in user units unless said otherwise."""

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
    chain: LongRun | None
    hierarchy: Hierarchy | None
    traversals: list[Traversal] | None  # of every layer, the one next to the data first
    why: dict[str, str]


def gather(run: Run, data: Source | None) -> Material:
    """Draw everything a report needs, always from the same seeds."""
    why: dict[str, str] = {}
    dataset, why["held"] = _find_data(run, data)
    rows = Rows(run, dataset)
    base = drawn_at(run, run.prior_latents(N_BASE, seed=1, base=True, given=rows.given(N_BASE)), rows.given(N_BASE))
    tilted = bool(run.program.tilts)
    given = rows.given(N_DRAWS)
    draws = run.prior_latents(N_DRAWS, seed=2, given=given)
    return Material(
        run,
        run.metrics,
        base,
        drawn_at(run, draws, given) if tilted else None,
        None if dataset is None else _try(lambda: _hold(run, dataset), "held", why),
        _try(lambda: _sample(run, rows), "samples", why),
        _try(lambda: _follow(run, rows), "chain", why),
        _try(lambda: _redraw(run, draws), "hierarchy", why),
        _try(lambda: _traverse(run, draws), "traversals", why),
        why,
    )


class Rows:
    """Rows at whose covariates draws are made, for models that read any: held-out ones, else those the run keeps."""

    def __init__(self, run: Run, dataset: Dataset | None) -> None:
        self._run = run
        self._rows = run.program.example if dataset is None else dataset.held_out

    def given(self, n: int) -> Any:
        """n rows, each as often as the others, about; None where the prior reads none."""
        return self.wanted(n) if self._run.program.prior_reads else None

    def wanted(self, n: int) -> Any:
        """n rows."""
        return self._run.program.data(take_rows(self._rows, np.arange(n) % n_rows(self._rows)))


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether one datum is a grey or colour picture."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def _try(part: Any, name: str, why: dict[str, str]) -> Any:
    try:
        return part()
    except PplebmError as error:
        why[name] = str(error)
        return None


def _find_data(run: Run, data: Source | None) -> tuple[Dataset | None, str]:
    """The data set and a remark on it, or None and why."""
    entry = run.manifest.data
    source, data_dir = run.manifest.source() if data is None else (data, None)
    if source is None:
        return None, (
            f"The data (“{entry.name}”) were given as an array, which the run does not keep; pass them once more, "
            "as in pplebm.report.write(run, data), to see them here."
        )
    try:
        dataset = run.load(source, data_dir)
    except PplebmError as error:
        if data is not None:
            raise
        return None, f"The data could not be read: {error}"
    known = {path: tuple(shape) for path, shape in entry.shapes.items()}
    if dataset.shapes != known:
        raise PplebmError(f"data have shapes {dataset.shapes}, the run learned from {known}; give the same data.")
    if dataset.n_held_out == 0:
        return None, "The run learned from all rows; what needs rows that it has not seen is left out."
    same = dataset.fingerprint == entry.fingerprint
    return dataset, "" if same else "These data differ from those the run learned from; held-out data may be known."


def drawn_at(run: Run, z: Any, data: Any = None) -> Draws:
    """Latents as NumPy arrays, and the tilt at them."""
    tilt = run.program.log_tilt(run.params, z, data)
    return Draws({k: run.program.ppl.to_numpy(v) for k, v in z.items()}, run.program.ppl.to_numpy(tilt))


def _hold(run: Run, data: Dataset) -> Held:
    """Posterior draws of held-out data, and how well they fit."""
    rng = np.random.default_rng(0)
    index = rng.permutation(data.n_held_out)[:N_DRAWS]
    program, ppl = run.program, run.program.ppl
    data_in = program.data(take_rows(data.held_out, index))
    z = run.posterior_latents(data_in, seed=3)
    value = {name: ppl.to_numpy(a) for name, a in program.observed_data(data_in).items()}
    if len(value) != 1:
        raise PplebmError(f"The model observes {', '.join(value) or 'nothing'}; pictures and errors are of one site.")
    (name, x), means = next(iter(value.items())), None
    with contextlib.suppress(PplebmError):  # the observed distribution has no mean
        means = ppl.to_numpy(program.predict(run.params, z, data=data_in)[name])
    means = means if means is not None and means.shape == x.shape else None
    event = tuple(range(1, x.ndim))
    return Held(
        _as_table(run.site_to_user(name, x)),
        None if data.held_out_labels is None else np.asarray(data.held_out_labels)[index],
        drawn_at(run, z, data_in),
        None if means is None else ((means - x) ** 2).mean(event),
        float(((x - x.mean(0)) ** 2).mean()),
        ppl.to_numpy(program.log_likelihood(run.params, z, data_in)),
        None if means is None else _as_table(run.site_to_user(name, means)),
    )


def shown_shape(run: Run) -> tuple[int, ...]:
    """Shape of one value of the model's observed site, as the report shows it."""
    shape = run.program.observed[0].shape if len(run.program.observed) == 1 else ()
    return shape or (1,)


def _as_table(a: np.ndarray) -> np.ndarray:
    return a[:, None] if a.ndim == 1 else a


def _sample(run: Run, rows: Rows) -> Samples:
    """Pictures without observation noise; tables with it, as their distributions are compared with the data's."""
    image, program = is_image(shown_shape(run)), run.program
    if len(program.observed) != 1:
        raise PplebmError("Draws of data are shown of models with one observed site.")
    n, name = N_GRID if image else N_DRAWS, program.observed[0].name
    data = rows.wanted(n) if program.prior_reads or program.generator_reads else None

    def drawn(seed: int, base: bool) -> np.ndarray:
        z = run.prior_latents(n, seed, base, given=data)
        key = None if image else program.ppl.split(program.ppl.key(seed), 2)[1]
        return _as_table(run.site_to_user(name, program.ppl.to_numpy(program.predict(run.params, z, key, data)[name])))

    return Samples(drawn(5, True), drawn(4, False) if program.tilts else None)


def _check_layers(run: Run) -> None:
    program, shape = run.program, shown_shape(run)
    if program.prior_reads or program.generator_reads:
        raise PplebmError(
            "Layers are not shown of models that read covariates; pplebm.runs.layers draws at given rows."
        )
    if len(program.observed) != 1 or not (is_image(shape) or len(shape) == 1):
        raise PplebmError(
            "Layers are shown of models with one observed site, whose data are pictures or rows of a table."
        )


def _redraw(run: Run, draws: Latents) -> Hierarchy:
    """Draws that share layers."""
    _check_layers(run)
    with quickly():
        return hierarchy(run, N_DRAWS // (N_REDRAWS + 1), N_REDRAWS, seed=7, latents=draws)


def _traverse(run: Run, draws: Latents) -> list[Traversal]:
    """Moves of every latent, layer by layer."""
    _check_layers(run)
    with quickly():
        return [traverse(run, site.name, latents=draws) for site in reversed(run.program.latents)]


def _follow(run: Run, rows: Rows) -> LongRun:
    """Run the prior chain of learning beyond its end, and look at it step by step; strips end where learning does."""
    learned = getattr(run.algorithm.source("prior"), "n_steps", 1)
    every = -(-LENGTHEN * learned // MAX_KEPT)
    shown = every * np.linspace(0, learned // every, 12).round().astype(int)
    data = rows.wanted(N_CHAINS) if run.program.prior_reads or run.program.generator_reads else None
    found = follow(run, LENGTHEN * learned, every, shown.tolist(), N_CHAINS, N_STRIP, seed=6, data=data)
    return found if is_image(shown_shape(run)) else found._replace(strip=None)
