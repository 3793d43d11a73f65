"""Mixtures, bounded and positive latents, layers."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(5)
X = np.r_[rng.normal(-2.0, 0.5, 5), rng.normal(2.0, 0.5, 4)]
PAIRS = rng.normal(size=(6, 2))
W1 = rng.normal(size=(2, 3))
W2 = 0.5 * rng.normal(size=(2, 2))


@entry(X, latents="p mu", observed="x", joint=True)
def mixture_likelihood(h):
    """Two normal components, summed over."""

    def model(x):
        p = h.sample("p", h.dist.Dirichlet(h.array([2.0, 2.0])))
        with h.plate("component", 2):
            mu = h.sample("mu", h.dist.Normal(0.0, 3.0))
        with h.plate("data", len(x)):
            which = h.dist.Categorical(probs=p)
            h.sample("x", h.dist.MixtureSameFamily(which, h.dist.Normal(mu, 0.5)), obs=x)

    return model


@entry(PAIRS, latents="z", observed="x", tilts="f")
def mixture_prior(h):
    """A latent of every row from a mixture, tilted."""

    def model(x):
        locs, logits = h.array([[-2.0, 0.0], [2.0, 1.0]]), h.array([0.3, -0.3])
        if h.name == "pyro":
            prior = h.dist.MixtureOfDiagNormals(locs, 0.8 * h.xp.ones((2, 2)), logits)
        else:
            normals = h.dist.Normal(locs, 0.8).to_event(1)
            prior = h.dist.MixtureSameFamily(h.dist.Categorical(logits=logits), normals)
        with h.plate("data", len(x)):
            z = h.sample("z", prior)
            h.tilt("f", 0.5 * z.sum(-1))
            h.sample("x", h.dist.Normal(z, 0.5).to_event(1), obs=x)

    return model


@entry(X, latents="a b c", observed="x")
def bounded_latents(h):
    """The unit interval, the positive half-line twice."""

    def model(x):
        with h.plate("data", len(x)):
            a = h.sample("a", h.dist.Beta(2.0, 3.0))
            b = h.sample("b", h.dist.Gamma(2.0, 1.5))
            c = h.sample("c", h.dist.LogNormal(0.2, 0.4))
            h.sample("x", h.dist.Normal(a * b, c), obs=x)

    return model


@entry(X, latents="top u", observed="x")
def bound_of_another(h):
    """The support of one latent ends at another."""

    def model(x):
        with h.plate("data", len(x)):
            top = h.sample("top", h.dist.Pareto(h.array(1.0), h.array(4.0)))
            u = h.sample("u", h.dist.Uniform(-1.0, top))
            h.sample("x", h.dist.Laplace(u, 0.8), obs=x)

    return model


@entry(X, latents="a b", observed="x", hosts="numpyro")
def truncated(h):
    """Truncated normal latents, on one side and on two."""

    def model(x):
        with h.plate("data", len(x)):
            a = h.sample("a", h.dist.TruncatedNormal(0.3, 1.0, low=-0.5))
            b = h.sample("b", h.dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0))
            h.sample("x", h.dist.Normal(a * b, 0.5), obs=x)

    return model


@entry(np.abs(X), latents="shape scale", observed="x", joint=True)
def positive_observations(h):
    """Weibull times with global shape and scale."""

    def model(x):
        shape = h.sample("shape", h.dist.InverseGamma(4.0, 4.0))
        scale = h.sample("scale", h.dist.LogNormal(0.0, 0.5))
        with h.plate("data", len(x)):
            h.sample("x", h.dist.Weibull(scale, shape), obs=x)

    return model


@entry(rng.beta(2.0, 2.0, size=7), latents="loc", observed="x")
def angles(h):
    """A circular likelihood."""

    def model(x):
        with h.plate("data", len(x)):
            loc = h.sample("loc", h.dist.Normal(0.0, 0.5))
            h.sample("x", h.dist.VonMises(loc, 3.0), obs=x)

    return model


@entry(rng.normal(size=(6, 3)), latents="z2 z1", observed="x", tilts="f")
def two_layers(h):
    """A tilted generator of two layers with networks."""

    def model(x):
        w1, w2 = h.param("w1", W1), h.param("w2", W2)
        v = h.param("v", W2 + 0.3)
        with h.plate("data", len(x)):
            z2 = h.sample("z2", h.dist.Normal(h.xp.zeros(2), 1.0).to_event(1))
            z1 = h.sample("z1", h.dist.Normal(h.xp.tanh(z2 @ w2), 0.3 + z2**2).to_event(1))
            h.tilt("f", (h.xp.tanh(z1 @ v) * z2).sum(-1))
            h.sample("x", h.dist.Normal(z1 @ w1, 0.3).to_event(1), obs=x)

    return model


@entry(PAIRS, latents="z", observed="x", tilts="f g")
def bounded_tilts(h):
    """Two tilts of one latent, one of them bounded."""

    def model(x):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.Laplace(0.0, 1.0).expand([2]).to_event(1))
            h.tilt("f", (z**3).sum(-1), bound=2.0)
            h.tilt("g", -(z**2).sum(-1))
            h.sample("x", h.dist.Normal(z, 0.3).to_event(1), obs=x)

    return model


@entry(
    {"x": PAIRS, "flag": np.array([True, False, True, True, False, False])}, latents="z", observed="flag x", joint=False
)
def two_likelihoods(h):
    """A vector and a boolean of the same latent."""

    def model(x, flag):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.Normal(h.xp.zeros(2), 1.0).to_event(1))
            hit = flag if h.name == "numpyro" else flag.to(z.dtype)
            h.sample("flag", h.dist.Bernoulli(logits=z.sum(-1)), obs=hit)
            h.sample("x", h.dist.Normal(z, 0.5).to_event(1), obs=x)

    return model
