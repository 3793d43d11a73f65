"""Regressions of counts, successes and levels."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(7)
X2 = rng.normal(size=(9, 2))
COUNTS = rng.poisson(2.0, size=9)
HITS = rng.integers(0, 2, size=9)
EXPOSURE = rng.uniform(0.5, 3.0, size=9)
CUTS = np.array([-1.0, 0.0, 1.0])
LEVELS = rng.integers(0, 4, size=10)
GRADE = rng.normal(size=10)


@entry({"x": X2, "y": HITS}, latents="w", observed="y", covariates="x", joint=True, reads_generator=True)
def logistic(h):
    """Bernoulli responses, integers."""

    def model(x, y):
        w = h.sample("w", h.dist.Normal(h.xp.zeros(2), 1.0).to_event(1))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Bernoulli(logits=x @ w), obs=y if h.name == "numpyro" else y.to(x.dtype))

    return model


@entry(
    {"x": X2[:, 0], "exposure": EXPOSURE, "y": COUNTS},
    latents="a b",
    observed="y",
    covariates="x exposure",
    joint=True,
    reads_generator=True,
)
def poisson_with_offset(h):
    """Counts in proportion to an exposure."""

    def model(x, exposure, y):
        a = h.sample("a", h.dist.Normal(0.0, 1.0))
        b = h.sample("b", h.dist.Normal(0.0, 0.5))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Poisson(exposure * h.xp.exp(a + b * x)), obs=y)

    return model


@entry({"x": X2[:, 0], "y": COUNTS}, latents="z", observed="y", covariates="x", reads_generator=True)
def negative_binomial(h):
    """Overdispersed counts around a log-linear mean with an effect of every row."""

    def model(x, y):
        shape = h.param("shape", 2.0, constraint=h.dist.constraints.positive)
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 0.5))
            h.sample("y", h.dist.GammaPoisson(shape, shape * h.xp.exp(-z - 0.3 * x)), obs=y)

    return model


@entry({"y": np.where(HITS > 0, COUNTS, 0)}, latents="gate rate", observed="y", joint=True)
def zero_inflated_poisson(h):
    """Counts with more zeros than they should have."""

    def model(y):
        gate = h.sample("gate", h.dist.Beta(2.0, 3.0))
        rate = h.sample("rate", h.dist.Gamma(3.0, 1.0))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.ZeroInflatedPoisson(gate=gate, rate=rate), obs=y)

    return model


@entry(
    {"totals": np.array([3, 5, 9, 4, 7, 6, 2]), "y": np.array([1, 2, 8, 0, 3, 6, 1])},
    latents="z",
    observed="y",
    covariates="totals",
    reads_generator=True,
)
def binomial_with_totals(h):
    """Successes out of given numbers of trials."""

    def model(totals, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.sample("y", h.dist.Binomial(totals, logits=0.5 * z), obs=y)

    return model


@entry(
    rng.multinomial(10, [0.2, 0.5, 0.3], size=7),
    latents="p",
    observed="x",
)
def multinomial(h):
    """Integers with an event axis, probabilities of every row."""

    def model(x):
        with h.plate("data", len(x)):
            p = h.sample("p", h.dist.Dirichlet(h.array([2.0, 3.0, 2.5])))
            h.sample("x", h.dist.Multinomial(10, p), obs=x)

    return model


@entry(
    {"x": GRADE, "k": LEVELS}, latents="b", observed="k", covariates="x", joint=True, reads_generator=True, loops="pyro"
)
def ordinal(h):
    """Ordered levels between known cutpoints."""

    def model(x, k):
        b = h.sample("b", h.dist.Normal(0.0, 1.0))
        with h.plate("data", len(k)):
            h.sample("k", h.dist.OrderedLogistic(b * x, h.array(CUTS)), obs=k)

    return model
