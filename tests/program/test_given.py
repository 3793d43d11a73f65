"""Programs whose tilt stands on an observed site and that have no latent: the data are what is tilted."""

from __future__ import annotations

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError
from pplebm.learning.algorithm import Algorithm

N = 4000


def program_of(ppl, declare, data, **settings):
    """A program of `declare(ppl, **data)` inside the data plate."""

    def model(x):
        with ppl.plate("data", len(x)):
            declare(ppl, x)

    model.backend = ppl.name
    return pplebm.Program(model, data=ppl.asarray(data), **settings)


def positive(ppl, x):
    """Exponential of rate 1, tilted to rate 1 + r: log Z = -log(1 + r)."""
    rate = ppl.exp(ppl.param("log_rate", np.log(0.5)))
    x = ppl.sample("x", ppl.dist.Exponential(1.0), obs=x)
    ppl.tilt("f", -rate * x)


def chained(ppl, x):
    """a ~ N(0, 1), b | a ~ N(a, 1), tilted by 0.7 a: a ~ N(0.7, 1), b | a is left as it is."""
    a = ppl.sample("a", ppl.dist.Normal(0.0, 1.0), obs=x[..., 0])
    ppl.sample("b", ppl.dist.Normal(a, 1.0), obs=x[..., 1])
    ppl.tilt("f", 0.7 * a)


def normal(ppl, x):
    x = ppl.sample("x", ppl.dist.Normal(0.0, 1.0), obs=x)
    ppl.tilt("f", 0.3 * x)


def test_a_density_on_half_of_the_line_is_one_of_the_values(ppl):
    """log p(x) = log(1 + r) - (1 + r) x, without the Jacobian that densities of coordinates have."""
    x = np.array([0.1, 0.8, 3.0])
    program = program_of(ppl, positive, x)
    assert program.given == ("x",) and not program.observed and not program.covariates
    at = ppl.to_numpy(program.log_given(program.params, program.data(x)))
    np.testing.assert_allclose(at, -1.5 * x, rtol=1e-5)
    z = program.given_latents(program.params, program.data(x))
    np.testing.assert_allclose(ppl.to_numpy(z["x"]), np.log(x), rtol=1e-5)
    np.testing.assert_allclose(ppl.to_numpy(program.log_prior(program.params, z)) - np.log(x), at, rtol=1e-5)
    found = pplebm.log_evidence(program, x, progress=False)
    assert (np.abs(found.value - (np.log(1.5) - 1.5 * x)) < 5.0 * found.error).all() and (found.error < 0.1).all()
    draws = pplebm.sample_prior(program, n_chains=100, n_draws=20, n_warmup=150, progress=False)["x"].mean(1)
    assert abs(draws.mean() - 1 / 1.5) < 4.5 * draws.std(ddof=1) / 10.0


def test_sites_that_follow_each_other_have_one_constant(ppl):
    x = np.array([[0.5, 1.0], [-1.0, 0.3]])
    program = program_of(ppl, chained, x)
    assert program.given == ("a", "b")
    exact = -0.5 * ((x[:, 0] - 0.7) ** 2 + (x[:, 1] - x[:, 0]) ** 2) - np.log(2 * np.pi)
    at = ppl.to_numpy(program.log_given(program.params, program.data(x)))
    np.testing.assert_allclose(at - 0.5 * 0.7**2, exact, rtol=1e-5)
    seen = program.predict(program.params, program.given_latents(program.params, program.data(x)))
    np.testing.assert_allclose(ppl.to_numpy(seen["b"]), x[:, 1], rtol=1e-6)


@pytest.mark.parametrize("page", ["mle", "short_run_mle", "persistent_mle"])
def test_positive_samples_are_the_data(ppl, page):
    x = np.random.default_rng(0).exponential(0.5, 16)
    program = program_of(ppl, positive, x)
    algorithm = Algorithm(pplebm.load(page), program)
    found = algorithm.positive(ppl.key(0), program.params, program.data(x))
    np.testing.assert_allclose(ppl.to_numpy(found.z["x"]), np.log(x), rtol=1e-4)


def test_the_gradient_is_that_of_the_likelihood(ppl):
    """Of log p(x) = log(1 + r) - (1 + r) x in log r: r / (1 + r) - r x; draws of the prior are exact here."""
    rng, r = np.random.default_rng(0), 0.5
    x = rng.gamma(2.0, 0.4, 50)
    program = program_of(ppl, positive, x)
    algorithm = Algorithm(pplebm.load("persistent_mle"), program)
    data = program.data(x)
    given = algorithm.positive(ppl.key(0), program.params, data).z
    draws = rng.exponential(1 / (1 + r), N)
    negative = {"x": ppl.asarray(np.log(draws))}

    def loss(params):
        return algorithm.page.loss(algorithm, ppl.key(1), params, data, given, negative)[0]

    _, gradient = ppl.value_and_grad(loss, program.params)
    (got,) = (float(g) for g in gradient.values())
    assert -got == pytest.approx(r / (1 + r) - r * x.mean(), abs=5.0 * r * draws.std() / np.sqrt(N))


def test_what_has_no_meaning_without_a_latent_is_refused(ppl):
    x = np.array([0.5, -1.0])
    program = program_of(ppl, normal, x)
    with pytest.raises(PplebmError, match="every site of the program is observed"):
        pplebm.sample(program, data=x, n_draws=2, n_warmup=2, progress=False)
    with pytest.raises(PplebmError, match="guide"):
        Algorithm(pplebm.load("variational_joint"), program).init(ppl.key(0), program.data(x))
    with pytest.raises(PplebmError, match="'x' is NaN"):
        pplebm.log_evidence(program, np.array([np.nan, 1.0]), progress=False)


def discrete(ppl, x):
    x = ppl.sample("x", ppl.dist.Poisson(1.0), obs=x)
    ppl.tilt("f", 0.1 * x)


def masked(ppl, x):
    x = ppl.sample("x", ppl.dist.Normal(0.0, 1.0).mask(x > 0.0), obs=x)
    ppl.tilt("f", 0.1 * x)


def untilted(ppl, x):
    ppl.sample("x", ppl.dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("declare", "word"), [(discrete, "discrete"), (masked, "masked"), (untilted, "no latent site")]
)
def test_what_chains_cannot_move_is_refused(ppl, declare, word):
    with pytest.raises(PplebmError, match=word):
        program_of(ppl, declare, np.array([1.0, 2.0]))
