"""Single pictures of a run, as rows of figures: its layers, its prior chains, its latents."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from matplotlib.figure import Figure

from pplebm.data import Dataset
from pplebm.errors import PplebmError
from pplebm.ppl.trees import take_rows
from pplebm.report import figures, layers, scatter
from pplebm.report.gathered import Draws, drawn_at, is_image, shown_shape
from pplebm.runs.layers import between, hierarchy, traverse
from pplebm.runs.long_run import LongRun, long_run
from pplebm.runs.run import Run

Kind = Literal["hierarchy", "transition", "long-run", "traverse", "between", "latents"]
N_HIERARCHY, N_REDRAWS = 48, 8
N_LATENTS = 1000
N_FOLLOWED = 200  # chains
LONG = 2500  # steps of a long run, as in the paper

Rows = list[list[Figure]]


def draw(
    run: Run,
    kind: Kind,
    seed: int = 0,
    data: Dataset | None = None,
    site: str | None = None,
    n_steps: int | None = None,
    given: Any = None,
) -> Rows:
    """Draw one picture of a run, as rows of figures from its own draws.

    Args:
        run: a learned model.
        kind: "hierarchy", data that share more and fewer layers; "transition", prior chains of learning from their
            start to their end; "long-run", the same far beyond it; "traverse", one latent moved at a time; "between",
            ways between two held-out data; "latents", each layer under base, tilted prior and posterior.
        seed: of all draws.
        data: of the run, for "between" and "latents"; without them ends are draws of the prior, and there are no
            posteriors.
        site: the layer of "traverse" and "latents"; all by default.
        n_steps: of the chains of a long run, or else of those that draw from the prior.
        given: rows in the user's units, where the model reads covariates.

    Raises:
        PplebmError: where there is nothing to be seen: one layer, no tilt, or data of a shape or number of sites that
            has no picture.
    """
    if kind not in get_args(Kind):
        raise PplebmError(f"picture '{kind}' is not known; choose one of {', '.join(get_args(Kind))}.")
    sites = [s.name for s in run.program.latents]
    if site is not None and site not in sites:
        raise PplebmError(f"there is no latent site '{site}'; there are {', '.join(sites)}.")
    wanted = sites[::-1] if site is None else [site]  # from the data upwards
    if kind == "latents":
        return _latents(run, wanted, seed, data, n_steps, given)
    if kind in ("transition", "long-run"):
        return _chains(run, kind, seed, n_steps, given)
    _refuse_without_picture(run, kind)
    low, high = grey(run, data)
    if kind == "hierarchy":
        found = hierarchy(run, N_HIERARCHY, N_REDRAWS, seed=seed, n_steps=n_steps, given=given)
        return [layers.hierarchy(found, low, high)]
    if kind == "between":
        ends = None if data is None else run.to_user(take_rows(data.held_out, _two(data, seed)))
        return layers.ways(between(run, ends, seed=seed, n_steps=n_steps), low, high)
    moved = [traverse(run, name, seed=seed, n_steps=n_steps, given=given) for name in wanted]
    drawn = [layers.traversal(found, low, high) for found in moved]
    return [[figure for row in drawn for figure in row]] if is_image(shown_shape(run)) else _in_rows(drawn)


def _in_rows(drawn: Rows, across: int = 4) -> Rows:
    return [row[i : i + across] for row in drawn for i in range(0, len(row), across)]


def _refuse_without_picture(run: Run, kind: str) -> None:
    if len(run.program.observed) != 1:
        names = ", ".join(s.name for s in run.program.observed) or "nothing"
        raise PplebmError(
            f"the model observes {names}, and a picture of {kind} is of one site; pplebm.runs.layers gives all of them "
            f"as arrays."
        )
    shape = shown_shape(run)
    if not is_image(shape) and len(shape) != 1:
        raise PplebmError(
            f"data of shape {shape} are neither pictures nor rows of a table; pplebm.runs.layers gives {kind} as "
            f"arrays."
        )


def _two(data: Dataset, seed: int) -> np.ndarray:
    """Two held-out data, of different labels where there are any."""
    order = np.random.default_rng(seed).permutation(data.n_held_out)
    if data.held_out_labels is None:
        return order[:2]
    labels = np.asarray(data.held_out_labels)[order]
    other = np.flatnonzero(labels != labels[0])
    return order[[0, other[0] if len(other) else 1]]


def grey(run: Run, data: Dataset | None = None) -> tuple[float, float]:
    """Black and white of the pictures of a run: the range of the data's units, or of its own draws."""
    if run.scaling.kind == "range":
        return float(run.scaling.to_user(-1.0)), float(run.scaling.to_user(1.0))
    if not is_image(shown_shape(run)):
        return 0.0, 1.0
    seen = run.to_user(data.held_out) if data is not None else run.sample_data(64, mean=True)
    low, high = (float(q) for q in np.quantile(seen, (0.0, 1.0)))
    return low, max(high, low + 1e-12)


def _chains(run: Run, kind: str, seed: int, n_steps: int | None, given: Any) -> Rows:
    learned = getattr(run.algorithm.source("prior"), "n_steps", 1)
    is_picture = is_image(shown_shape(run))
    n_shown = layers.MOST_ROWS if is_picture else N_FOLLOWED
    if kind == "long-run":
        found = long_run(run, n_steps or LONG, None, N_FOLLOWED, n_shown, seed=seed, given=given)
    else:
        last = n_steps or learned
        shown = np.unique(np.linspace(0, last, 12).round().astype(int)).tolist()
        found = long_run(run, last, shown, N_FOLLOWED, n_shown, seed=seed, given=given)
    if not is_picture:
        return [figures.profile(found), *_scattered(run, found)]
    strip = [] if found.strip is None else [layers.long_strip(found, *grey(run))]
    return [*strip, figures.profile(found)]


def _scattered(run: Run, found: LongRun) -> Rows:
    """Decoded means of rows of a table at the steps that are shown."""
    if found.strip is None or len(shown_shape(run)) != 1:
        return []
    return _in_rows([layers.clouds(found)])


def _latents(run: Run, wanted: list[str], seed: int, data: Dataset | None, n_steps: int | None, given: Any) -> Rows:
    if run.program.prior_reads and given is None:
        raise PplebmError(
            f"the prior reads the covariates {', '.join(run.program.covariates)}; give rows with them, --given FILE."
        )
    at = None if given is None else run.data(given)
    sets: list[tuple[str, str, Draws]] = []
    base = run.prior_latents(N_LATENTS, seed, base=True, given=at)
    sets.append(("Base", figures.BASE, drawn_at(run, base, at)))
    if run.program.tilts:
        prior = run.prior_latents(N_LATENTS, seed + 1, n_steps=n_steps, given=at)
        sets.append(("Tilted prior", figures.PRIOR, drawn_at(run, prior, at)))
    labels = None
    if data is not None:
        rows = np.random.default_rng(seed).permutation(data.n_held_out)[:N_LATENTS]
        x = run.program.data(take_rows(data.held_out, rows))
        posterior = drawn_at(run, run.posterior_latents(x, seed), x)
        sets.append(("Given held-out data", figures.POSTERIOR, posterior))
        labels = None if data.held_out_labels is None else np.asarray(data.held_out_labels)[rows]
    found: Rows = []
    for name in wanted:
        planes, histograms = scatter.latents(name, sets, labels)
        for figure in (*planes, *histograms):
            figure.axes[0].set_xlabel(f"{name}: {figure.axes[0].get_xlabel()}")
        found += [row for row in (planes, histograms) if row]
    return found
