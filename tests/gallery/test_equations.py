"""Densities of the pages of energy-based priors are those of their equations, written once more in NumPy."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import bernoulli, norm

import pplebm
from pplebm.gallery.hyper import override

SMALL = {
    "latent_ebm": {"latent_dim": 3, "width": 5, "tilt_width": 4, "tilt_bound": 1.5},
    "joint_ebm": {"latent_dims": (4, 3, 2), "width": 5, "tilt_width": 4, "tilt_bound": 1.5},
}


def network(params, name, a):
    """A perceptron of two hidden layers, by its weights."""
    for i in range(3):
        a = a @ params[f"{name}.weight_{i}"].T + params[f"{name}.bias_{i}"]
        a = a if i == 2 else np.where(a > 0, a, 0.2 * a)
    return a


def bounded(f, bound):
    return bound * np.tanh(f / bound)


def equation(name, params, hyper, z, x):
    """log p̃(z) and log p̃(x, z): f(z) + log N(z; 0, I), or Σᵢ fᵢ(zᵢ) + Σᵢ log p(zᵢ | zᵢ₊₁) + log N(z_L; 0, I)."""
    dims = [hyper.latent_dim] if name == "latent_ebm" else hyper.latent_dims
    top = len(dims)
    prior = norm.logpdf(z[f"z{top}"]).sum(1)
    for i in range(1, top):
        h = network(params, f"conditional{i}", z[f"z{i + 1}"])
        mean, rough = h[:, : dims[i - 1]], h[:, dims[i - 1] :]
        scale = np.log1p(np.exp(rough + 0.2)) + hyper.scale_floor
        prior += norm.logpdf(z[f"z{i}"], mean, scale).sum(1)
    for i in range(1, top + 1):
        tilt = "tilt" if name == "latent_ebm" else f"tilt{i}"
        prior += bounded(network(params, tilt, z[f"z{i}"])[:, 0], hyper.tilt_bound)
    mean = network(params, "decoder", z["z1"])
    if hyper.likelihood == "bernoulli":
        return prior, prior + bernoulli.logpmf(x, expit(mean)).sum(1)
    return prior, prior + norm.logpdf(x, mean, hyper.sigma).sum(1)


@pytest.mark.parametrize("more", [{}, {"likelihood": "bernoulli"}], ids=["normal", "bernoulli"])
@pytest.mark.parametrize("name", SMALL)
def test_the_density_is_that_of_the_equation(ppl, name, more, float64):
    """At parameters far from where they begin, in double precision; tilts reach into their bounds."""
    page, rng = pplebm.load(name), np.random.default_rng(0)
    hyper = override(page.Hyper(), SMALL[name] | more, name)
    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        program = pplebm.Program(pplebm.bind(page, ppl.name, shape=(6,), **SMALL[name] | more))
        params = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=p.shape) for n, p in program.params.items()}
        z = {site.name: rng.normal(size=(20, *site.shape)) for site in program.latents}
        x = rng.normal(size=(20, 6))
        x = np.where(x > 0.0, 1.0, 0.0) if more else x
        theta, at = ({n: ppl.asarray(a) for n, a in values.items()} for values in (params, z))
        got = program.log_prior(theta, at), program.log_joint(theta, at, ppl.asarray(x))
    prior, joint = equation(name, params, hyper, z, x)
    np.testing.assert_allclose(ppl.to_numpy(got[0]), prior, rtol=1e-9)
    np.testing.assert_allclose(ppl.to_numpy(got[1]), joint, rtol=1e-9)
    tilt = "tilt" if name == "latent_ebm" else "tilt1"
    assert np.abs(network(params, tilt, z["z1"])).max() > hyper.tilt_bound
