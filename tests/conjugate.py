"""The conjugate page at parameters that are not its own, and a jointly Gaussian hierarchy, on either backend."""

from __future__ import annotations

import numpy as np

import pplebm
from pplebm.ppl.language import load_backend

BACKENDS = ("pyro", "numpyro")
X = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)


def instance(backend, coordinates="noncentered"):
    """The conjugate model at parameters that are not its own, and its closed forms."""
    rng, page = np.random.default_rng(3), pplebm.load("conjugate_tilt")
    program = pplebm.Program(pplebm.bind("conjugate_tilt", backend, shape=(4,), d1=3, d2=2), coordinates=coordinates)
    values = {
        "W": 0.5 * rng.normal(size=(4, 3)), "A": rng.normal(size=(3, 2)), "b": rng.normal(size=3),
        "log_s": 0.3 * rng.normal(size=3), "Q1": 0.3 * np.eye(3), "Q2": 0.5 * np.eye(2),
        "c1": rng.normal(size=3), "c2": rng.normal(size=2),
    }  # fmt: skip
    params = {name: program.ppl.asarray(v) for name, v in values.items()}
    hyper = page.Hyper(d1=3, d2=2)
    return program, params, lambda x=None: page.closed_form(values, hyper, x)


def hierarchy(backend, plate=True):
    """A global mean, a latent per datum: jointly Gaussian."""
    host = load_backend(backend)

    def model(x):
        mean = host.sample("mean", host.dist.Normal(1.0, 2.0))
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(mean, 1.0))
            host.sample("x", host.dist.Normal(z, 0.5), obs=x)

    return pplebm.Program(model, data=np.array([0.5, -1.0, 2.0, 3.0], np.float32), backend=backend)


def scalars(backend):
    """One latent per datum, N(0, 1) seen through N(0, 1)."""
    host = load_backend(backend)

    def model(x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 1.0))
            host.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)


def one_layer(backend, tilt=0.7, slope=0.0):
    """z ~ N(0, 1) tilted by `tilt` z + `slope` c z, x ~ N(z, 0.6²): everything is Gaussian; c is a covariate."""
    host = load_backend(backend)

    def model(x, c):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 1.0))
            host.tilt("f", tilt * z + slope * c * z)
            host.sample("x", host.dist.Normal(z, 0.6), obs=x)

    x = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    c = np.array([0.0, 1.0, -2.0, 0.5], np.float32)
    return pplebm.Program(model, data={"x": x, "c": c}, backend=backend), {"x": x, "c": c}


def exact_one_layer(data, tilt=0.7, slope=0.0, base=False):
    """log Z(c) and log p(x | c): the tilted prior is N(m, 1) with m the whole tilt."""
    m = 0.0 * data["c"] if base else tilt + slope * data["c"]
    return 0.5 * m**2, -0.5 * (data["x"] - m) ** 2 / 1.36 - 0.5 * np.log(2 * np.pi * 1.36)
