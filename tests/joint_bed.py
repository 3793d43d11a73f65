"""A case of the test bed whose whole data are one datum: a tilted global mean, and a tilted latent for every row."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from exact import Bed, normal
from scipy.special import logsumexp

SPREAD, NOISE = 0.8, 0.5  # standard deviations of z around m, and of x around z
OUTER, INNER = np.linspace(-8.0, 8.0, 641), np.linspace(-8.0, 8.0, 641)  # of m, and of (z - m) / SPREAD


def of_mean(xp: Any, p: Any, m: Any) -> Any:
    """Two bumps of unequal height."""
    return p["high"] * xp.exp(-2.0 * (m - 1.2) ** 2) + p["low"] * xp.exp(-2.0 * (m + 1.2) ** 2)


def of_row(xp: Any, p: Any, z: Any) -> Any:
    """Upwards: a constant that depends on m, in every row."""
    return p["slope"] * xp.log1p(xp.exp(z))


def declare(ppl: Any, xp: Any, params: Any) -> Any:
    """m is tilted outside the data plate, z inside."""

    def model(x: Any) -> None:
        p = params()
        m = ppl.sample("m", ppl.dist.Normal(0.0, 1.0))
        ppl.tilt("f", of_mean(xp, p, m))
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(m, SPREAD))
            ppl.tilt("g", of_row(xp, p, z))
            ppl.sample("x", ppl.dist.Normal(z, NOISE), obs=x)

    return model


@dataclass(frozen=True, eq=False, repr=False)
class Joint(Bed):
    """p̃(x, m, z) = N(m; 0, 1) e^{f(m)} Πᵢ N(zᵢ; m, s²) e^{g(zᵢ)} N(xᵢ; zᵢ, σ²): rows are summed within, m without."""

    def rows(self, m: np.ndarray, observed: bool) -> np.ndarray:
        """Log weights of the inner points given m, (rows, len(m), points); the same in every row without data."""
        z = m[:, None] + SPREAD * INNER
        prior = normal(INNER, 0.0, 1.0) + np.log(INNER[1] - INNER[0]) + of_row(np, self.values, z)
        x = self.data.astype(float)[:, None, None]
        return prior + normal(x, z, NOISE) if observed else np.broadcast_to(prior, (len(x), *prior.shape))

    def mean_weights(self, observed: bool) -> np.ndarray:
        """Log weights of the outer points."""
        outer = normal(OUTER, 0.0, 1.0) + np.log(OUTER[1] - OUTER[0]) + of_mean(np, self.values, OUTER)
        return outer + logsumexp(self.rows(OUTER, observed), axis=-1).sum(0)

    @functools.cached_property
    def log_z(self) -> np.ndarray:
        """Of as many rows as there are data."""
        return np.array([logsumexp(self.mean_weights(False))])

    def log_evidence_of(self, data: Any) -> np.ndarray:
        """Of all rows together."""
        other = Joint(self.name, data, self.values, self.declare, is_joint=True)
        return np.array([logsumexp(other.mean_weights(True))]) - other.log_z

    def moments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of m, (1,), and of z, (1, rows)."""
        weights = self.mean_weights(True)
        outer, inner = np.exp(weights - logsumexp(weights)), self.rows(OUTER, True)
        inner = np.exp(inner - logsumexp(inner, axis=-1, keepdims=True)) * outer[:, None]
        z = OUTER[:, None] + SPREAD * INNER
        first = {"m": (outer * OUTER).sum()[None], "z": (inner * z).sum((-2, -1))[None]}
        second = {"m": (outer * OUTER**2).sum()[None], "z": (inner * z**2).sum((-2, -1))[None]}
        return first, {k: np.sqrt(second[k] - first[k] ** 2) for k in first}

    def draw(self, n: int, seed: int, row: int = 0, observed: bool = False) -> dict[str, Any]:
        """m, (n,), and z, (n, rows); uniform within cells of the grid."""
        rng, weights = np.random.default_rng(seed), self.mean_weights(observed)
        jitter = lambda size: (OUTER[1] - OUTER[0]) * rng.uniform(-0.5, 0.5, size=size)
        m = OUTER[rng.choice(len(OUTER), n, p=np.exp(weights - logsumexp(weights)))] + jitter(n)
        z = np.empty((n, len(self.data)))
        for part in np.array_split(np.arange(n), max(1, n // 200)):
            below = np.cumsum(np.exp(self.rows(m[part], observed)), axis=-1)
            level = rng.uniform(size=below.shape[:2]) * below[..., -1]
            index = (below < level[..., None]).sum(-1).T
            z[part] = m[part][:, None] + SPREAD * (INNER[index] + jitter(index.shape))
        return {"m": m, "z": z}


JOINT = Joint(
    "joint",
    np.array([0.4, -1.1, 2.3, 0.9], np.float32),
    {"high": np.array(3.0), "low": np.array(2.0), "slope": np.array(0.5)},
    declare,
    is_joint=True,
)
