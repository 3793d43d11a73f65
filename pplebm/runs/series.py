"""A series under a run that learned from windows of one: its windows, and scores of its points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pplebm.data import Scaling, Windows
from pplebm.data.columns import is_frame
from pplebm.data.cuts import arrays
from pplebm.errors import PplebmError
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.scores.entries import squared_errors
from pplebm.scores.posterior import adjusted, learned
from pplebm.scores.settings import Settings

if TYPE_CHECKING:
    from pplebm.runs.run import Run

LEARNED_RUNS, ROWS = 4, 512  # of each datum; data at once


def windows_of(run: Run, source: Any) -> Windows:
    """Windows of a series, cut and scaled as those that the run learned from, of the same columns.

    Raises:
        PplebmError: if the run learned from rows, or the series cannot be cut so.
    """
    settings, entry = run.manifest.settings, run.manifest.data
    cut = settings.cut
    if cut is None:
        raise PplebmError("the run learned from rows, not from windows of a series; fit with window=, or give rows.")
    scaling = run.scaling if isinstance(run.scaling, Scaling) else run.scaling.of("x")
    if hasattr(source, "shape") and not is_frame(source):  # an array has no names
        cut, names = cut._replace(time=None, columns=None), None
    else:
        names = entry.columns if entry.columns != [str(i) for i in range(len(entry.columns or ()))] else None
        cut = cut._replace(columns=None if names is None else tuple(names))
    found = cut.windows(source, scaling)
    if names is not None and list(found.series.columns) != names:
        raise PplebmError(
            f"{found.series.name}: its columns are {', '.join(found.series.columns)}, and the run learned from "
            f"{', '.join(names)}; give these, in this order."
        )
    shape = tuple(entry.shapes.get("x", entry.shapes.get("", ())))
    if found.x.shape[1:] != shape:
        raise PplebmError(
            f"{found.series.name}: windows have shape {found.x.shape[1:]} and the run learned from {shape}; give the "
            f"same columns."
        )
    return found


def rows_of(run: Run, windows: Windows) -> Any:
    """Windows in the user's units, as the run takes data.

    Raises:
        PplebmError: if entries are missing and the model takes no mask.
    """
    return arrays(windows.user_data, "observed_x" in run.manifest.data.shapes, windows.series.name)


def point_scores(
    run: Run,
    windows: Windows,
    score: str = "log_evidence",
    *,
    posterior: str = "chains",
    seed: int = 0,
    by_column: bool = False,
    **settings: Any,
) -> np.ndarray:
    r"""Anomaly score of every point of a series, (n,); higher is more anomalous.

    That of a point is the average over the windows that hold it: of the window's score, or, for "reconstruction", of
    the point's own squared error, averaged over its columns that are observed,

    .. math:: \frac1C \sum_c E[(x_{tc} - E[x_{tc} \mid z])^2 \mid x].

    Args:
        run: that learned from windows.
        windows: of `windows_of`.
        score: of `pplebm.scores.SCORES`.
        posterior: "chains" that accept and reject, or "learned", the short runs or the guide of learning.
        seed: of all random numbers.
        by_column: the terms of that sum apart, (n, columns), which tell where in a wide series a point is anomalous.
        settings: as in `Run.anomaly_scores`.

    Returns:
        NaN where nothing is known: of scores that cannot be trusted, and of "reconstruction" where nothing is observed.

    Raises:
        PplebmError: if scores of windows are asked for by column.
    """
    rows = rows_of(run, windows)
    if score != "reconstruction":
        if by_column:
            raise PplebmError(f"score '{score}' is of whole windows, and only 'reconstruction' is of single columns.")
        if score not in ("log_evidence", "typicality"):
            settings["posterior"] = posterior
        return windows.to_points(run.anomaly_scores(rows, [score], seed=seed, **settings)[score].value)
    settings = {name: value for name, value in settings.items() if name != "evidence"}
    n_draws = settings.pop("n_draws", None)
    if posterior == "learned":
        draw = learned(run.algorithm, run.params, n_draws or LEARNED_RUNS)
    else:
        draw = adjusted(run.program, run.params, Settings(**settings, **({"n_draws": n_draws} if n_draws else {})))
    data, parts = run.data(rows), []
    for start in range(0, n_rows(data), ROWS):
        some = take_rows(data, slice(start, start + ROWS))
        parts.append(squared_errors(run.program, run.params, some, draw(some, seed + start))["x"])
    errors = windows.to_points(np.where(windows.observed_x, np.concatenate(parts), np.nan))
    return errors if by_column else mean_of_known(errors)


def mean_of_known(errors: np.ndarray) -> np.ndarray:
    """Average over columns, NaN left out; a point lacks the same ones in every window that holds it."""
    there = np.isfinite(errors).sum(-1)
    return np.where(there > 0, np.nansum(errors, -1) / np.maximum(there, 1), np.nan)
