"""Layers drawn anew given others: held bit for bit, and by the law of the tilted conditional."""

from __future__ import annotations

import conjugate
import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.language import load_backend
from pplebm.sampling.clamped import clamped

D1 = 3  # latents of z1 in the conjugate instance
N = 2000  # chains of every row


def gaussian(program, params, closed, x=None):
    """Mean and covariance of (z1, z2) in the program's own coordinates, which are affine in centered ones."""
    found = closed(x)
    if program.coordinates == "centered":
        return found.mean, found.covariance
    s, a, b = (np.asarray(program.ppl.to_numpy(params[name]), float) for name in ("log_s", "A", "b"))
    top = np.eye(len(found.mean) - D1)
    turn = np.block([[np.diag(np.exp(-s)), -np.exp(-s)[:, None] * a], [np.zeros((len(top), D1)), top]])
    shift = np.concatenate([-np.exp(-s) * b, np.zeros(len(top))])
    return turn @ found.mean + shift, turn @ found.covariance @ turn.T


def conditional(mean, covariance, free, held, value):
    """Mean and covariance of some coordinates of a Gaussian given the others."""
    gain = covariance[np.ix_(free, held)] @ np.linalg.inv(covariance[np.ix_(held, held)])
    return mean[free] + gain @ (value - mean[held]), (
        covariance[np.ix_(free, free)] - gain @ covariance[np.ix_(held, free)]
    )


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
@pytest.mark.parametrize("held", ["z1", "z2"])
@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("backend", conjugate.BACKENDS)
def test_the_rest_given_a_layer_has_the_tilted_conditional_law(backend, with_data, held, coordinates):
    program, params, closed = conjugate.instance(backend, coordinates)
    rng, x = np.random.default_rng(0), conjugate.X[:2]
    given = {"z1": rng.normal(size=(2, D1)).astype(np.float32), "z2": rng.normal(size=(2, 2)).astype(np.float32)}
    z = {name: program.ppl.asarray(a) for name, a in given.items()}
    data = program.data(x) if with_data else None
    new = {name: program.ppl.to_numpy(a) for name, a in clamped(
        program, params, z, [held], data, n_chains=N, n_warmup=100, n_steps=25, seed=1).items()}  # fmt: skip
    np.testing.assert_array_equal(new[held], np.tile(given[held], (N, 1)))
    parts = {"z1": np.arange(D1), "z2": np.arange(D1, D1 + 2)}
    free = next(name for name in parts if name != held)
    for row in range(2):
        law = gaussian(program, params, closed, x[row] if with_data else None)
        mean, covariance = conditional(*law, parts[free], parts[held], given[held][row].astype(float))
        draws, variance = new[free][row::2], np.diag(covariance)
        assert (np.abs(draws.mean(0) - mean) < 4.5 * np.sqrt(variance / N)).all()
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / N)  # of a covariance of normal draws
        assert (np.abs(np.cov(draws.T) - covariance) < 4.5 * error).all()


def scales(backend):
    """A scale that is gamma, which has no noncentered coordinates, and a skewed tilt on the layer below."""
    host = load_backend(backend)
    tilt = host.tilt

    def model(x):
        with host.plate("data", len(x)):
            scale = host.sample("scale", host.dist.Gamma(2.0, 1.0))
            z = host.sample("z", host.dist.Normal(0.0, scale))
            tilt("f", -host.exp(z))
            host.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(2, np.float32), backend=backend)


@pytest.mark.parametrize("held", ["scale", "z"])
@pytest.mark.parametrize("backend", conjugate.BACKENDS)
def test_a_skewed_conditional_has_the_moments_of_quadrature(backend, held):
    program, n = scales(backend), 4000
    z = program.unconstrain({}, {"scale": np.array([1.5], np.float32), "z": np.array([-1.0], np.float32)})
    new = program.constrain({}, clamped(program, {}, z, [held], n_chains=n, n_warmup=100, n_steps=40, seed=3))
    new = {name: program.ppl.to_numpy(a).astype(float) for name, a in new.items()}
    assert np.ptp(new[held]) == 0.0
    if held == "scale":
        grid = np.linspace(-12.0, 6.0, 20001)
        log_density = -0.5 * (grid / 1.5) ** 2 - np.exp(grid)
    else:
        grid = np.linspace(1e-3, 25.0, 20001)
        log_density = np.log(grid) - grid - np.log(grid) - 0.5 / grid**2
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    draws = new["z" if held == "scale" else "scale"]
    for power in (1, 2, 3):
        exact, square = weights @ grid**power, weights @ grid ** (2 * power)
        assert abs((draws**power).mean() - exact) < 4.5 * np.sqrt((square - exact**2) / n)


def test_rows_and_chains_keep_their_order_and_draws_their_seed():
    program, params, _ = conjugate.instance("pyro", "centered")
    z = program.draw_base(program.ppl.key(0), 3, params)
    settings = {"n_chains": 2, "n_warmup": 25, "n_steps": 5}
    first, again, other = (clamped(program, params, z, ["z2"], seed=s, **settings)["z1"] for s in (1, 1, 2))
    assert tuple(first.shape) == (6, D1)
    assert (first == again).all() and (first != other).all()
    whole = clamped(program, params, z, ["z1", "z2"], **settings)
    assert all((whole[site][3:] == z[site]).all() for site in z)


def test_what_cannot_be_held_is_refused_by_name():
    program, params, _ = conjugate.instance("pyro")
    z = program.draw_base(program.ppl.key(0), 2, params)
    with pytest.raises(PplebmError, match=r"no latent site 'z3'.*z2, z1"):
        clamped(program, params, z, ["z3"])
    with pytest.raises(PplebmError, match="'z1' is a name"):
        clamped(program, params, z, "z1")
    with pytest.raises(PplebmError, match="n_chains must be an integer from 1"):
        clamped(program, params, z, ["z1"], n_chains=0)
    with pytest.raises(PplebmError, match="3 rows of data for 2 latents"):
        clamped(program, params, z, ["z1"], program.data(conjugate.X))


def test_chains_that_never_move_are_told():
    program, params, _ = conjugate.instance("pyro")
    stiff = params | {"log_s": params["log_s"] - 9.0}  # far narrower than the first step, and no warm-up
    z = program.draw_base(program.ppl.key(0), 2, params)
    with pytest.warns(PplebmWarning, match="2 of 2 chains given z2 never moved in 3 steps"):
        clamped(program.with_coordinates("centered"), stiff, z, ["z2"], n_warmup=0, n_steps=3)
