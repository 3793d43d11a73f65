"""An energy-based model of the data themselves: densities, constants and learning in closed form and by quadrature."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import pplebm
from pplebm.errors import PplebmError

LINE = np.linspace(-7.0, 7.0, 281)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2
LINEAR = {"depth": 0, "tilt_bound": 1e7, "base_scale": 0.8}  # f is a·x + b
BENT = {"depth": 1, "tilt_width": 6, "base_scale": 0.9}
X = np.array([[0.5, -1.0], [-2.0, 0.0], [1.0, 1.0]])


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, hyper):
    """A program at parameters far from where they begin, and these."""
    program = pplebm.Program(pplebm.bind("data_ebm", ppl.name, shape=(2,), **hyper))
    rng = np.random.default_rng(1)
    moved = {n: ppl.to_numpy(p) + 0.8 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved


def test_the_density_of_x_is_that_of_its_closed_form(double):
    """p(x) is N(s² a, s² I), log Z = s²|a|²/2 + b; estimates within 5 of their errors."""
    program, at = program_of(double, LINEAR)
    a, b, s = at["tilt.weight_1"][0], at["tilt.bias_1"][0], LINEAR["base_scale"]
    law, log_z = multivariate_normal(s**2 * a, s**2 * np.eye(2)), 0.5 * s**2 * a @ a + b
    np.testing.assert_allclose(double.to_numpy(program.log_given(program.params, program.data(X))) - log_z,
                               law.logpdf(X), atol=1e-9)  # fmt: skip
    constant = pplebm.log_z(program, progress=False)
    assert abs(constant.value[0] - log_z) < 5.0 * constant.error[0] < 0.5
    found = pplebm.log_evidence(program, X, progress=False)
    assert (np.abs(found.value - law.logpdf(X)) < 5.0 * found.error).all() and (found.error < 0.1).all()
    base = pplebm.log_evidence(program, X, base=True, progress=False)
    np.testing.assert_allclose(base.value, multivariate_normal(np.zeros(2), s**2 * np.eye(2)).logpdf(X), atol=1e-9)
    assert (base.error == 0.0).all()


def test_the_density_under_a_bent_tilt_is_that_of_quadrature(double):
    program, _ = program_of(double, BENT)
    on_plane = double.to_numpy(program.log_given(program.params, program.data(PLANE)))
    log_z = logsumexp(on_plane) + np.log(CELL)
    found = pplebm.log_evidence(program, X, progress=False)
    exact = double.to_numpy(program.log_given(program.params, program.data(X))) - log_z
    assert (np.abs(found.value - exact) < 5.0 * found.error).all()
    draws = pplebm.sample_prior(program, n_chains=200, n_draws=20, n_warmup=150, progress=False)["x"]
    by_chain, error = draws.mean(1), draws.mean(1).std(0, ddof=1) / 200**0.5
    mean = (np.exp(on_plane - log_z)[:, None] * PLANE).sum(0) * CELL
    assert (np.abs(by_chain.mean(0) - mean) < 4.5 * error).all()


@pytest.mark.parametrize(("algorithm", "kernel"), [("mle", None), ("persistent_mle", "anisotropic_adjusted")])
def test_learning_finds_the_mean_of_the_data(tmp_path, algorithm, kernel):
    """The maximum of the likelihood of a linear tilt is where s² a is the mean of the data.

    All data are one batch, so the noise is that of as many draws at unit variance: averaged over the last 1 / rate
    updates, and twice that, since chains remember.
    """
    n, rate = 400, 0.03
    x = np.random.default_rng(0).normal([0.9, -0.4], 1.0, (n, 2))
    hyper = {**LINEAR, "base_scale": 1.0, "batch_size": n, "learning_rate_tilt": rate, "learning_rate": rate}
    hyper |= {} if kernel is None else {"prior.kernel": kernel, "prior.threshold": 0.5}
    run = pplebm.fit("data_ebm", x, algorithm, tmp_path / "run", updates=200, hyper=hyper, scaling="none",
                     compiled=False, progress=False, held_out_fraction=0.0)  # fmt: skip
    off = run.params["tilt.weight_1"].detach().numpy()[0] - x.mean(0)
    assert np.abs(off).max() < 4.5 * 2.0 * (rate / n) ** 0.5 < 0.1
    assert run.log_evidence(x, progress=False).mean > run.log_evidence(x, base=True, progress=False).mean
    assert run.sample_data(5, seed=0).shape == (5, 2)


def test_a_model_of_ones_own_whose_data_are_tilted_is_scaled_and_drawn_in_the_users_units(tmp_path):
    import pyro
    import pyro.distributions as dist

    slope = pyro.nn.PyroModule[torch.nn.Linear](2, 1)

    def model(x):
        pyro.module("slope", slope)
        with pyro.plate("data", len(x)):
            x = pyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)
            pplebm.tilt("f", slope(x)[..., 0], bound=5.0)

    x = 100.0 + 10.0 * np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    settings = {"backend": "pyro", "updates": 3, "scaling": "standard", "progress": False, "hyper": {"batch_size": 16}}
    run = pplebm.fit(model, x, "persistent_mle", tmp_path / "run", **settings)
    drawn = run.sample_data(200, seed=0)
    assert drawn.shape == (200, 2) and abs(drawn.mean() - 100.0) < 5.0 and 5.0 < drawn.std() < 20.0


@pytest.mark.parametrize("inference", ["mle", "variational_joint"])
def test_a_model_that_observes_nothing_is_refused(inference, tmp_path):
    import pyro
    import pyro.distributions as dist

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pplebm.tilt("f", pyro.param("slope", torch.tensor(0.1)) * z)

    with pytest.raises(PplebmError, match=r"observes nothing, .* obs=x"):
        pplebm.fit(model, np.zeros((20, 2)), inference, tmp_path / "run", backend="pyro", progress=False)
    assert not (tmp_path / "run").exists()
