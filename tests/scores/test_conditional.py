"""Chains of lower layers given upper ones: the tilted conditional, held values, covariates, a skewed target."""

import numpy as np
import pytest
from conjugate import BACKENDS, instance
from scipy.stats import kstest

import pplebm
from pplebm.errors import PplebmError
from pplebm.kernels.clamped import clamped
from pplebm.ppl.language import load_backend
from pplebm.scores import anomaly_scores
from pplebm.scores.conditional import conditional_draws, layers_of

N = 2000
HOW = {"n_draws": 1, "n_warmup": 100, "seed": 3}


@pytest.mark.parametrize("backend", BACKENDS)
def test_moments_of_the_tilted_conditional(backend):
    """z1 given z2 of the linear-Gaussian hierarchy, at two values of z2; ancestral draws are far from it."""
    program, params, closed = instance(backend)
    prior, ppl = closed(), program.ppl
    top = np.repeat([[0.5, -1.0], [-2.0, 0.3]], N // 2, axis=0).astype(np.float32)
    z = {"z1": ppl.asarray(np.zeros((N, 3), np.float32)), "z2": ppl.asarray(top)}
    z1 = ppl.to_numpy(conditional_draws(program, params, z, {"z2"}, **HOW)[0]["z1"])
    slope = prior.covariance[:3, 3:] @ np.linalg.inv(prior.covariance[3:, 3:])
    own = prior.covariance[:3, :3] - slope @ prior.covariance[3:, :3]
    values = {name: ppl.to_numpy(a) for name, a in params.items()}
    for rows in (slice(0, N // 2), slice(N // 2, N)):
        wanted, error = prior.mean[:3] + slope @ (top[rows][0] - prior.mean[3:]), np.sqrt(np.diag(own) / (N // 2))
        assert (abs(z1[rows].mean(0) - wanted) < 4 * error).all()
        assert (abs(np.cov(z1[rows].T) - own) < 4.5 * np.sqrt(2 / N * 2) * own.max()).all()
        assert (abs(values["A"] @ top[rows][0] + values["b"] - wanted) > 10 * error).any()


def skewed(backend):
    """z2 ~ N(0, 1), z1 ~ N(z2, 1) with a tilt that makes z1 - z2 given z2 the logarithm of a Gamma(2 + c²) variate."""
    host = load_backend(backend)

    def model(x, c):
        with host.plate("data", len(x)):
            z2 = host.sample("z2", host.dist.Normal(0.0, 1.0))
            z1 = host.sample("z1", host.dist.Normal(z2, 1.0))
            u = z1 - z2
            host.tilt("f", 0.5 * u**2 + (2.0 + c**2) * u - host.exp(u))
            host.sample("x", host.dist.Normal(z1, 1.0), obs=x)

    rows = {"x": np.zeros(N, np.float32), "c": np.repeat(np.float32([0.0, 1.5]), N // 2)}
    return pplebm.Program(model, data=rows, backend=backend), rows


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_skewed_conditional_that_reads_a_covariate(backend):
    program, rows = skewed(backend)
    top = np.linspace(-2, 2, N).astype(np.float32)
    z = {name: program.ppl.asarray(a) for name, a in {"z1": top, "z2": top}.items()}
    found = conditional_draws(program, program.params, z, {"z2"}, program.data(rows), **HOW)[0]
    np.testing.assert_allclose(program.ppl.to_numpy(found["z2"]), top, rtol=1e-5)
    u = program.ppl.to_numpy(found["z1"]) - top
    for half, shape in ((slice(0, N // 2), 2.0), (slice(N // 2, N), 4.25)):
        assert kstest(np.exp(u[half]), "gamma", (shape,)).pvalue > 1e-3


def test_layers_of_scores():
    program = instance("pyro")[0]
    assert layers_of(program) == (("z1",), ("z2",)) and layers_of(program, [("z1", "z2")]) == (("z1", "z2"),)
    with pytest.raises(PplebmError, match="must name every latent once; the latents are z2, z1"):
        layers_of(program, ["z1"])
    with pytest.raises(PplebmError, match="site 'z1' cannot be held while others move"):
        anomaly_scores(program, np.zeros((2, 4), np.float32), ["llr>1"], layers=["z2", "z1"], n_chains=4, n_draws=2,
                       n_warmup=50)  # fmt: skip


def test_what_cannot_be_held():
    with pytest.raises(PplebmError, match="latent 'z3' cannot be held; the latents are z1, z2"):
        clamped(["z1", "z2"], {"z3"})
    with pytest.raises(PplebmError, match="all latents are held"):
        clamped(["z1", "z2"], {"z1", "z2"})
