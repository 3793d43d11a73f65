r"""A tilted hierarchy of eight scalar parameters whose likelihood is exact, fast, and differentiable.

    z2 ~ N(m, 1) tilted by f(z2) = b1 exp(-(z2 - 1.5)² / .5) + b2 exp(-(z2 + 1)² / .3)
    z1 ~ N(sin(2 z2), exp(ls)²)
    x  ~ N([v1 z1, v2 z2, v3 z1 z2], exp(lsig)² I)

Given z2 data are normal: with u = (v1, 0, v3 z2) their mean is sin(2 z2) u + (0, v2 z2, 0), and their covariance
exp(2 lsig) I + exp(2 ls) u u'. One integral over z2 is left, by trapezoids. The same model is a case of `beds`, on a
plane of points, which this agrees with.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

TRUE = {"m": 0.3, "ls": -0.7, "b1": 3.0, "b2": 2.0, "v1": 1.0, "v2": 1.0, "v3": 0.5, "lsig": float(np.log(0.3))}
NAMES = tuple(TRUE)
GRID = np.linspace(-6.0, 6.0, 481)  # of z2 - m


def tilt(p, z2):
    """The tilt at z2."""
    return p["b1"] * np.exp(-((z2 - 1.5) ** 2) / 0.5) + p["b2"] * np.exp(-((z2 + 1.0) ** 2) / 0.3)


def simulate(n, seed, p=TRUE):
    """n data, (n, 3)."""
    rng, grid = np.random.default_rng(seed), np.linspace(-6.0, 6.0, 20001)
    weight = np.exp(-0.5 * (grid - p["m"]) ** 2 + tilt(p, grid))
    z2 = rng.choice(grid, n, p=weight / weight.sum())
    z1 = np.sin(2.0 * z2) + np.exp(p["ls"]) * rng.normal(size=n)
    mean = np.stack([p["v1"] * z1, p["v2"] * z2, p["v3"] * z1 * z2], 1)
    return (mean + np.exp(p["lsig"]) * rng.normal(size=(n, 3))).astype(np.float32)


def log_evidence(vector, x):
    """Exact log p(x), (n,), of data (n, 3), at parameters in the order of `NAMES`."""
    p, x = dict(zip(NAMES, vector, strict=True)), np.asarray(x, float)
    z2 = p["m"] + GRID
    log_prior = -0.5 * GRID**2 + tilt(p, z2)
    log_prior = log_prior - logsumexp(log_prior)
    noise, wide = np.exp(2.0 * p["lsig"]), np.exp(2.0 * p["ls"])
    length = p["v1"] ** 2 + (p["v3"] * z2) ** 2  # |u|²
    s = np.sin(2.0 * z2)
    a, b, c = (x[:, [0]] - p["v1"] * s, x[:, [1]] - p["v2"] * z2, x[:, [2]] - p["v3"] * z2 * s)
    along = p["v1"] * a + p["v3"] * z2 * c  # u'(x - mean)
    quadratic = (a**2 + b**2 + c**2 - wide * along**2 / (noise + wide * length)) / noise
    log_det = 2.0 * np.log(noise) + np.log(noise + wide * length)
    return logsumexp(log_prior - 0.5 * (quadratic + log_det + 3.0 * np.log(2.0 * np.pi)), axis=1)


def derivatives(function, at, step=1e-3):
    """Gradients of every datum, (n, k), and minus second derivatives of the sum, (k, k), by central differences."""
    k, e = len(at), step * np.eye(len(at))
    total = lambda v: function(v).sum()
    gradient = np.stack([(function(at + e[i]) - function(at - e[i])) / (2.0 * step) for i in range(k)], 1)
    second = np.empty((k, k))
    for i in range(k):
        for j in range(i + 1):
            both = total(at + e[i] + e[j]) - total(at + e[i] - e[j])
            second[i, j] = second[j, i] = (both - total(at - e[i] + e[j]) + total(at - e[i] - e[j])) / (4.0 * step**2)
    return gradient, -second


@functools.cache
def case(n=300, seed=3, held=()):
    """Data, and the exact maximum of their likelihood, (8,); held: pairs of a name and its value."""
    x = simulate(n, seed)
    free = [k for k, name in enumerate(NAMES) if name not in dict(held)]
    start = np.array([dict(held).get(name, TRUE[name]) for name in NAMES])

    def loss(some):
        at = start.copy()
        at[free] = some
        slope = lambda v: log_evidence(np.concatenate([at[:0], _filled(at, free, v)]), x)
        gradient = np.array([(slope(some + d).sum() - slope(some - d).sum()) / 2e-4 for d in 1e-4 * np.eye(len(free))])
        return -log_evidence(at, x).sum(), -gradient

    found = minimize(loss, start[free], jac=True, method="BFGS", options={"gtol": 1e-3 * n**0.5})
    return x, _filled(start, free, found.x)


def _filled(whole, free, some):
    whole = whole.copy()
    whole[free] = some
    return whole
