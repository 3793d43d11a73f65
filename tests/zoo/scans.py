"""Loops of NumPyro, with latent and with observed statements inside."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(9)
SERIES = np.cumsum(rng.normal(size=(6, 4)), 1)
ONE = np.cumsum(rng.normal(size=5))


@entry(
    ONE,
    latents="z",
    observed="y",
    joint=True,
    plate=None,
    exchangeable=False,
    hosts="numpyro",
)
def scanned_states(h):
    """States inside a scan, into which the data go whole: the loop reads them, whatever its statements do."""
    from numpyro.contrib.control_flow import scan

    def model(x):
        def step(z, y):
            z = h.sample("z", h.dist.Normal(z, 1.0))
            h.sample("y", h.dist.Normal(z, 0.5), obs=y)
            return z, z

        scan(step, 0.0, x)

    return model


@entry(
    ONE,
    latents="phi",
    observed="y",
    joint=True,
    plate=None,
    exchangeable=False,
    hosts="numpyro",
)
def scanned_observations(h):
    """Observed values alone inside a scan, each made of the one before."""
    from numpyro.contrib.control_flow import scan

    def model(x):
        phi = h.sample("phi", h.dist.Normal(0.5, 0.3))

        def step(before, y):
            y = h.sample("y", h.dist.Normal(phi * before, 0.5), obs=y)
            return y, None

        scan(step, 0.0, x)

    return model


@entry(SERIES, latents="s z", observed="y", hosts="numpyro")
def scanned_panel(h):
    """A scan for every row, with a plate inside the loop."""
    from numpyro.contrib.control_flow import scan

    def model(x):
        with h.plate("data", len(x)):
            s = h.sample("s", h.dist.HalfNormal(1.0))

        def step(z, y):
            with h.plate("data", len(x)):
                z = h.sample("z", h.dist.Normal(z, s))
                h.sample("y", h.dist.Normal(z, 0.5), obs=y)
            return z, None

        scan(step, h.xp.zeros(len(x)), x.T)

    return model
