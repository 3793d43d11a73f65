"""Replicas: swaps that keep every law, integrals that are known, and ladders whose rungs lie too far apart."""

import numpy as np
import pytest
from conjugate import BACKENDS, instance

import pplebm
from pplebm.evidence import replicas
from pplebm.evidence.replicas import integrals, thermodynamic_integration
from pplebm.ppl.language import load_backend


def test_swaps_keep_the_law_of_every_rung():
    """Exact draws of N(b, 1) at strengths b of the tilt z stay such draws, pair by pair."""
    strengths = np.array([[0.0], [0.7], [1.5]])
    rng = np.random.default_rng(0)
    z = strengths[:, None] + rng.normal(size=(3, 40_000, 1))
    for first in (0, 1):
        index, probability = replicas._swaps(z, strengths, first, rng)
        moved = np.take_along_axis(z.reshape(-1, 1), index, 0).reshape(z.shape)
        assert sorted(index[:, 0].tolist()) == list(range(3 * 40_000))
        assert (abs(moved.mean(1) - strengths) < 4 / 40_000**0.5).all()
        assert 0.3 < probability[first, 0] < 0.9 and probability[1 - first, 0] == 0.0
        assert (index.reshape(3, -1)[2 - 2 * first] == np.arange(40_000) + 40_000 * (2 - 2 * first)).all()
        z = moved


def test_the_correction_of_the_trapezoid_is_that_of_the_variances():
    """U = z²/2 of N(0, 1 / (1 - b)): E U and var U are known, and the corrected rule is nearly exact with few rungs."""
    strengths = np.linspace(0.0, 1.0, 4)[:, None]
    scale = 1.0 / (1.0 + 3.0 * strengths)  # U = -3/2 z²
    rng = np.random.default_rng(1)
    u = -1.5 * scale[:, None] * rng.normal(size=(40_000, 4, 8, 1)) ** 2
    found = integrals(u, strengths)[:, 0]
    exact = -0.5 * np.log(4.0)
    error = found.std(ddof=1) / 8**0.5
    assert abs(found.mean() - exact) < 0.01 + 4 * error < 0.02
    mean = u.mean(0)
    plain = (0.5 * np.diff(strengths, axis=0)[:, None] * (mean[1:] + mean[:-1])).sum(0).mean()
    assert abs(plain - exact) > 0.03


@pytest.mark.parametrize("backend", BACKENDS)
def test_posteriors_and_priors_of_the_hierarchy(backend):
    program, params, form = instance(backend)
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    exact = np.array([form(row).log_constant for row in x])
    found = thermodynamic_integration(program, params, program.data(x), True, seed=3, n_particles=800)
    off = (found.value - exact) / found.error
    assert found.is_trusted.all() and abs(off.mean()) < 4 / 20**0.5 and 0.5 < off.std() < 1.9
    prior = thermodynamic_integration(program, params, None, False, seed=4)
    assert abs(prior.value[0] - form().log_constant) < 4 * prior.error[0] < 0.2


def test_two_modes_that_chains_do_not_cross():
    """A tilt with modes of unequal mass 5 standard deviations apart: swaps share them rightly."""
    host = load_backend("numpyro")

    def model(x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(0.0, 1.0))
            bump = lambda c, w: host.exp(-0.5 * ((z - c) / w) ** 2)
            host.tilt("f", 6.0 * bump(2.0, 0.4) + 7.0 * bump(-1.8, 0.25))
            host.sample("x", host.dist.Normal(z, 1.0), obs=x)

    program = pplebm.Program(model, data=np.zeros(2, np.float32), backend="numpyro")
    grid = np.linspace(-8, 8, 40_001)
    f = 6.0 * np.exp(-0.5 * ((grid - 2.0) / 0.4) ** 2) + 7.0 * np.exp(-0.5 * ((grid + 1.8) / 0.25) ** 2)
    exact = np.log(np.trapezoid(np.exp(f - 0.5 * grid**2) / (2 * np.pi) ** 0.5, grid))
    found = thermodynamic_integration(program, program.params, None, False, seed=1)
    assert abs(found.value[0] - exact) < 4 * found.error[0] < 0.6


def test_replicas_that_do_not_swap_are_refused(monkeypatch):
    program, params, _ = instance("numpyro")
    monkeypatch.setattr(replicas, "LEAST_SWAPS", 0.999)
    found = thermodynamic_integration(program, params, None, False, n_particles=160)
    assert not found.is_trusted[0] and "swap with probability" in found.reasons[0]
