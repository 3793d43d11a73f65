"""One latent, tilted and seen through noise of a scale that is declared positive: x ~ N(t, 1 + s²) in closed form."""

from __future__ import annotations

import numpy as np

import pplebm
from pplebm.ppl.language import load_backend


def declared(backend, name, value, constraint=None):
    """A parameter of the host, with a constraint of its own if there is one."""
    if backend == "pyro":
        import pyro
        import torch
        from torch.distributions import constraints

        return pyro.param(name, torch.tensor(value), constraint=getattr(constraints, constraint or "real"))
    import numpyro
    from numpyro.distributions import constraints

    return numpyro.param(name, np.asarray(value, np.float32), constraint=getattr(constraints, constraint or "real"))


def scaled(backend, t, s, x):
    """z ~ N(0, 1) tilted by t z, x ~ N(z, s²): x ~ N(t, 1 + s²), s declared positive."""
    host = load_backend(backend)

    def model(x):
        shift, sd = declared(backend, "t", t), declared(backend, "s", s, "positive")
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 1.0))
            host.tilt("f", shift * z)
            host.sample("x", host.dist.Normal(z, sd), obs=x)

    return pplebm.Program(model, data=x, backend=backend)


def data_of(n=60, sd=1.5, seed=1):
    return np.random.default_rng(seed).normal(0.6, sd, size=n).astype(np.float32)
