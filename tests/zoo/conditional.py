"""Priors and tilts that look at covariates, under handlers too."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(6)
LABEL = np.array([0, 1, 1, 2, 0, 2, 1])
Y = rng.normal(size=7)
FLAG = np.array([True, False, False, True, True, False, True])
DATA = {"label": LABEL, "y": Y}


@entry(
    {"c": rng.normal(size=7), "y": Y},
    latents="z",
    observed="y",
    covariates="c",
    tilts="f",
    reads_prior=True,
    log_z=lambda data: 0.5 * data["c"] ** 2,
)
def conditional_tilt(h):
    """exp(c z) times a standard normal: a constant exp(c²/2) for every row."""

    def model(c, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.tilt("f", c * z)
            h.sample("y", h.dist.Normal(z, 1.0), obs=y)

    return model


@entry(
    DATA,
    latents="z",
    observed="y",
    covariates="label",
    tilts="f",
    reads_prior=True,
    log_z=lambda data: np.array([0.5, -1.0, 2.0])[data["label"]],
)
def constant_tilt(h):
    """A constant per label, which changes no density."""

    def model(label, y):
        c = h.param("c", np.array([0.5, -1.0, 2.0]))
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.tilt("f", c[label] + 0.0 * z)
            h.sample("y", h.dist.Normal(z, 1.0), obs=y)

    return model


@entry(DATA, latents="z", observed="y", covariates="label", reads_prior=True)
def conditional_prior(h):
    """A mean and a scale per label."""

    def model(label, y):
        mean = h.param("mean", np.array([0.5, -1.0, 2.0]))
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(mean[label], h.array([1.0, 0.5, 2.0])[label]))
            h.sample("y", h.dist.Normal(z, 1.0), obs=y)

    return model


@entry({"flag": FLAG, "y": Y}, latents="z", observed="y", covariates="flag", tilts="f", reads_prior=True)
def masked_tilt(h):
    """A tilt that counts in some rows."""

    def model(flag, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            with h.mask(flag):
                h.tilt("f", 1.5 * z)
            h.sample("y", h.dist.Normal(z, 1.0), obs=y)

    return model


@entry(
    {"weight": rng.uniform(0.5, 2.0, size=7), "y": Y},
    latents="z",
    observed="y",
    covariates="weight",
    tilts="f",
    reads_prior=True,
)
def scaled_tilt(h):
    """A tilt and a likelihood with weights by row."""

    def model(weight, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            with h.scale(weight):
                h.tilt("f", h.xp.sin(z))
                h.sample("y", h.dist.Normal(z, 1.0), obs=y)

    return model


@entry(DATA, latents="mu z", observed="y", covariates="label", tilts="f g", joint=True, reads_prior=True)
def tilted_globals(h):
    """Tilts of a global latent, and of every row with a weight per label."""

    def model(label, y):
        mu = h.sample("mu", h.dist.Normal(0.0, 1.0))
        h.tilt("f", -(mu**4))
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(mu, 1.0))
            h.tilt("g", -h.array([0.0, 0.5, 1.0])[label] * z**2)
            h.sample("y", h.dist.Normal(z, 1.0), obs=y)

    return model
