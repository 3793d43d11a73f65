"""NumPyro's distributions seen from a chain: coordinates, densities, and what the structure of a program asks."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to, constraints

from pplebm.backends.numpyro.noise import noise_of, unwrap
from pplebm.backends.structure import Host, axis, plates_of
from pplebm.errors import PplebmError


def to_value(fn: Any, u: jax.Array, coordinates: str) -> tuple[jax.Array, jax.Array]:
    """Value of a site at coordinates u, and its log density there; see the Pyro side for the equations."""
    noise = noise_of(fn) if coordinates == "noise" else None
    if noise is not None:
        value = noise.to_value(u)
        log_density = -0.5 * (u * u) - 0.5 * math.log(2 * math.pi)
        return value, log_density.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else log_density
    if getattr(fn.support, "base_constraint", fn.support) is constraints.real:
        return u, fn.log_prob(u)
    bijection = biject_to(fn.support)
    value = bijection(u)
    return value, fn.log_prob(value) + bijection.log_abs_det_jacobian(u, value)


def to_coordinates(fn: Any, value: jax.Array, coordinates: str) -> jax.Array:
    """The inverse of `to_value`."""
    noise = noise_of(fn) if coordinates == "noise" else None
    if noise is not None:
        return noise.from_value(value)
    return biject_to(fn.support).inv(value)


def datum_first(value: jax.Array, site: dict[str, Any], plate: str) -> jax.Array:
    """Move the data axis of a site's value to the front: (B, other plates, event)."""
    return jnp.moveaxis(value, axis(value.ndim, site, plate), 0)


def datum_back(value: jax.Array, site: dict[str, Any], plate: str) -> jax.Array:
    """The inverse of `datum_first`."""
    return jnp.moveaxis(value, 0, axis(value.ndim, site, plate))


def per_datum(log_density: jax.Array, site: dict[str, Any], plate: str) -> jax.Array:
    """Sum the log density of a site over every plate but the data plate: (B,)."""
    front = jnp.moveaxis(log_density, plates_of(site)[plate].dim, 0)
    return front.reshape(len(front), -1).sum(1)


def mean(site: dict[str, Any]) -> jax.Array:
    """Mean of a site's distribution; the host knows none for some."""
    try:
        return site["fn"].mean
    except NotImplementedError as error:
        raise PplebmError(f"site '{site['name']}' ({type(site['fn']).__name__}) has no mean; ask for draws.") from error


def support_name(support: Any) -> str:
    """Short name of a support, as NumPyro calls it."""
    for name in ("real", "positive", "nonnegative", "unit_interval", "simplex", "real_vector", "boolean"):
        if support is getattr(constraints, name):
            return name
    return str(support).strip("()").lower()


HOST = Host(
    name="numpyro",
    unwrap=unwrap,
    has_noise=lambda fn: noise_of(fn) is not None,
    is_discrete=lambda fn: fn.support.is_discrete,
    support_name=support_name,
    unconstrained=lambda fn, value: biject_to(fn.support).inv(value),
    all_finite=lambda a: bool(jnp.isfinite(a).all()),
)
