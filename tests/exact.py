"""Exact answers about tilted programs, by quadrature or in closed form: what the cases of `beds` are made of.

A case has a program on either backend, parameters, data, log Z, log p(x), posterior means and standard deviations,
and independent draws of prior and posterior, all in float64 NumPy. Latents are values in the supports of their sites.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import logsumexp

import pplebm
from pplebm.ppl.language import load_backend

Values = dict[str, Any]


def arrays_of(backend: str) -> Any:
    """torch or jax.numpy, with the elementary functions that NumPy has under the same names."""
    return importlib.import_module({"pyro": "torch", "numpyro": "jax.numpy"}[backend])


def named(data: Any) -> Values:
    """Data by name, in double precision."""
    return {k: np.asarray(a, float) for k, a in (data if isinstance(data, dict) else {"x": data}).items()}


def normal(x: Any, mean: Any, sd: Any) -> Any:
    """Log density."""
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True, eq=False, repr=False)
class Bed:
    """What all cases have; `log_z` has one entry, or one for every row where the prior reads covariates."""

    name: str
    data: Any  # an array, or arrays by name
    values: dict[str, np.ndarray]  # of the parameters
    declare: Callable[[Any, Any, Callable[[], Values]], Callable[..., Any]] | None
    """The model, of backend, its arrays and a function that declares the parameters inside it; None for pages."""
    is_joint: bool = field(default=False, kw_only=True)  # whether all data are one datum

    def __repr__(self) -> str:
        return self.name

    @property
    def columns(self) -> Values:
        """Data by name, in double precision."""
        return named(self.data)

    @property
    def n(self) -> int:
        """Data that have an evidence of their own."""
        return 1 if self.is_joint else len(next(iter(self.columns.values())))

    def program(self, backend: str, **options: Any) -> Any:
        """The program at its parameters, in the backend's present precision."""
        assert self.declare is not None
        ppl = load_backend(backend)
        params = lambda: {name: ppl.param(name, np.array(v)) for name, v in self.values.items()}
        model = self.declare(ppl, arrays_of(backend), params)
        return pplebm.Program(model, data=self.data, backend=backend, **options)

    @functools.cached_property
    def log_z(self) -> np.ndarray:
        """(1,), or (n,) at the covariates."""
        raise NotImplementedError

    @functools.cached_property
    def log_evidence(self) -> np.ndarray:
        """log p(x), (n,), log Z subtracted."""
        return self.log_evidence_of(self.data)

    def log_evidence_of(self, data: Any) -> np.ndarray:
        """The same of other data."""
        raise NotImplementedError

    def moments(self) -> tuple[Values, Values]:
        """Posterior means and standard deviations by site, (n, *event)."""
        raise NotImplementedError

    def draw(self, n: int, seed: int, row: int = 0, observed: bool = False) -> Values:
        """Independent draws by site, (n, *event): of the prior at the covariates of a row, or of its posterior."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Bed):
    """By trapezoids over one or two coordinates e, in which all densities are smooth and vanish at the ends.

    The prior of row r is base(e) exp(tilt) in coordinates; `sites(p, e, columns)` gives values, (rows or 1, m, *event),
    and further ones that the others need. Draws are of the cells of the grid, uniform within: second moments are
    larger than they should be by h²/12.
    """

    ends: tuple[tuple[float, float], ...]
    sites: Callable[[Values, np.ndarray, Values], Values]
    tilt: Callable[[Any, Values, Values, Values], Any]  # arrays, parameters, values, columns -> (rows or 1, m)
    likelihood: Callable[[Values, Values, Values], Any]  # parameters, values, columns -> (rows, m), normalised
    base: Callable[[np.ndarray], np.ndarray] = lambda e: normal(e, 0.0, 1.0).sum(-1)
    points: int = 2001  # along a coordinate

    @functools.cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (m, d), and their distances (d,)."""
        axes = [np.linspace(low, high, self.points) for low, high in self.ends]
        return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], -1), np.array(
            [a[1] - a[0] for a in axes]
        )

    def weights(self, columns: Values) -> tuple[Values, np.ndarray, np.ndarray]:
        """Values; log weights of the points under the unnormalised prior, (rows or 1, m); their log likelihoods."""
        e, steps = self.coordinates
        values = self.sites(self.values, e, columns)
        prior = self.base(e) + np.log(steps).sum() + self.tilt(np, self.values, values, columns)
        return values, np.atleast_2d(prior), np.atleast_2d(self.likelihood(self.values, values, columns))

    @functools.cached_property
    def log_z(self) -> np.ndarray:
        """By the sum."""
        return logsumexp(self.weights(self.columns)[1], axis=1)

    def log_evidence_of(self, data: Any) -> np.ndarray:
        """Of data like those of the case."""
        _, prior, likelihood = self.weights(named(data))
        return logsumexp(prior + likelihood, axis=1) - logsumexp(prior, axis=1)

    def moments(self) -> tuple[Values, Values]:
        """By weighted sums."""
        values, prior, likelihood = self.weights(self.columns)
        weight = np.exp(prior + likelihood - logsumexp(prior + likelihood, axis=1, keepdims=True))
        mean, sd = {}, {}
        for name, v in values.items():
            w = weight.reshape(*weight.shape, *[1] * (v.ndim - 2))
            mean[name] = (w * v).sum(1)
            sd[name] = np.sqrt((w * (v - mean[name][:, None]) ** 2).sum(1))
        return mean, sd

    def draw(self, n: int, seed: int, row: int = 0, observed: bool = False) -> Values:
        """Cells by their weights, and uniform within them."""
        columns, rng = (
            self.columns if self.is_joint else {k: v[row : row + 1] for k, v in self.columns.items()},
            np.random.default_rng(seed),
        )
        _, prior, likelihood = self.weights(columns)
        log_weight = (prior + likelihood if observed else prior)[0]
        e, steps = self.coordinates
        index = rng.choice(len(e), n, p=np.exp(log_weight - logsumexp(log_weight)))
        at = e[index] + steps * rng.uniform(-0.5, 0.5, size=(n, e.shape[1]))
        return {name: v[0] for name, v in self.sites(self.values, at, columns).items()}


@dataclass(frozen=True, eq=False, repr=False)
class Page(Grid):
    """A gallery page on a grid."""

    page: str = ""
    hyper: dict[str, Any] = field(default_factory=dict)

    def program(self, backend: str, **options: Any) -> Any:
        """Bound to the shape of the data."""
        return bound(self, backend, options)


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Bed):
    """The conjugate page, in closed form."""

    page: str = "conjugate_tilt"
    hyper: dict[str, Any] = field(default_factory=dict)

    def program(self, backend: str, **options: Any) -> Any:
        """Bound to the shape of the data."""
        return bound(self, backend, options)

    def closed_form(self, x: np.ndarray | None = None) -> Any:
        """Of the prior, or of the posterior of one datum."""
        page = pplebm.load(self.page)
        return page.closed_form(self.values, page.Hyper(**self.hyper), x)

    @functools.cached_property
    def log_z(self) -> np.ndarray:
        """Of the page."""
        return np.array([self.closed_form().log_constant])

    def log_evidence_of(self, data: Any) -> np.ndarray:
        """Of rows of data."""
        return np.array([self.closed_form(x).log_constant for x in data]) - self.log_z

    def split(self, u: np.ndarray) -> Values:
        """(z1, z2) by site."""
        return {"z1": u[..., : self.hyper["d1"]], "z2": u[..., self.hyper["d1"] :]}

    def moments(self) -> tuple[Values, Values]:
        """Of the Gaussians."""
        found = [self.closed_form(x) for x in self.data]
        sd = np.stack([np.sqrt(np.diag(g.covariance)) for g in found])
        return self.split(np.stack([g.mean for g in found])), self.split(sd)

    def draw(self, n: int, seed: int, row: int = 0, observed: bool = False) -> Values:
        """Of the Gaussians."""
        found = self.closed_form(self.data[row] if observed else None)
        return self.split(np.random.default_rng(seed).multivariate_normal(found.mean, found.covariance, n))


def bound(bed: Page | Linear, backend: str, options: dict[str, Any]) -> Any:
    """The program of a page at the parameters of the case."""
    model = pplebm.bind(bed.page, backend, shape=bed.data.shape[1:], **bed.hyper)
    program = pplebm.Program(model, data=bed.data, **options)
    return program.with_params({name: program.ppl.asarray(bed.values[name]) for name in program.params})
