"""Generators whose log p(x) is exact at any parameters: data, models to learn, the truth, and the exact maximum."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests")]

import identifiable  # noqa: E402
import skewed_scale  # noqa: E402
from beds import bed  # noqa: E402
from exact import arrays_of  # noqa: E402

from pplebm.data import Dataset, Scaling, Scalings  # noqa: E402
from pplebm.ppl.language import load_backend  # noqa: E402

Params = dict[str, np.ndarray]
RATE = 0.02  # of models with a few scalar parameters, set by hand; all else is at its default
BY_HAND = {"optimizer.learning_rate": RATE, "optimizer.learning_rate_tilt": RATE}


class Known(NamedTuple):
    """A generator with an exact likelihood."""

    truth: Params
    of_tilts: tuple[str, ...]  # parameters that are zero without tilts
    simulate: Callable[[int, int], Any]  # n and a seed to data
    log_evidence: Callable[[Params, Any], np.ndarray]  # exact log p(x), (n,)
    model: Callable[[str, bool], tuple[Any, dict[str, Any]]]  # backend, tilted: model and hyperparameters of `fit`
    has_twin: bool = True
    maximum: Callable[[Any, Any, bool], np.ndarray] | None = None
    """Training data, held-out data, tilted: exact log p of held-out data at the maximum of the training data's."""

    def base(self, params: Params) -> Params:
        """Parameters of the same model without its tilts."""
        return params | {name: np.zeros_like(self.truth[name]) for name in self.of_tilts}

    def dataset(self, name: str, seed: int, n_train: int, n_held_out: int) -> Dataset:
        """Data to learn from, and independent ones."""
        train, held_out = self.simulate(n_train, 2 * seed), self.simulate(n_held_out, 2 * seed + 1)
        scaling = Scalings({}) if isinstance(train, dict) else Scaling("none", 0.0, 1.0)
        return Dataset(name, train, held_out, None, None, scaling, (), f"{name}, seed {seed}, {n_train} rows")


class Untilted:
    """A backend whose tilts do nothing: what a model declares through it is the untilted twin."""

    def __init__(self, ppl: Any) -> None:
        self._ppl = ppl

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ppl, name)

    def tilt(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def scalars(
    names: tuple[str, ...], truth: Any, start: Any, of_tilts: tuple[str, ...], declare: Any, simulate: Any, exact: Any
) -> Known:
    """A model whose parameters are a few numbers, begun away from the truth."""

    def log_evidence(params: Params, data: Any) -> np.ndarray:
        return exact([float(params[name]) for name in names], data)

    def model(backend: str, tilted: bool) -> tuple[Any, dict[str, Any]]:
        ppl = load_backend(backend)
        learned = {k: v for k, v in start.items() if tilted or k not in of_tilts}
        zero = {k: 0.0 for k in start if k not in learned}
        params = lambda: {k: ppl.param(k, np.array(v)) for k, v in learned.items()} | zero
        return declare(ppl if tilted else Untilted(ppl), arrays_of(backend), params), BY_HAND

    def maximum(train: Any, held_out: Any, tilted: bool) -> np.ndarray:
        free = [k for k in names if tilted or k not in of_tilts]
        whole = lambda v: truth | {k: 0.0 for k in of_tilts} | dict(zip(free, v, strict=True))
        return log_evidence(whole(highest(lambda v: log_evidence(whole(v), train), [truth[k] for k in free])), held_out)

    values = {k: np.array(v) for k, v in truth.items()}
    return Known(values, of_tilts, simulate, log_evidence, model, maximum=maximum)


def highest(log_evidence: Callable[[Any], np.ndarray], start: Any) -> np.ndarray:
    """Where the mean of log p(x) is highest, by quasi-Newton steps with central differences.

    Raises:
        ArithmeticError: if the slope there is not zero.
    """
    steps = 1e-4 * np.eye(len(start))
    mean = lambda v: float(log_evidence(v).mean())
    slope = lambda v: np.array([(mean(v + d) - mean(v - d)) / 2e-4 for d in steps])
    found = minimize(lambda v: -mean(v), np.asarray(start, float), jac=lambda v: -slope(v), method="BFGS",
                     options={"gtol": 1e-5})  # fmt: skip
    if not np.abs(found.jac).max() < 1e-3:
        raise ArithmeticError(f"the maximum was not reached: the slope is {found.jac}.")
    return found.x


def hierarchy() -> Known:
    """`tests/identifiable.py`: two bumps tilt the upper of two layers."""
    start = {"m": 0.0, "ls": -0.5, "b1": 0.0, "b2": 0.0, "v1": 0.5, "v2": 0.5, "v3": 0.1, "lsig": 0.0}
    bumps = ("b1", "b2")
    return scalars(identifiable.NAMES, identifiable.TRUE, start, bumps, bed("identifiable").declare,
                   identifiable.simulate, identifiable.log_evidence)  # fmt: skip


def scale() -> Known:
    """`tests/skewed_scale.py`: a positive latent, a skewed tilt, a covariate in the prior."""
    start = {"m": 0.0, "ls": -0.5, "b": 0.0, "e": 0.0, "d": 0.0, "lsig": 0.0}
    return scalars(skewed_scale.NAMES, skewed_scale.TRUE, start, ("b",), skewed_scale.declare,
                   skewed_scale.simulate, skewed_scale.log_evidence)  # fmt: skip


def univariate() -> Known:
    """The page of univariate tilts, two latents: its bed in tests/beds.py, by a plane of points."""
    at = dataclasses.replace(bed("univariate"), points=121)
    hyper = at.hyper

    def simulate(n: int, seed: int) -> np.ndarray:
        u = at.draw(n, seed)["z1"] @ at.values["decoder.weight_0"].T + at.values["decoder.bias_0"]
        mean = np.where(u > 0.0, u, 0.2 * u) @ at.values["decoder.weight_1"].T + at.values["decoder.bias_1"]
        noise = hyper["sigma"] * np.random.default_rng([seed, 1]).normal(size=mean.shape)
        return (mean + noise).astype(np.float32)

    def log_evidence(params: Params, data: Any) -> np.ndarray:
        values = {"a": np.zeros_like(at.values["a"])} | {k: params[k] for k in at.values if k in params}
        there = dataclasses.replace(at, values=values)
        parts = np.array_split(data, max(1, len(data) // 50))
        return np.concatenate([there.log_evidence_of(part) for part in parts])

    return Known(at.values, ("a",), simulate, log_evidence,
                 lambda backend, tilted: ("univariate_tilts", hyper | {"tilted": tilted}))  # fmt: skip


def linear() -> Known:
    """The conjugate page, three latents a layer and four columns; its base holds the same laws, so there is no twin."""
    at, tilts = bed("linear_6"), ("Q1", "Q2", "c1", "c2")

    def simulate(n: int, seed: int) -> np.ndarray:
        mean = at.draw(n, seed)["z1"] @ at.values["W"].T
        noise = at.hyper["sigma"] * np.random.default_rng([seed, 1]).normal(size=mean.shape)
        return (mean + noise).astype(np.float32)

    def log_evidence(params: Params, data: Any) -> np.ndarray:
        return dataclasses.replace(at, values={k: params[k] for k in at.values}).log_evidence_of(data)

    def maximum(train: Any, held_out: Any, tilted: bool) -> np.ndarray:
        return linear_maximum(train, held_out, at.hyper["sigma"], at.hyper["d1"])

    return Known(at.values, tilts, simulate, log_evidence, lambda backend, tilted: ("conjugate_tilt", at.hyper),
                 has_twin=False, maximum=maximum)  # fmt: skip


def linear_maximum(train: Any, held_out: Any, sigma: float, rank: int) -> np.ndarray:
    r"""Exact log p of held-out data where that of training data is highest, over all N(U a, U L U' + σ² I).

    Columns are orthonormal, U (D, rank). Given U, the best law of U'x is normal with the moments of the data (their
    variances no less than σ²), and the rest of x is N(0, σ² I); U has one column less than D, so that it is
    the plane at right angles to a unit vector, which is sought from every axis.
    """
    train, held_out = np.asarray(train, float), np.asarray(held_out, float)
    if train.shape[1] != rank + 1:
        raise ValueError(f"the plane has {rank} dimensions and data {train.shape[1]}; one more is needed.")
    law = functools.partial(_by_normal, train, sigma=sigma)
    loss = lambda v: -law(train, normal=v).mean()
    found = min((minimize(loss, v, method="BFGS") for v in np.eye(rank + 1) + 0.1), key=lambda r: r.fun)
    return law(held_out, normal=found.x)


def _by_normal(train: np.ndarray, x: np.ndarray, normal: np.ndarray, sigma: float) -> np.ndarray:
    """log p(x) of the best law of training data whose means lie in the plane at right angles to a vector."""
    plane = np.linalg.svd(normal[None])[2][1:].T  # (D, D - 1)
    centre = train.mean(0) @ plane
    values, axes = np.linalg.eigh(np.cov((train @ plane).T, bias=True))
    values = np.maximum(values, sigma**2)
    inside = (x @ plane - centre) @ axes
    outside = (x**2).sum(1) - ((x @ plane) ** 2).sum(1)
    log_det = np.log(values).sum() + np.log(sigma**2)
    return -0.5 * ((inside**2 / values).sum(1) + outside / sigma**2 + log_det + x.shape[1] * np.log(2.0 * np.pi))


KNOWN: dict[str, Callable[[], Known]] = {
    "identifiable": hierarchy, "skewed_scale": scale, "univariate_tilts": univariate, "linear_gaussian": linear,
}  # fmt: skip
