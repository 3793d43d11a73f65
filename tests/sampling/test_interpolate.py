"""Ways between latents against the geodesics of a differential equation, and the parts of an energy."""

from __future__ import annotations

import conjugate
import numpy as np
import pytest
from scipy.integrate import solve_bvp

from pplebm.errors import PplebmError
from pplebm.sampling.interpolate import energies, interpolate

N_POINTS = 41


def ends(program, scale=1.5):
    rng = np.random.default_rng(4)
    draw = lambda: {s.name: scale * rng.normal(size=(1, *s.shape)).astype(np.float32) for s in program.latents}
    return [{name: program.ppl.asarray(a, keep=True) for name, a in draw().items()} for _ in range(2)]


def flat(program, z):
    return np.concatenate([program.ppl.to_numpy(z[name]).astype(float) for name in ("z1", "z2")], 1)


@pytest.mark.parametrize("backend", conjugate.BACKENDS)
def test_the_way_along_the_prior_is_the_geodesic(backend):
    """z'' = |z'|² ∇log w - 2 (∇log w · z') z' with log w = a U, here quadratic, at constant speed in the metric."""
    program, params, closed = conjugate.instance(backend, "centered")
    law = closed()
    precision = np.linalg.inv(law.covariance)
    start, end = ends(program)
    first, last = flat(program, start)[0], flat(program, end)[0]

    def slope(t, y):
        z, v = y[:5], y[5:]
        pull = a * precision @ (z - law.mean[:, None])
        return np.concatenate([v, (v**2).sum(0) * pull - 2.0 * (pull * v).sum(0) * v])

    t = np.linspace(0.0, 1.0, N_POINTS)
    straight = first[:, None] + t * (last - first)[:, None]
    guess = np.concatenate([straight, np.repeat((last - first)[:, None], N_POINTS, 1)])
    for share in (0.2, 0.5, 0.8, 1.0):  # from the straight line on
        a = share / 5.0
        exact = solve_bvp(slope, lambda y0, y1: np.concatenate([y0[:5] - first, y1[:5] - last]), t, guess, tol=1e-5)
        assert exact.success
        guess = exact.sol(t)
    found = interpolate(program, params, start, end, N_POINTS)
    geodesic, size = exact.sol(t)[:5].T, np.linalg.norm(last - first)
    assert np.abs(straight.T - geodesic).max() > 0.2 * size  # it is another way
    assert np.abs(flat(program, found.latents) - geodesic).max() < 0.01 * size

    def length(z):  # on the ways themselves, finely
        energy = 0.5 * np.einsum("ti,ij,tj->t", z - law.mean, precision, z - law.mean)
        return np.trapezoid(np.exp(a * energy) * np.linalg.norm(np.gradient(z, axis=0), axis=1))

    fine = np.linspace(0.0, 1.0, 4001)
    ratio = length(exact.sol(fine)[:5].T) / length(first + fine[:, None] * (last - first))
    assert abs(found.length / ratio - 1.0) < 0.02


@pytest.mark.parametrize("backend", conjugate.BACKENDS)
def test_ends_are_those_given_and_straight_is_straight(backend):
    program, params, _ = conjugate.instance(backend, "noncentered")
    start, end = ends(program)
    for method, sharpness in (("straight", None), ("prior", None), ("prior", 0.0)):
        found = interpolate(program, params, start, end, 7, method, sharpness)
        for name, z in found.latents.items():
            z = program.ppl.to_numpy(z)
            np.testing.assert_array_equal(z[0], program.ppl.to_numpy(start[name])[0])
            np.testing.assert_array_equal(z[-1], program.ppl.to_numpy(end[name])[0])
        if method == "straight" or sharpness == 0.0:
            steps = np.diff(flat(program, found.latents), axis=0)
            assert np.abs(steps - steps.mean(0)).max() < 1e-4 and found.length == pytest.approx(1.0, abs=1e-5)
    assert len(interpolate(program, params, start, end, 2).latents["z1"]) == 2


@pytest.mark.parametrize("backend", conjugate.BACKENDS)
@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_energies_are_those_of_the_closed_form(backend, coordinates):
    program, params, closed = conjugate.instance(backend, coordinates)
    z = program.draw_base(program.ppl.key(2), 6, params)
    found = energies(program, params, z)
    np.testing.assert_allclose(found.energy, -program.ppl.to_numpy(program.log_prior(params, z)), rtol=1e-6)
    np.testing.assert_allclose(found.energy, -(found.log_base + found.tilt), rtol=1e-5, atol=1e-5)
    if coordinates == "centered":
        law, u = closed(), flat(program, z)
        d = u - law.mean
        log_density = -0.5 * np.einsum("bi,ij,bj->b", d, np.linalg.inv(law.covariance), d)
        log_density += law.log_constant - 0.5 * np.linalg.slogdet(2.0 * np.pi * law.covariance)[1]
        np.testing.assert_allclose(found.energy, -log_density, rtol=1e-4, atol=1e-4)


def test_ends_that_are_none_are_refused():
    program, params, _ = conjugate.instance("pyro")
    start, end = ends(program)
    with pytest.raises(PplebmError, match=r"end has nothing at site 'z1'; give one latent, \(1, 3\)"):
        interpolate(program, params, start, {"z2": end["z2"]})
    with pytest.raises(PplebmError, match=r"end has \(2, 3\) at site 'z1'"):
        interpolate(program, params, start, end | {"z1": start["z1"].repeat(2, 1)})
    with pytest.raises(PplebmError, match="n_points at least 2"):
        interpolate(program, params, start, end, 1)
    with pytest.raises(PplebmError, match="global ones"):
        joint = conjugate.hierarchy("pyro")
        interpolate(joint, {}, {}, {})
