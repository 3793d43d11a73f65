"""Series: autoregressions, state spaces, hidden Markov models, loops."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(3)
SERIES = np.cumsum(rng.normal(size=(6, 4)), 1)
ONE = np.cumsum(rng.normal(size=8))
LENGTHS = np.arange(4) < np.array([4, 2, 3, 1, 4, 2])[:, None]
TRANSITION = np.log([[0.9, 0.1], [0.3, 0.7]])


@entry(SERIES, latents="phi", observed="y0 y1 y2 y3")
def autoregression_by_row(h):
    """Every observed value is made of the one before, as its statement returned it."""

    def model(x):
        with h.plate("data", len(x)):
            phi = h.sample("phi", h.dist.Normal(0.5, 0.3))
            y = h.sample("y0", h.dist.Normal(0.0, 1.0), obs=x[:, 0])
            for t in range(1, x.shape[1]):
                y = h.sample(f"y{t}", h.dist.Normal(phi * y, 0.5), obs=x[:, t])

    return model


@entry(ONE, latents="phi s", observed=" ".join(f"y{t}" for t in range(8)), joint=True, plate=None, exchangeable=False)
def autoregression(h):
    """One series, whose steps are the rows: no plate."""

    def model(x):
        phi = h.sample("phi", h.dist.Uniform(-1.0, 1.0))
        s = h.sample("s", h.dist.HalfNormal(1.0))
        y = 0.0
        for t in h.steps(len(x)):
            y = h.sample(f"y{t}", h.dist.Normal(phi * y, s), obs=x[t])

    return model


@entry(SERIES[:, :2], latents="z", observed="y1 y2")
def observed_parents(h):
    """y2 given y1 given z."""

    def model(x):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            y1 = h.sample("y1", h.dist.Normal(z, 1.0), obs=x[:, 0])
            h.sample("y2", h.dist.Normal(y1, 0.1), obs=x[:, 1])

    return model


@entry(
    {"before": SERIES[:, 0], "y": SERIES[:, 1]}, latents="z", observed="y", covariates="before", reads_generator=True
)
def lagged(h):
    """The value before as a covariate."""

    def model(before, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.sample("y", h.dist.Normal(0.8 * before + z, 0.5), obs=y)

    return model


@entry(SERIES, latents="z0 z1 z2 z3", observed="y0 y1 y2 y3")
def state_spaces(h):
    """A Markov loop of latents for every row."""

    def model(x):
        with h.plate("data", len(x)):
            z = 0.0
            for t in h.steps(x.shape[1]):
                z = h.sample(f"z{t}", h.dist.Normal(0.9 * z if t else 0.0, 1.0))
                h.sample(f"y{t}", h.dist.Normal(z, 0.5), obs=x[:, t])

    return model


@entry(
    ONE,
    latents=" ".join(f"z{t}" for t in range(8)),
    observed=" ".join(f"y{t}" for t in range(8)),
    joint=True,
    plate=None,
    exchangeable=False,
)
def state_space(h):
    """One series, a latent of every step."""

    def model(x):
        z = 0.0
        for t in h.steps(len(x)):
            z = h.sample(f"z{t}", h.dist.Normal(z, 1.0))
            h.sample(f"y{t}", h.dist.StudentT(5.0, z, 0.5), obs=x[t])

    return model


@entry(ONE, latents="z", observed="y", joint=True, plate=None, exchangeable=False)
def random_walk(h):
    """All steps in one vector."""

    def model(x):
        n = len(x)
        root = h.xp.tril(h.xp.ones((n, n)))
        z = h.sample("z", h.dist.MultivariateNormal(h.xp.zeros(n), scale_tril=root))
        h.sample("y", h.dist.Normal(z, 0.5).to_event(1), obs=x)

    return model


@entry(ONE[:6], latents="mu", observed="y", joint=True, plate=None, exchangeable=False, hosts="pyro", loops="pyro")
def discrete_hmm(h):
    """A hidden Markov chain summed over, one series."""

    def model(x):
        mu = h.sample("mu", h.dist.Normal(h.xp.zeros(2), 1.0).to_event(1))
        start = h.array(np.log([0.5, 0.5]))
        h.sample("y", h.dist.DiscreteHMM(start, h.array(TRANSITION), h.dist.Normal(mu, 1.0), duration=len(x)), obs=x)

    return model


@entry(SERIES[..., None], latents="z", observed="x", hosts="pyro")
def gaussian_hmm(h):
    """A linear dynamical system integrated out, for every row, with a latent level."""

    def model(x):
        eye, zero = h.xp.eye(1), h.xp.zeros(1)
        normal = lambda scale: h.dist.Normal(zero, scale).to_event(1)
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            noise = h.dist.Normal(z[..., None, None], 0.5).to_event(1)
            chain = (normal(1.0), 0.9 * eye, normal(0.6))
            h.sample("x", h.dist.GaussianHMM(*chain, eye, noise, duration=x.shape[1]), obs=x)

    return model


@entry({"y": SERIES}, latents="mu", observed="", covariates="y", factors="loglik")
def forward_algorithm(h):
    """The same sum over hidden states as a factor of the likelihood, in both languages."""

    def model(y):
        with h.plate("data", len(y)):
            mu = h.sample("mu", h.dist.Normal(h.array([0.0, 2.0]), 1.0).to_event(1))
            log_alpha = (
                h.array(np.log([0.5, 0.5])).expand(len(y), 2)
                if h.name == "pyro"
                else h.xp.full((len(y), 2), np.log(0.5))
            )
            for t in range(y.shape[1]):
                moved = h.logsumexp(log_alpha[..., None] + h.array(TRANSITION), -2)
                log_alpha = moved + h.dist.Normal(mu, 1.0).log_prob(y[:, t, None])
            h.likelihood_factor("loglik", h.logsumexp(log_alpha, -1))

    return model


@entry(
    {"x": SERIES, "going": LENGTHS},
    latents="z0 z1 z2 z3",
    observed="x0 x1 x2 x3",
    covariates="going",
    tilts="smooth",
    reads_prior=True,
)
def deep_markov_model(h):
    """Latents and observations of series of different lengths, under a mask; a tilt of the states."""

    def model(x, going):
        w = h.param("w", np.array([[0.5, -0.2], [0.3, 0.4]]))
        v = h.param("v", np.array([0.7, -0.4]))
        with h.plate("data", len(x)):
            z, total = h.xp.zeros((len(x), 2)), 0.0
            for t in range(x.shape[1]):
                with h.mask(going[:, t]):
                    z = h.sample(f"z{t}", h.dist.Normal(h.xp.tanh(z @ w), 0.6).to_event(1))
                    h.sample(f"x{t}", h.dist.Normal(z @ v, 0.5), obs=x[:, t])
                total = total + h.xp.where(going[:, t], z[..., 0] * z[..., 1], 0.0)
            h.tilt("smooth", -0.1 * total**2)

    return model
