"""One cell of the table: a page learns one set of data with one seed, and log p of held-out data is found."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pplebm
from pplebm.errors import PplebmError
from pplebm.runs.evaluate import over_data

from .images import BINARY, IMAGES, evidence_rows, image_set
from .known import KNOWN, Known

EXACT = "exact maximum"  # in the place of a page: the truth, and where the exact likelihood is highest
LEARNERS = (
    "mle", "persistent_mle", "short_run_mle", "short_run_learned_step", "alternating_backprop", "dual_mcmc",
    "variational_joint", "two_stage", "noise_contrastive", "multi_stage_nce", "info_vae",
)  # fmt: skip
BASELINES = ("vae", "vamp_prior", "mixture_prior", "flow_prior")  # pages that may be there: no tilt is learned by them
MODEL = "joint_ebm"  # of images, unless another one is asked for
BOUND = "variational_joint"  # learns a baseline that is a model, by the ELBO, unless another page is asked for
ROOT = Path(__file__).resolve().parents[2]


class Settings(NamedTuple):
    """What holds for every cell of a run."""

    data_dir: str | None = None
    backend: str = "numpyro"
    updates: int | None = None  # fewer than the page's own number
    n_train: int = 1000  # of generators that are known
    n_held_out: int = 1000
    images: int | None = None  # held-out images, in the place of those of `IMAGES`
    model: str = MODEL  # of images
    learner: str = BOUND  # page that learns baselines which are models


def pages() -> tuple[str, ...]:
    """All that can be measured: algorithms, and the baselines that are in either gallery."""
    there = lambda name: any((ROOT / gallery / f"{name}.py").is_file() for gallery in ("models", "inference"))
    return (EXACT, *LEARNERS, *filter(there, BASELINES))


def is_model(page: str) -> bool:
    """Whether a baseline is a model of its own, and not a way to learn one."""
    return page in BASELINES and (ROOT / "models" / f"{page}.py").is_file()


def measured(data: str, page: str, seed: int, settings: Settings) -> dict[str, Any] | None:
    """Figures by model, minutes and updates; what is refused, with the reason; None where there is nothing to find."""
    if data in IMAGES:
        return None if page == EXACT else of_images(data, page, seed, settings)
    known = KNOWN[data]()
    if page == EXACT:
        return of_truth(data, known, seed, settings)
    if is_model(page) or (page in BASELINES and not known.has_twin):
        return None
    return of_known(data, known, page, seed, settings)


def of_truth(data: str, known: Known, seed: int, settings: Settings) -> dict[str, Any]:
    """The truth of a generator, and the exact maximum with tilts and, as the twin, without."""
    dataset = known.dataset(data, seed, settings.n_train, settings.n_held_out)
    truth = known.log_evidence(known.truth, dataset.held_out)
    found = {"truth": figures(truth, truth)}
    if known.maximum is not None:
        found["tilted"] = figures(known.maximum(dataset.train, dataset.held_out, True), truth)
        if known.has_twin:
            found["twin"] = figures(known.maximum(dataset.train, dataset.held_out, False), truth)
    return {"models": found, "data": settings.n_held_out}


def of_known(data: str, known: Known, page: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Exact figures of what a page learns, of its base, and of the twin that the same page learns.

    A baseline learns the model without tilts alone.
    """
    dataset, told = known.dataset(data, seed, settings.n_train, settings.n_held_out), {}
    truth, models = known.log_evidence(known.truth, dataset.held_out), {}
    names = ("model",) if page in BASELINES else ("tilted", "twin") if known.has_twin else ("tilted",)
    for name in names:
        model, hyper = known.model(settings.backend, name == "tilted")
        try:
            learned, found = fitted(model, dataset, page, seed, hyper, settings)
            log_p = known.log_evidence(learned if name == "tilted" else known.base(learned), dataset.held_out)
            models[name] = figures(log_p, truth)
            if name == "tilted":
                models["base"] = figures(known.log_evidence(known.base(learned), dataset.held_out), truth)
        except (PplebmError, np.linalg.LinAlgError) as error:
            models[name] = {"refused": f"{type(error).__name__}: {error}"}
            found = {}
        told |= {f"{key} of {name}": value for key, value in found.items()}
    return {"models": models, "data": settings.n_held_out} | told


def fitted(
    model: Any, dataset: Any, page: str, seed: int, hyper: dict[str, Any], settings: Settings
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Learned parameters, and how learning went."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = pplebm.fit(
            model, dataset, page, hyper=hyper, backend=settings.backend, seed=seed, updates=settings.updates,
            out=f"{folder}/run", progress=False,
        )  # fmt: skip
        params = {name: np.asarray(run.program.ppl.to_numpy(a), float) for name, a in run.params.items()}
    minutes = (time.perf_counter() - began) / 60.0
    return params, {"minutes": minutes, "updates": run.manifest.updates, "rollbacks": len(run.manifest.rollbacks)}


def figures(log_p: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Mean of log p(x), and how far below the truth it is on the same data.

    Raises:
        PplebmError: if log p(x) of a datum is not a number.
    """
    if not np.isfinite(log_p).all():
        raise PplebmError(f"log p(x) of {int((~np.isfinite(log_p)).sum())} of {len(log_p)} held-out data is infinite.")
    return {
        "mean": float(log_p.mean()), "error": 0.0, "data_error": over_data(log_p),
        "below_truth": float((truth - log_p).mean()), "below_truth_error": over_data(truth - log_p),
    }  # fmt: skip


def of_images(data: str, page: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Estimates of a tilted model and its twin, or of a baseline that is a model, on the first held-out images."""
    hyper = pplebm.load(settings.learner if is_model(page) else page).Hyper()
    lives_on = hasattr(getattr(hyper, "posterior", None), "begin")  # a chain of every datum, which stays as it is
    visits = 1 if lives_on else (settings.updates or hyper.updates) * hyper.batch_size
    dataset = image_set(data, settings.data_dir, seed, visits)
    same: dict[str, Any] = {"backend": settings.backend, "seed": seed, "updates": settings.updates, "progress": False}
    pixels = {"likelihood": "bernoulli"} if data in BINARY else {}
    same |= {"scaling": "none"} if pixels else {}
    x = dataset.held_out[: settings.images or IMAGES[data]]
    with tempfile.TemporaryDirectory() as folder:
        began, runs, models = time.perf_counter(), dict[str, Any](), dict[str, Any]()
        for name, (model, learner, changes) in wanted(page, settings).items():
            try:
                runs[name] = pplebm.fit(model, dataset, learner, out=f"{folder}/{name}", hyper=pixels | changes, **same)
            except PplebmError as error:  # learning broke down
                models[name] = {"refused": len(x), "reason": str(error)}
        minutes = (time.perf_counter() - began) / 60.0
        found, of_evidence = estimated(runs, x, seed)
        updates = max((run.manifest.updates for run in runs.values()), default=settings.updates or hyper.updates)
    told = {"minutes": minutes, "minutes of evidence": of_evidence, "updates": updates}
    return {"models": models | found, "data": len(x)} | told


def wanted(page: str, settings: Settings) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Of every model of images that a page learns: its own page, what learns it, and changes to hyperparameters."""
    if is_model(page):
        return {"model": (page, settings.learner, {})}
    if page in BASELINES:
        return {"model": (settings.model, page, {"tilted": False})}
    return {"tilted": (settings.model, page, {}), "twin": (settings.model, page, {"tilted": False})}


def estimated(runs: dict[str, Any], x: Any, seed: int) -> tuple[dict[str, Any], float]:
    """Figures by model of those that were learned, and the minutes that they took."""
    twin, models = runs.get("twin"), dict[str, Any]()
    for name in runs.keys() - {"twin"}:  # one, or none where its learning broke down
        try:
            return evidence_rows(runs[name], twin, x, seed)
        except PplebmError as error:  # such as log Z of a tilt that no estimator can be trusted with
            models[name] = {"refused": len(x), "reason": str(error)}
    if twin is None:
        return models, 0.0
    found, minutes = evidence_rows(twin, None, x, seed)
    return models | {"twin": found["model"]}, minutes
