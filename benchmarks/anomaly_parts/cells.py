"""One cell: a generator and its twin learn the normal rows, and every score judges the rest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import pplebm
from pplebm.errors import PplebmError
from pplebm.runs.run import Run
from pplebm.scores.front import anomaly_scores
from pplebm.scores.metrics import detection
from pplebm.scores.posterior import learned
from pplebm.scores.registry import names_of
from pplebm.scores.scoring import Score

from .splits import Split

OF_EVIDENCE = ("log_evidence", "typicality")  # slow: estimated by annealing, on fewer rows
BY_LAYER = ("llr>", "log_joint>")
N_RUNS, BATCH, N_BOOTSTRAP, N_BINS = 4, 512, 200, 40


class Settings(NamedTuple):
    """What holds for every cell; nothing here was chosen by looking at anomalies."""

    updates: int
    inference: str = "noise_contrastive"
    sigma: float = 1.0  # of a pixel in [-1, 1]
    layers: tuple[int, ...] = (16, 8)
    evidence_rows: int = 50
    backend: str = "numpyro"


def measured(split: Split, seed: int, settings: Settings) -> dict[str, Any]:
    """Areas under curves by model and score, prevalence, floor, histograms of scores by layer, and minutes."""
    models: dict[str, Any] = {}
    histograms: dict[str, Any] = {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: fitted(split, seed, name == "tilted", f"{folder}/{name}", settings)
                for name in ("tilted", "twin")}  # fmt: skip
        minutes = (time.perf_counter() - began) / 60.0
        for name, of in (("tilted", runs["tilted"]), ("base", runs["tilted"]), ("twin", runs["twin"])):
            scores = scores_of(of, split, name == "base", seed, settings)
            models[name] = {score.name: figures(split.labels[: len(score.value)], score) for score in scores}
            histograms[name] = {s.name: histogram(split.labels, s) for s in scores if s.name.startswith(BY_LAYER)}
    of_scores = (time.perf_counter() - began) / 60.0 - minutes
    share = float(split.labels.mean())
    return {
        "models": models, "histograms": histograms, "n": len(split.labels), "prevalence": share,
        "minutes of learning": minutes, "minutes of scores": of_scores, "updates": settings.updates,
        "learned from": len(split.train),
    }  # fmt: skip


def fitted(split: Split, seed: int, tilted: bool, folder: str, settings: Settings) -> Run:
    """A run of the hierarchy with or without tilts."""
    hyper = {"tilted": tilted, "sigma": settings.sigma, "latent_dims": settings.layers}
    return pplebm.fit(
        "joint_ebm", split.dataset, settings.inference, hyper=hyper, backend=settings.backend, seed=seed,
        updates=settings.updates, out=folder, progress=False,
    )  # fmt: skip


def scores_of(run: Run, split: Split, base: bool, seed: int, settings: Settings) -> list[Score]:
    """Every score of the rows to judge, under a run's model or its base; those of the evidence, of the first rows."""
    program, params = of_base(run, settings) if base else (run.program, run.params)
    data, normal = run.data(split.test), run.data(split.reference)
    names = [name for name in names_of(program) if name not in OF_EVIDENCE and (program.tilts or name != "tilt_ratio")]
    posterior = learned(run.algorithm, run.params, N_RUNS)
    how: dict[str, Any] = {"params": params, "seed": seed, "progress": False}
    found = anomaly_scores(
        program, data, names, normal=normal, posterior=posterior, n_chains=N_RUNS, rows_at_once=BATCH * N_RUNS, **how
    )
    if settings.evidence_rows:
        first = slice(0, settings.evidence_rows)
        found |= anomaly_scores(program, run.data(split.test[first]), OF_EVIDENCE,
                                normal=run.data(split.reference[first]), **how)  # fmt: skip
    return list(found.values())


def of_base(run: Run, settings: Settings) -> tuple[Any, dict[str, Any]]:
    """The program without its tilts, and the parameters that it shares with the run's."""
    hyper = {"tilted": False, "sigma": settings.sigma, "latent_dims": settings.layers}
    model = pplebm.bind("joint_ebm", settings.backend, shape=run.event_shape, **hyper)
    program = pplebm.Program(model)
    return program, {name: run.params[name] for name in program.params}


def figures(labels: np.ndarray, score: Score) -> dict[str, Any]:
    """Areas with bootstrap intervals, of what can be trusted."""
    known = score.is_trusted
    try:
        found = detection(labels[known], score.value[known], n_bootstrap=N_BOOTSTRAP)
    except PplebmError as error:
        return {"refused": str(error)}
    areas = {name: list(getattr(found, name)) for name in ("auroc", "auprc", "average_precision")}
    return areas | {"n": found.n, "prevalence": found.prevalence, "floor": found.floor,
                    "left_out": int((~known).sum())}  # fmt: skip


def histogram(labels: np.ndarray, score: Score) -> dict[str, Sequence[float]]:
    """Shares of normal data and of anomalies in common bins, which hold all but the outermost hundredth."""
    value, labels = score.value[score.is_trusted], labels[score.is_trusted]
    edges = np.linspace(*np.quantile(value, (0.005, 0.995)), N_BINS + 1)
    inside = np.clip(value, edges[0], edges[-1])
    counts = [np.histogram(inside[labels == kind], edges)[0] for kind in (0, 1)]
    return {"edges": edges.tolist()} | {
        name: (c / max(1, c.sum())).tolist() for name, c in zip(("normal", "anomalies"), counts, strict=True)
    }
