"""Regressions of numbers: covariates by name, by column and by position; processes and networks."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(1)
DOSE = np.linspace(-1.0, 2.0, 8)
Y = 1.5 * DOSE + 0.5 * rng.normal(size=8)
X2 = rng.normal(size=(9, 2))
RESPONSE = X2[:, 0] + 0.5 * rng.normal(size=9)
GRADE = rng.normal(size=10)


@entry({"dose": DOSE, "y": Y}, latents="b", observed="y", covariates="dose", joint=True, reads_generator=True)
def linear_by_name(h):
    """y ~ N(b dose, 1/2), a normal posterior."""

    def model(dose, y):
        b = h.sample("b", h.dist.Normal(0.0, 5.0))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(b * dose, 0.5), obs=y)

    return model


@entry(
    np.stack([DOSE, Y], 1),
    latents="a b sigma",
    observed="y",
    covariates="x[0]",
    joint=True,
    reads_generator=True,
)
def linear_by_column(h):
    """Columns of one array, an unknown scale."""

    def model(x):
        a = h.sample("a", h.dist.Normal(0.0, 2.0))
        b = h.sample("b", h.dist.Normal(0.0, 2.0))
        sigma = h.sample("sigma", h.dist.HalfNormal(1.0))
        with h.plate("data", len(x)):
            h.sample("y", h.dist.Normal(a + b * x[:, 0], sigma), obs=x[:, 1])

    return model


@entry(
    (X2, RESPONSE),
    latents="w",
    observed="y",
    covariates="design",
    joint=True,
    reads_generator=True,
)
def linear_by_position(h):
    """A design matrix and a response."""

    def model(design, response):
        w = h.sample("w", h.dist.Normal(h.xp.zeros(2), 1.0).to_event(1))
        with h.plate("data", len(response)):
            h.sample("y", h.dist.Normal(design @ w, 0.7), obs=response)

    return model


@entry(
    {"dose": DOSE, "y": Y},
    latents="z",
    observed="y",
    covariates="dose",
    reads_generator=True,
)
def slopes_by_row(h):
    """A slope of its own for every row: normal by row."""

    def model(dose, y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.5, 1.0))
            h.sample("y", h.dist.Normal(z * dose, 0.5), obs=y)

    return model


@entry(
    {"x": GRADE, "y": 0.4 * GRADE + rng.standard_t(3, 10)},
    latents="a b nu",
    observed="y",
    covariates="x",
    joint=True,
    reads_generator=True,
)
def robust(h):
    """Student's t around a line."""

    def model(x, y):
        a = h.sample("a", h.dist.Normal(0.0, 1.0))
        b = h.sample("b", h.dist.Normal(0.0, 1.0))
        nu = h.sample("nu", h.dist.Gamma(8.0, 1.0))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.StudentT(nu, a + b * x, 0.5), obs=y)

    return model


@entry(
    {"x": GRADE, "y": rng.normal(size=10)}, latents="c", observed="y", covariates="x", joint=True, reads_generator=True
)
def heteroscedastic(h):
    """A log-linear scale."""

    def model(x, y):
        c = h.sample("c", h.dist.Normal(h.xp.zeros(4), 0.5).to_event(1))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(c[0] + c[1] * x, h.xp.exp(c[2] + c[3] * x)), obs=y)

    return model


@entry({"seen": GRADE, "y": 2.0 * GRADE}, latents="b w", observed="seen y", joint=True)
def measurement_error(h):
    """The covariate itself is latent, and both it and the response are seen with noise."""

    def model(seen, y):
        b = h.sample("b", h.dist.Normal(0.0, 2.0))
        with h.plate("data", len(y)):
            w = h.sample("w", h.dist.Normal(0.0, 1.0))
            h.sample("seen", h.dist.Normal(w, 0.3), obs=seen)
            h.sample("y", h.dist.Normal(b * w, 0.5), obs=y)

    return model


@entry({"x": X2, "y": RESPONSE}, latents="tau lam w", observed="y", covariates="x", joint=True, reads_generator=True)
def horseshoe(h):
    """Half-Cauchy scales, global and local to the coefficients."""

    def model(x, y):
        tau = h.sample("tau", h.dist.HalfCauchy(1.0))
        with h.plate("columns", x.shape[1]):
            lam = h.sample("lam", h.dist.HalfCauchy(1.0))
            w = h.sample("w", h.dist.Normal(0.0, tau * lam))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(x @ w, 1.0), obs=y)

    return model


@entry(
    {"x": X2, "y": rng.normal(size=9)},
    latents="first.weight first.bias second.weight",
    observed="y",
    covariates="x",
    joint=True,
    reads_generator=True,
)
def bayesian_network(h):
    """A net with a prior on its weights: PyroSample in Pyro, plain statements in NumPyro."""
    return (_pyro_network if h.name == "pyro" else _plain_network)(h)


def _pyro_network(h):
    import torch
    from pyro.nn import PyroModule, PyroSample

    class Network(PyroModule):
        def __init__(self):
            super().__init__()
            self.first = PyroModule[torch.nn.Linear](2, 3)
            self.first.weight = PyroSample(h.dist.Normal(torch.tensor(0.0), 1.0).expand([3, 2]).to_event(2))
            self.first.bias = PyroSample(h.dist.Normal(torch.tensor(0.0), 1.0).expand([3]).to_event(1))
            self.second = PyroModule[torch.nn.Linear](3, 1, bias=False)
            self.second.weight = PyroSample(h.dist.Normal(torch.tensor(0.0), 1.0).expand([1, 3]).to_event(2))

        def forward(self, x, y):
            mean = self.second(torch.tanh(self.first(x)))[..., 0]
            with h.plate("data", len(y)):
                h.sample("y", h.dist.Normal(mean, 0.5), obs=y)

    return Network()


def _plain_network(h):
    def model(x, y):
        w = h.sample("first.weight", h.dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
        b = h.sample("first.bias", h.dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        v = h.sample("second.weight", h.dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal((h.xp.tanh(x @ w.T + b) @ v.T)[..., 0], 0.5), obs=y)

    return model


def _kernel(h, x, length):
    return h.xp.exp(-0.5 * ((x[:, None] - x[None]) / length) ** 2) + 1e-3 * h.xp.eye(len(x))


@entry({"x": DOSE, "y": Y}, latents="f", observed="y", covariates="x", joint=True, reads_prior=True)
def gaussian_process(h):
    """One normal distribution over all rows, whose covariance reads the covariate."""

    def model(x, y):
        f = h.sample("f", h.dist.MultivariateNormal(h.xp.zeros(len(x)), _kernel(h, x, 0.7)))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(f, 0.3), obs=y)

    return model


@entry(
    {"x": DOSE, "y": Y}, latents="length", observed="y", covariates="x", joint=True, plate=None, reads_generator=True
)
def gaussian_process_marginal(h):
    """The same with f integrated out: no plate, one observed vector."""

    def model(x, y):
        length = h.sample("length", h.dist.LogNormal(0.0, 0.5))
        covariance = _kernel(h, x, length) + 0.1 * h.xp.eye(len(x))
        h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(len(x)), covariance), obs=y)

    return model
