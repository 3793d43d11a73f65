"""Latents with several axes, and with supports whose coordinates have another number of them."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(4)
PAIRS = rng.normal(size=(6, 2))
TRIPLES = rng.normal(size=(7, 3))
COVARIANCES = np.array([[1.0, 0.3], [0.3, 0.5]])


@entry(TRIPLES, latents="s corr", observed="y", joint=True)
def lkj_outside(h):
    """Global scales and a Cholesky factor of a correlation matrix."""

    def model(x):
        s = h.sample("s", h.dist.HalfNormal(1.0).expand([3]).to_event(1))
        corr = h.sample("corr", h.dist.LKJCholesky(3, 2.0))
        with h.plate("data", len(x)):
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(3), scale_tril=s[:, None] * corr), obs=x)

    return model


@entry(TRIPLES, latents="corr", observed="y")
def lkj_inside(h):
    """The same factor for every row."""

    def model(x):
        with h.plate("data", len(x)):
            corr = h.sample("corr", h.dist.LKJCholesky(3, h.array(2.0)))
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(3), scale_tril=corr), obs=x)

    return model


@entry(PAIRS, latents="corr", observed="y", hosts="numpyro")
def lkj_matrices(h):
    """A correlation matrix itself, for every row; Pyro has none in a plate."""

    def model(x):
        with h.plate("data", len(x)):
            corr = h.sample("corr", h.dist.LKJ(2, 1.5))
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(2), corr), obs=x)

    return model


@entry(PAIRS, latents="corr", observed="y", joint=True)
def lkj_matrix(h):
    """One for all rows."""

    def model(x):
        corr = h.sample("corr", h.dist.LKJ(2, h.array(1.5)))
        with h.plate("data", len(x)):
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(2), corr), obs=x)

    return model


@entry(PAIRS, latents="root", observed="y", tilts="size", improper=True, hosts="numpyro")
def flat_cholesky(h):
    """A lower triangular factor for every row, flat but for a tilt."""

    def model(x):
        support = h.dist.constraints.lower_cholesky
        with h.plate("data", len(x)):
            root = h.sample("root", h.dist.ImproperUniform(support, (), (2, 2)))
            h.tilt("size", -((root**2).sum((-1, -2))))
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(2), scale_tril=root), obs=x)

    return model


@entry(PAIRS, latents="precision", observed="y", joint=True, hosts="numpyro")
def wishart_outside(h):
    """A positive definite matrix for all rows."""

    def model(x):
        precision = h.sample("precision", h.dist.Wishart(5.0, scale_matrix=0.3 * h.array(COVARIANCES)))
        with h.plate("data", len(x)):
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(2), precision_matrix=precision), obs=x)

    return model


@entry(PAIRS, latents="cov", observed="y", tilts="volume", hosts="numpyro")
def wishart_inside(h):
    """One for every row, tilted by its trace."""

    def model(x):
        with h.plate("data", len(x)):
            cov = h.sample("cov", h.dist.Wishart(5.0, scale_matrix=0.3 * h.array(COVARIANCES)))
            h.tilt("volume", -0.2 * (cov[..., 0, 0] + cov[..., 1, 1]))
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(2), cov + 0.1 * h.xp.eye(2)), obs=x)

    return model


@entry(PAIRS, latents="cov", observed="y", hosts="numpyro")
def inverse_wishart(h):
    """The conjugate prior of a covariance, for every row."""

    def model(x):
        with h.plate("data", len(x)):
            cov = h.sample("cov", h.dist.InverseWishart(6.0, scale_matrix=h.array(COVARIANCES)))
            h.sample("y", h.dist.MultivariateNormal(h.xp.zeros(2), cov), obs=x)

    return model


@entry(rng.normal(size=(5, 2, 3)), latents="z", observed="x", hosts="numpyro")
def matrix_normal(h):
    """A matrix of every row, with dependent rows and columns of its own."""

    def model(x):
        root = h.xp.linalg.cholesky(h.array(COVARIANCES))
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.MatrixNormal(h.xp.zeros((2, 3)), root, h.xp.eye(3)))
            h.sample("x", h.dist.Normal(z, 0.5).to_event(2), obs=x)

    return model


@entry(TRIPLES, latents="z", observed="x", hosts="numpyro")
def zero_sums(h):
    """Vectors that sum to zero have one coordinate fewer."""

    def model(x):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.ZeroSumNormal(1.0, (3,)))
            h.sample("x", h.dist.Normal(z, 0.5).to_event(1), obs=x)

    return model


@entry(rng.dirichlet([1.0, 2.0, 3.0], size=(6, 2)), latents="p", observed="x", dim=-2)
def dirichlet_in_plates(h):
    """Simplexes in two plates; the observations are simplexes too."""

    def model(x):
        with h.plate("data", len(x), dim=-2), h.plate("parts", 2, dim=-1):
            p = h.sample("p", h.dist.Dirichlet(h.array([1.5, 2.0, 2.5])))
            h.sample("x", h.dist.Dirichlet(10.0 * p), obs=x)

    return model


@entry(TRIPLES, latents="z", observed="x", tilts="f")
def low_rank_normal(h):
    """A normal prior of low rank plus diagonal, tilted."""

    def model(x):
        w = h.array([[1.0], [0.5], [-0.5]])
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.LowRankMultivariateNormal(h.xp.zeros(3), w, h.array([0.3, 0.2, 0.4])))
            h.tilt("f", -h.xp.abs(z).sum(-1))
            h.sample("x", h.dist.Normal(z, 0.5).to_event(1), obs=x)

    return model


@entry(
    {"x": PAIRS[:, 0], "k": np.array([0, 3, 1, 2, 2, 1])},
    latents="b cuts",
    observed="k",
    covariates="x",
    joint=True,
    reads_generator=True,
    improper=True,
    loops="pyro",
)
def ordinal_with_cutpoints(h):
    """Flat cutpoints in order."""

    def model(x, k):
        b = h.sample("b", h.dist.Normal(0.0, 1.0))
        ordered = h.dist.constraints.ordered_vector
        cuts = h.sample("cuts", h.dist.ImproperUniform(ordered, (), (3,)))
        with h.plate("data", len(k)):
            h.sample("k", h.dist.OrderedLogistic(b * x, cuts), obs=k)

    return model
