"""Scales, masks and reparametrisations; sites that are more, or less, than sample statements."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(8)
LABEL = np.array([0, 1, 1, 2, 0, 2, 1])
Y = rng.normal(size=7)
FLAG = np.array([True, False, False, True, True, False, True])
DATA = {"label": LABEL, "y": Y}


@entry(Y, latents="s", observed="y")
def scaled_positive(h):
    """A positive latent under a scale, which the Jacobian does not see."""

    def model(x):
        with h.plate("data", len(x)):
            with h.scale(3.0):
                s = h.sample("s", h.dist.Gamma(2.0, 1.0))
            h.sample("y", h.dist.Normal(0.0, s), obs=x)

    return model


@entry({"flag": FLAG, "y": Y}, latents="s", observed="y", covariates="flag", reads_prior=True)
def masked_positive(h):
    """A positive latent under a mask, which the Jacobian does not see."""

    def model(flag, y):
        with h.plate("data", len(y)):
            with h.mask(flag):
                s = h.sample("s", h.dist.Gamma(2.0, 1.0))
            h.sample("y", h.dist.Normal(0.0, s), obs=y)

    return model


@entry(Y, latents="s t", observed="y", joint=True)
def scaled_and_masked_globals(h):
    """The same of global latents."""

    def model(x):
        with h.scale(0.5):
            s = h.sample("s", h.dist.Gamma(2.0, 1.0))
        with h.mask(False):
            t = h.sample("t", h.dist.LogNormal(0.0, 1.0))
        with h.plate("data", len(x)), h.scale(2.0):
            h.sample("y", h.dist.Normal(0.0, s + t), obs=x)

    return model


@entry(
    {"c": Y + 1.0, "y": Y}, latents="z", observed="y", covariates="c", deterministic="level twice", reads_generator=True
)
def kept_values(h):
    """Deterministic sites of every row, one of which reads a covariate."""

    def model(c, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(h.xp.zeros(2), 1.0).to_event(1))
            level = h.deterministic("level", c + z.sum(-1))
            h.deterministic("twice", 2.0 * z)
            h.sample("y", h.dist.Normal(level, 1.0), obs=y)

    return model


@entry(
    {"c": Y + 1.0, "y": Y},
    latents="z",
    observed="y",
    covariates="c",
    deterministic="mean residual above",
    reads_prior=True,
    reads_generator=True,
)
def kept_residuals(h):
    """A deterministic site of an observed value, which data may lack."""

    def model(c, y=None):
        with h.plate("data", len(c)):
            z = h.sample("z", h.dist.Normal(0.0 * c, 1.0))
            mean = h.deterministic("mean", c + z)
            y = h.sample("y", h.dist.Normal(mean, 0.5), obs=y)
            h.deterministic("residual", y - mean)
            h.deterministic("above", y > mean)

    return model


@entry(Y, latents="mu z", observed="y", deterministic="square ratio", joint=True)
def kept_globals(h):
    """Deterministic sites of all rows and of every row."""

    def model(x):
        mu = h.sample("mu", h.dist.Normal(0.0, 1.0))
        h.deterministic("square", mu**2)
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.LogNormal(mu, 0.5))
            h.deterministic("ratio", z / h.xp.exp(mu))
            h.sample("y", h.dist.Normal(z, 1.0), obs=x)

    return model


@entry(Y, latents="z", observed="y", deterministic="shifted")
def observed_delta(h):
    """A point mass at its own value only keeps it."""

    def model(x):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            shifted = h.sample("shifted", h.dist.Delta(z + 1.0), obs=z + 1.0)
            h.sample("y", h.dist.Normal(shifted, 1.0), obs=x)

    return model


@entry(Y, latents="theta_decentered", observed="y", deterministic="theta", tilts="f")
def reparametrised_and_tilted(h):
    """What the handler leaves of a site is a value, and the tilt is of that value."""

    def model(x):
        with h.plate("data", len(x)):
            theta = h.sample("theta", h.dist.Normal(2.0, 0.5))
            h.tilt("f", 3.0 * theta)
            h.sample("y", h.dist.Normal(theta, 0.3), obs=x)

    return h.reparam(model, {"theta": h.LocScaleReparam(0.0)})


@entry(
    DATA,
    latents="mu tau theta_decentered",
    observed="y",
    covariates="label",
    deterministic="theta",
    joint=True,
    reads_generator=True,
)
def reparametrised_groups(h):
    """The usual reparametrisation of a hierarchy."""

    def model(label, y):
        mu = h.sample("mu", h.dist.Normal(0.0, 1.0))
        tau = h.sample("tau", h.dist.HalfNormal(1.0))
        with h.plate("label", 3):
            theta = h.sample("theta", h.dist.Normal(mu, tau))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(theta[label], 0.5), obs=y)

    return h.reparam(model, {"theta": h.LocScaleReparam(0.0)})


@entry(Y, latents="z", observed="y", improper=True)
def improper_by_row(h):
    """Flat on the line, in every row."""

    def model(x):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.ImproperUniform(h.dist.constraints.real, (), ()))
            h.sample("y", h.dist.Normal(z, 1.0), obs=x)

    return model


@entry(Y, latents="s", observed="y", joint=True, improper=True)
def improper_global(h):
    """Flat on the half-line."""

    def model(x):
        s = h.sample("s", h.dist.ImproperUniform(h.dist.constraints.positive, (), ()))
        with h.plate("data", len(x)):
            h.sample("y", h.dist.Normal(0.0, s), obs=x)

    return model
