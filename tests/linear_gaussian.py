"""Random instances of the conjugate model, and the means to take exact expectations of quadratics under it."""

from __future__ import annotations

import numpy as np

import pplebm

CASES = [(1, 1, 1, 0), (2, 1, 3, 1), (3, 2, 4, 2), (2, 4, 3, 3), (6, 6, 5, 4)]  # d1, d2, data width, seed


def instance(d1, d2, width, seed, coordinates="centered"):
    """Program, hyper, random parameters (a tilt wider than its base included) and a batch of data."""
    rng = np.random.default_rng(seed)
    page = pplebm.load("conjugate_tilt")
    hyper = page.Hyper(d1=d1, d2=d2)
    model = pplebm.bind(page, "pyro", shape=(width,), d1=d1, d2=d2)
    program = pplebm.Program(model, coordinates=coordinates)

    def symmetric(d):
        q = rng.normal(size=(d, d))
        return 0.3 * (q + q.T) / np.sqrt(d) + 0.4 * np.eye(d) - (0.3 if seed % 2 else 0.0) * np.eye(d)

    values = {
        "W": rng.normal(size=(width, d1)),
        "A": rng.normal(size=(d1, d2)),
        "b": rng.normal(size=d1),
        "log_s": 0.3 * rng.normal(size=d1),
        "Q1": symmetric(d1),
        "Q2": symmetric(d2),
        "c1": rng.normal(size=d1),
        "c2": rng.normal(size=d2),
    }
    params = {name: program.ppl.asarray(v) for name, v in values.items()}
    return page, program, hyper, params, rng.normal(size=(4, width))


def as_numpy(params):
    return {name: v.detach().numpy() for name, v in params.items()}


def split(u, d1):
    """Rows of u = (z1, z2) as latents."""
    import torch

    return {"z1": torch.as_tensor(u[:, :d1]), "z2": torch.as_tensor(u[:, d1:])}


def sigma_points(gaussian):
    """2n points whose average of any quadratic is its expectation under the Gaussian: no Monte Carlo error."""
    n = len(gaussian.mean)
    root = np.linalg.cholesky(gaussian.covariance) * np.sqrt(n)
    return np.concatenate([gaussian.mean + root.T, gaussian.mean - root.T])


def log_evidence(page, params, hyper, x):
    """log p(x) = log ∫ p̃(x, z) dz - log Z in closed form."""
    return page.closed_form(params, hyper, x).log_constant - page.closed_form(params, hyper).log_constant


def exact_gradient(page, hyper, values, x, step=1e-5):
    """Central differences of the mean of the closed-form log p(x), for every entry of every parameter."""

    def objective(v):
        return np.mean([log_evidence(page, v, hyper, datum) for datum in x])

    gradient = {}
    for name, value in values.items():
        gradient[name] = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            up, down = value.copy(), value.copy()
            up[index] += step
            down[index] -= step
            gradient[name][index] = (objective(values | {name: up}) - objective(values | {name: down})) / (2 * step)
    return gradient
