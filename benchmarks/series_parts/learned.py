"""A model and its untilted twin that learn from one series and score another, beside scores that know less."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any, NamedTuple

import numpy as np

import pplebm
from pplebm.data import Series
from series_parts.missing import imputed
from series_parts.scores import at_random, detected, deviation, filled, nearest

SCORES = ("reconstruction", "log_joint")


class Task(NamedTuple):
    """What is learned from, what is scored, with a label of every point, and where values are taken out."""

    train: Series
    test: Series
    labels: np.ndarray
    whole: Series | None  # None: nothing is taken out


class How(NamedTuple):
    """How the model learns."""

    window: int
    stride: int
    updates: int
    backend: str
    scaling: str = "standard"
    hyper: tuple[tuple[str, Any], ...] = ()


def of_points(labels: np.ndarray, errors: np.ndarray, buffer: int, name: str) -> dict[str, Any]:
    """Figures of squared errors (points, columns), averaged over columns, and of those of the first column alone."""
    found = {name: detected(labels, errors.mean(1), buffer)}
    return found | ({f"{name} of the first": detected(labels, errors[:, 0], buffer)} if errors.shape[1] > 1 else {})


def compare(task: Task, how: How, seed: int) -> dict[str, Any]:
    """Both models on one series."""
    row: dict[str, Any] = {}
    for name, tilted in (("tilted", True), ("twin", False)):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", pplebm.PplebmWarning)  # a batch is all windows of a short series
            run = pplebm.fit("series_factors", task.train, "variational_joint", f"{folder}/run", updates=how.updates,
                             seed=seed, hyper={"model.tilted": tilted, **dict(how.hyper)}, backend=how.backend,
                             scaling=how.scaling, window=how.window, stride=how.stride, held_out_fraction=0.0,
                             progress=False)  # fmt: skip
            train, test = run.windows(filled(task.train)), run.windows(task.test)
            errors = run.point_scores(task.test, "reconstruction", posterior="learned", by_column=True)
            windows = run.point_scores(task.test, "log_joint", posterior="learned")
            found = {**of_points(task.labels, errors, how.window, "reconstruction"),
                     "log_joint": detected(task.labels, windows, how.window)}  # fmt: skip
            found["sigma"] = float(np.exp(run.program.ppl.to_numpy(run.params["log_sigma"])))
            if task.whole is not None:
                found["missing"] = imputed(run, run.windows(task.whole), seed)
            row[name] = found
    row["nearest"] = detected(task.labels, nearest(train, test), how.window)
    if test.x.shape[-1] > 1:
        alone = (w._replace(x=w.x[..., :1], observed_x=w.observed_x[..., :1]) for w in (train, test))
        row["nearest of the first"] = detected(task.labels, nearest(*alone), how.window)
    row |= of_points(task.labels, deviation(test), how.window, "deviation")
    row["random"] = at_random(task.labels, how.window, seed)
    row["prevalence"] = float(task.labels.mean())
    return row
