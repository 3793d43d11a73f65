"""Denoising score matching of tilted data: closed forms, quadrature of the convolved density, derivatives."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import override
from pplebm.learning.algorithm import Algorithm
from pplebm.objectives.score_matching import denoising
from pplebm.ppl.language import load_backend

PAGE = pplebm.load("score_matching")
TAU = 0.6
MEAN, COVARIANCE = np.array([0.8, -0.5]), np.array([[0.9, 0.5], [0.5, 0.6]])


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def quadratic(ppl, data, matrix=((0.2, 0.1), (0.1, 0.3)), slope=(0.1, 0.2)):
    """x ~ N(0, I) tilted by b·x - ½ x'Ax, whose score is b - (I + A) x."""

    def model(x):
        a, b = ppl.param("a", np.array(matrix)), ppl.param("b", np.array(slope))
        with ppl.plate("data", len(x)):
            x = ppl.sample("x", ppl.dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)
            ppl.tilt("f", x @ b - 0.5 * ((x @ a) * x).sum(-1))

    model.backend = ppl.name
    return pplebm.Program(model, data=data)


def test_the_loss_is_that_of_a_normal_law_in_closed_form(double):
    """½ τ² (tr K Σ̃ K + |b - K m|²) - τ² tr K + d/2 with K = I + A, Σ̃ = Σ + τ² I."""
    rng = np.random.default_rng(0)
    program = quadratic(double, rng.normal(size=(5, 2)))
    precision, slope = np.eye(2) + [[0.2, 0.1], [0.1, 0.3]], np.array([0.1, 0.2])
    wide = COVARIANCE + TAU**2 * np.eye(2)
    exact = 0.5 * TAU**2 * (np.trace(precision @ wide @ precision) + ((slope - precision @ MEAN) ** 2).sum())
    exact += 1.0 - TAU**2 * np.trace(precision)
    found = []
    for _ in range(40):
        x, noise = rng.multivariate_normal(MEAN, COVARIANCE, 2000), rng.normal(size=(2000, 2))
        z, noise = {"x": double.asarray(x)}, {"x": double.asarray(noise)}
        found.append(double.to_numpy(denoising(program, program.params, z, noise, TAU)))
    error = np.std(found, ddof=1) / 40**0.5
    assert error < 0.005 and abs(np.mean(found) - exact) < 4.5 * error


def test_the_minimum_is_the_normal_law_of_the_data_and_the_noise(double):
    """Score -(S + τ² I)⁻¹ (x - m), with the mean and the covariance of these data: only the noise is random."""
    x = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, 4000)
    program = quadratic(double, x)
    changes = {"noise": TAU, "updates": 250, "batch_size": 4000, "learning_rate_tilt": 0.05}
    algorithm = Algorithm(PAGE, program, override(PAGE.Hyper(), changes, "page"))
    data, state = program.data(x), algorithm.init(double.key(0), program.data(x))
    step = double.compiled(algorithm.step)
    for key in double.split(double.key(1), 250):
        state, info = step(key, state, data)
    at = {name: double.to_numpy(p) for name, p in state.params.items()}
    precision = np.linalg.inv(np.cov(x.T, bias=True) + TAU**2 * np.eye(2))
    np.testing.assert_allclose(np.eye(2) + 0.5 * (at["a"] + at["a"].T), precision, atol=0.02)
    np.testing.assert_allclose(at["b"], precision @ x.mean(0), atol=0.02)
    assert float(info["score_loss"]) == pytest.approx(1.0 - 0.5 * TAU**2 * np.trace(precision), abs=0.05)


def test_an_asymmetric_density_is_learned_as_it_is_after_the_noise(tmp_path):
    """A mixture of unequal weights and widths, against quadrature of its convolution with N(0, τ²)."""
    rng, tau = np.random.default_rng(2), 0.4
    weight, mean, scale = np.array([0.7, 0.3]), np.array([-0.6, 1.0]), np.array([0.35, 0.7])
    which = rng.random(6000) > weight[0]
    x = rng.normal(mean[which.astype(int)], scale[which.astype(int)])[:, None]
    line = np.linspace(-5.0, 5.0, 1001)
    mixture = lambda extra: (weight * norm.pdf(line[:, None], mean, (scale**2 + extra) ** 0.5)).sum(1)
    run = pplebm.fit("data_ebm", x, "score_matching", tmp_path / "run", backend="numpyro", updates=600, seed=0,
                     scaling="none", progress=False, hyper={"noise": tau, "batch_size": 256})  # fmt: skip
    program = run.program
    log_p = program.ppl.to_numpy(program.log_given(run.params, program.data(line[:, None]))).astype(float)
    log_p -= logsumexp(log_p) + np.log(line[1] - line[0])
    below = [((p := mixture(extra)) * (np.log(p) - log_p)).sum() * (line[1] - line[0]) for extra in (tau**2, 0.0)]
    assert below[0] < 0.005 < 0.05 < below[1]  # nats: of the data with the noise, and of the data
    gains = [row["score_gain"] for row in run.metrics]
    assert abs(gains[0]) < 0.04 < 0.06 < gains[-1] and run.sample_data(3).shape == (3, 1)


def test_derivatives_by_parameters_are_differences_and_the_same_on_both_backends(float64):
    import jax

    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(2, 7, 3))
    found, values = [], []
    with jax.enable_x64(True):
        for name in ("pyro", "numpyro"):
            ppl = load_backend(name)
            program = pplebm.Program(pplebm.bind("data_ebm", name, shape=(3,), depth=1, tilt_width=5, tilt_bound=2.0))
            loss = lambda p, ppl=ppl, program=program: denoising(
                program, p, {"x": ppl.asarray(x)}, {"x": ppl.asarray(noise)}, 0.3
            )
            value, gradient = ppl.value_and_grad(loss, program.params)
            found.append({k: ppl.to_numpy(a) for k, a in gradient.items()} | {"loss": ppl.to_numpy(value)})
            at = lambda p, ppl=ppl, loss=loss: float(ppl.to_numpy(loss(p)))
            moved = lambda k, by, p=program.params, ppl=ppl: p | {k: p[k] + by * ppl.asarray(np.ones(p[k].shape))}
            values.append({k: (at(moved(k, 1e-5)) - at(moved(k, -1e-5))) / 2e-5 for k in program.params})
    for k, a in found[0].items():
        np.testing.assert_allclose(a, found[1][k], rtol=1e-8, atol=1e-10, err_msg=k)
    for k, a in values[0].items():
        assert found[0][k].sum() == pytest.approx(a, abs=1e-8), k
    assert max(abs(a) for a in values[0].values()) > 0.01


def test_the_constant_of_the_tilt_is_held_and_nothing_else(double):
    """Of f = a·x + b the score tells a alone: the gradient by b is that of c (E f)², and 0 without it."""
    x, slopes = np.random.default_rng(5).normal(size=(50, 2)), []
    program = pplebm.Program(pplebm.bind("data_ebm", double.name, shape=(2,), depth=0, tilt_bound=1e6))
    params = program.params | {"tilt.bias_1": double.asarray(np.array([0.7]))}
    data = program.data(x)
    z = program.given_latents(params, data)
    for c in (0.3, 0.0):
        algorithm = Algorithm(PAGE, program, PAGE.Hyper()._replace(constant_penalty=c))
        loss = lambda p, algorithm=algorithm: PAGE.loss(algorithm, double.key(0), p, data, z, None)[0]
        slopes.append(double.to_numpy(double.value_and_grad(loss, params)[1]["tilt.bias_1"])[0])
    f = double.to_numpy(program.log_tilt(params, z)).mean()
    assert slopes == [pytest.approx(0.6 * f, rel=1e-6), pytest.approx(0.0, abs=1e-12)] and abs(f) > 0.1


def test_the_minimum_given_covariates_is_that_of_every_row(double):
    """x ~ N(0.7 c, 1 - τ²) is N(0.7 c, 1) with the noise, which is what a c x makes of N(0, 1) at a = 0.7."""
    rng, ppl = np.random.default_rng(4), double

    def model(c, x):
        a = ppl.param("a", np.array(0.7))
        with ppl.plate("data", len(c)):
            x = ppl.sample("x", ppl.dist.Normal(0.0, 1.0), obs=x)
            ppl.tilt("f", a * c * x)

    model.backend, slopes = ppl.name, []
    program = pplebm.Program(model, data={"c": np.arange(3.0), "x": np.ones(3)})
    for _ in range(30):
        c, noise = rng.normal(size=(2, 2000))
        x = 0.7 * c + (1.0 - TAU**2) ** 0.5 * rng.normal(size=2000)
        data, e = program.data({"c": c, "x": x}), {"x": ppl.asarray(noise)}
        z = program.given_latents(program.params, data)
        at = lambda a, z=z, e=e, data=data: float(
            ppl.value_and_grad(lambda p: denoising(program, p, z, e, TAU, data), {"a": ppl.asarray(a)})[1]["a"]
        )
        slopes.append([at(0.7), at(0.9)])
    error = np.std(slopes, axis=0, ddof=1) / 30**0.5
    assert abs(np.mean(slopes, 0)[0]) < 4.5 * error[0] < 0.02 and np.mean(slopes, 0)[1] > 10.0 * error[1]


def test_latents_and_bounded_supports_are_refused(ppl, tmp_path):
    with pytest.raises(PplebmError, match=r"page score_matching .* takes no program with latents \(z1\).* data_ebm"):
        pplebm.fit("latent_ebm", np.random.default_rng(0).normal(size=(400, 4)), "score_matching", tmp_path / "run",
                   backend=ppl.name, progress=False)  # fmt: skip
    assert not (tmp_path / "run").exists()

    def positive(x):
        with ppl.plate("data", len(x)):
            x = ppl.sample("x", ppl.dist.Exponential(1.0), obs=x)
            ppl.tilt("f", ppl.param("rate", np.array(-0.3)) * x)

    positive.backend = ppl.name
    program = pplebm.Program(positive, data=np.ones(3))
    with pytest.raises(PplebmError, match=r"leaves the support of site 'x' \(Exponential on "):
        Algorithm(PAGE, program).init(ppl.key(0), program.data(np.ones(3)))
