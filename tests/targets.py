"""Densities with known laws, for kernels of either backend: exact draws, log density, and test functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

LAMBDA = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
MEAN = np.array([1.0, -2.0, 0.5])
GRID = np.linspace(-12.0, 12.0, 4001)


class Target(NamedTuple):
    """A law of latents {"a": (B, k), "b": (B, d - k)}."""

    name: str
    draw: Callable[[np.random.Generator, int], np.ndarray]  # exact, (n, d)
    log_density: Callable[[Any, Any], Any]  # ppl, latents -> (B,)
    step_size: float  # at which mala accepts about half of its proposals
    n_first: int = 1  # coordinates of site "a"

    def latents(self, ppl: Any, rows: np.ndarray) -> dict[str, Any]:
        """Rows as latents."""
        parts = {"a": rows[:, : self.n_first]} | (
            {"b": rows[:, self.n_first :]} if rows.shape[1] > self.n_first else {}
        )
        return {site: ppl.asarray(a) for site, a in parts.items()}


def rows_of(ppl: Any, z: dict[str, Any]) -> np.ndarray:
    """Latents as rows (B, d)."""
    return np.concatenate([ppl.to_numpy(a) for a in z.values()], 1)


def by_quadrature(log_density: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Draws of a one-dimensional density by its inverse distribution function on the grid."""
    weights = np.exp(log_density(GRID) - log_density(GRID).max())
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (weights[1:] + weights[:-1]))])
    return lambda rng, n: np.interp(rng.uniform(size=n), cdf / cdf[-1], GRID)[:, None]


def _gaussian(ppl: Any, z: Any) -> Any:
    rows = [z["a"][:, 0] - MEAN[0], z["b"][:, 0] - MEAN[1], z["b"][:, 1] - MEAN[2]]
    return -0.5 * sum(LAMBDA[i, j] * rows[i] * rows[j] for i in range(3) for j in range(3))


def _draw_gaussian(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.multivariate_normal(MEAN, np.linalg.inv(LAMBDA), n)


def _gumbel(ppl: Any, z: Any) -> Any:
    return -(z["a"] + ppl.exp(-z["a"]))[:, 0]


def _funnel(ppl: Any, z: Any) -> Any:
    v, x = z["a"][:, 0], z["b"]
    return -0.5 * v**2 - (0.5 * ppl.exp(-v)[:, None] * x**2).sum(1) - v


def _draw_funnel(rng: np.random.Generator, n: int) -> np.ndarray:
    v = rng.normal(size=(n, 1))
    return np.concatenate([v, np.exp(0.5 * v) * rng.normal(size=(n, 2))], 1)


def _banana(ppl: Any, z: Any) -> Any:
    x, y = z["a"][:, 0], z["b"][:, 0]
    return -0.5 * x**2 - 2.0 * (y - 0.5 * x**2) ** 2


def _draw_banana(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.normal(size=n)
    return np.stack([x, 0.5 * x**2 + 0.5 * rng.normal(size=n)], 1)


def _skewed(ppl: Any, z: Any) -> Any:
    x, y = z["a"][:, 0], z["b"][:, 0] - 0.7 * z["a"][:, 0]
    return -(x + ppl.exp(-x)) - (y + ppl.exp(-y))


def _draw_skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    x, y = rng.gumbel(size=(2, n))
    return np.stack([x, y + 0.7 * x], 1)


def mixture_tilt(ppl: Any, z: Any) -> Any:
    """A tilt of N(0, 1) with two unequal modes."""
    z = z["a"][:, 0]
    return 3.0 * ppl.exp(-2.0 * (z - 1.5) ** 2) + 2.0 * ppl.exp(-2.0 * (z + 1.5) ** 2) + 0.3 * z


def _mixture(ppl: Any, z: Any) -> Any:
    return -0.5 * (z["a"] ** 2)[:, 0] + mixture_tilt(ppl, z)


def _mixture_on_grid(z: np.ndarray) -> np.ndarray:
    return -0.5 * z**2 + 3.0 * np.exp(-2.0 * (z - 1.5) ** 2) + 2.0 * np.exp(-2.0 * (z + 1.5) ** 2) + 0.3 * z


TARGETS = [
    Target("gaussian", _draw_gaussian, _gaussian, 0.9),
    Target("gumbel", lambda rng, n: stats.gumbel_r.rvs(size=(n, 1), random_state=rng), _gumbel, 1.3),
    Target("funnel", _draw_funnel, _funnel, 0.8),
    Target("banana", _draw_banana, _banana, 0.6),
    Target("tilted mixture", by_quadrature(_mixture_on_grid), _mixture, 0.6),
]
SKEWED = Target("skewed", _draw_skewed, _skewed, 0.9)  # in both directions, for kernels that need two


def statistics(rows: np.ndarray) -> np.ndarray:
    """First to third powers, damped products and signs: (n, how many); third powers show reversed signs."""
    bounded = np.tanh(rows)
    products = [bounded[:, i] * bounded[:, j] for i in range(rows.shape[1]) for j in range(i)]
    return np.stack([*bounded.T, *(bounded**2).T, *(np.sin(2.0 * rows)).T, *np.tanh(rows**3 - rows).T, *products], 1)


def assert_same_law(got: np.ndarray, exact: np.ndarray, sigmas: float = 5.0) -> None:
    """Means of bounded statistics of two independent samples agree within `sigmas` of their Monte Carlo error."""
    a, b = statistics(got), statistics(exact)
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    off = np.abs(a.mean(0) - b.mean(0)) / np.maximum(error, 1e-12)
    assert off.max() < sigmas, f"statistic {off.argmax()} is off by {off.max():.1f} standard errors"


def stationary(grid: np.ndarray, drift: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Stationary law of a one-dimensional chain z + drift(z) + spread(z) ξ, by iterating its transition kernel."""
    kernel = stats.norm.pdf(grid[None, :], (grid + drift)[:, None], spread[:, None])
    kernel /= kernel.sum(1, keepdims=True)
    law = np.full(len(grid), 1.0 / len(grid))
    for _ in range(14):
        kernel = kernel @ kernel
    return law @ kernel
