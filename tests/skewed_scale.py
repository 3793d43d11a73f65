r"""A scale that is latent, positive, skewed by its tilt and reads a covariate: six parameters, likelihood exact.

    u ~ LogNormal(m + e c, exp(ls)) tilted by f(u) = b log(1 + u⁴)
    z ~ N(d c, u²),    x1 ~ N(z, exp(lsig)²),    x2 ~ N(u, exp(lsig)²)

The tilt leaves small scales alone and lifts large ones, so that log u has two modes of unequal weight; Z is
another number at every c. Given u data are normal, x1 ~ N(d c, u² + exp(2 lsig)); the integral over log u is by
trapezoids.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

TRUE = {"m": -0.7, "ls": float(np.log(0.6)), "b": 1.2, "e": 0.3, "d": 0.8, "lsig": float(np.log(0.25))}
NAMES = tuple(TRUE)
STEP = 0.02  # of (log u - m - e c) / exp(ls)


def declare(ppl, xp, params):
    """The model, of a backend, its arrays, and a function that declares the parameters inside it."""

    def model(c, x):
        p = params()
        with ppl.plate("data", len(x)):
            u = ppl.sample("u", ppl.dist.LogNormal(p["m"] + p["e"] * c, xp.exp(p["ls"])))
            ppl.tilt("f", p["b"] * ppl.softplus(4.0 * xp.log(u)))
            z = ppl.sample("z", ppl.dist.Normal(p["d"] * c, u))
            ppl.sample("x", ppl.dist.Normal(ppl.stack([z, u], -1), xp.exp(p["lsig"])).to_event(1), obs=x)

    return model


def _prior(p, c):
    """log u at the points, (n, m), and their log weights, unnormalised.

    The slope of the tilt in log u is between 0 and 4b, which moves a standard normal by 4b exp(ls) at most.
    """
    moved = 4.0 * p["b"] * np.exp(p["ls"])
    t = np.arange(-8.0 + min(0.0, moved), 8.0 + max(0.0, moved), STEP)
    log_u = p["m"] + p["e"] * c[:, None] + np.exp(p["ls"]) * t
    return log_u, -0.5 * t**2 + p["b"] * np.logaddexp(0.0, 4.0 * log_u)


def log_z(vector, c):
    """Exact log Z at covariates c, (n,)."""
    p = dict(zip(NAMES, vector, strict=True))
    return logsumexp(_prior(p, np.asarray(c, float))[1], axis=1) + np.log(STEP) - 0.5 * np.log(2.0 * np.pi)


def log_evidence(vector, data):
    """Exact log p(x | c), (n,), of data c (n,) and x (n, 2), at parameters in the order of `NAMES`."""
    p, c, x = dict(zip(NAMES, vector, strict=True)), np.asarray(data["c"], float), np.asarray(data["x"], float)
    log_u, prior = _prior(p, c)
    noise, u = np.exp(2.0 * p["lsig"]), np.exp(log_u)
    wide = u**2 + noise
    likelihood = -0.5 * ((x[:, [0]] - p["d"] * c[:, None]) ** 2 / wide + np.log(wide))
    likelihood = likelihood - 0.5 * ((x[:, [1]] - u) ** 2 / noise + np.log(noise)) - np.log(2.0 * np.pi)
    return logsumexp(prior + likelihood, axis=1) - logsumexp(prior, axis=1)


def simulate(n, seed, p=TRUE):
    """n data; covariates are standard normal, scales drawn by inverse transform and uniform within a cell."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=n)
    log_u, weight = _prior(p, c)
    cells = np.cumsum(np.exp(weight - weight.max(1, keepdims=True)), axis=1)
    index = (cells < rng.uniform(size=(n, 1)) * cells[:, -1:]).sum(1)
    jitter = np.exp(p["ls"]) * STEP * rng.uniform(-0.5, 0.5, size=n)
    u = np.exp(log_u[np.arange(n), index] + jitter)
    z = p["d"] * c + u * rng.normal(size=n)
    x = np.stack([z, u], 1) + np.exp(p["lsig"]) * rng.normal(size=(n, 2))
    return {"c": c.astype(np.float32), "x": x.astype(np.float32)}
