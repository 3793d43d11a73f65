"""Operators of inverse problems: against what they are said to be, and the heat equation against its solution."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.ndimage import gaussian_filter

from pplebm.errors import PplebmError
from pplebm.networks.operators import heat, measured, operator

X = np.random.default_rng(0).normal(size=(5, 6, 4))


def test_linear_operators_are_what_they_are_called():
    np.testing.assert_allclose(measured(operator("identity", (6, 4)), X), X.reshape(5, -1))
    blurred = np.stack([gaussian_filter(x, 0.8, mode="reflect") for x in X])
    np.testing.assert_allclose(measured(operator("blur", (6, 4), width=0.8), X), blurred.reshape(5, -1), atol=1e-12)
    means = X.reshape(5, 3, 2, 2, 2).mean((2, 4))
    np.testing.assert_allclose(measured(operator("downsample", (6, 4)), X), means.reshape(5, -1), atol=1e-12)
    mask = operator("mask", (6, 4), share=0.25, seed=3)
    seen = measured(mask, np.arange(24.0).reshape(1, 6, 4))[0]
    assert mask.n_measured == 6 and (np.diff(seen) > 0).all() and np.isin(seen, np.arange(24)).all()
    assert (seen != measured(operator("mask", (6, 4), share=0.25, seed=4), np.arange(24.0).reshape(1, 6, 4))[0]).any()


def test_directions_of_a_projection_are_orthonormal():
    real = operator("projection", (6, 4), share=0.5).real
    np.testing.assert_allclose(real @ real.T, np.eye(12), atol=1e-12)


def test_phase_retrieval_sees_moduli_alone():
    """Energies are those of the padded transform; the sign, and an image turned by 180 degrees, cannot be told."""
    phase = operator("phase", (6, 4))
    padded = np.abs(np.fft.fft2(X, s=(12, 8), norm="ortho")) ** 2
    y = measured(phase, X)
    np.testing.assert_allclose(y, padded[:, :, :5].reshape(5, -1), atol=1e-12)
    np.testing.assert_allclose(measured(phase, -X), y, atol=1e-12)
    np.testing.assert_allclose(measured(phase, X[:, ::-1, ::-1]), y, atol=1e-10)
    assert np.abs(measured(phase, X[:, ::-1]) - y).max() > 0.1


def test_heat_is_the_solution_of_its_equation():
    """Of sine modes in closed form; of a parabola by its series; and by a solver of the equations between points."""
    n, time = 31, 0.02
    x, k = np.arange(1, n + 1) / (n + 1), np.arange(1, 200, 2)[:, None]
    for mode in (1, 2, 5):
        wave = np.sin(mode * np.pi * x)
        np.testing.assert_allclose(heat(n, time) @ wave, np.exp(-((mode * np.pi) ** 2) * time) * wave, atol=1e-12)
    series = (8.0 / (k * np.pi) ** 3 * np.exp(-((k * np.pi) ** 2) * time) * np.sin(k * np.pi * x)).sum(0)
    np.testing.assert_allclose(
        heat(n, time) @ (x * (1.0 - x)), series, atol=1e-5
    )  # modes above n are folded onto lower
    second = ((n + 1) ** 2) * (np.eye(n, k=1) - 2 * np.eye(n) + np.eye(n, k=-1))
    solved = solve_ivp(lambda t, u: second @ u, (0.0, time), x * (1.0 - x), method="BDF", rtol=1e-8, atol=1e-10).y[
        :, -1
    ]
    np.testing.assert_allclose(heat(n, time) @ (x * (1.0 - x)), solved, atol=2e-4)  # second order in 1/n
    np.testing.assert_allclose(heat(n, 0.01) @ heat(n, 0.01), heat(n, time), atol=1e-12)


def test_heat_in_two_dimensions_is_that_of_both():
    plane = operator("heat", (6, 4), width=3.0)
    expected = np.einsum("ij,bjk,lk->bil", heat(6, 0.03), X, heat(4, 0.03))
    np.testing.assert_allclose(measured(plane, X), expected.reshape(5, -1), atol=1e-12)


@pytest.mark.parametrize("kind", ["mask", "phase", "heat"])
def test_backends_measure_alike(ppl, kind, float64):
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        found = operator(kind, (6, 4))
        y = ppl.to_numpy(measured(found, ppl.asarray(X), ppl.asarray))
    np.testing.assert_allclose(y, measured(found, X), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fog", (4,)), "'fog' is not known"),
        (("downsample", (6, 5)), "does not divide"),
        (("mask", (4,), 0.0), "share 0"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(PplebmError, match=words):
        operator(*arguments)
