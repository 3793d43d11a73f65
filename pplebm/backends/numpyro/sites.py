"""NumPyro's distributions seen from a chain: coordinates, densities, and what the structure of a program asks."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints

from pplebm.backends.structure import Host, axis, plates_of
from pplebm.errors import PplebmError

_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def unwrap(fn: Any) -> Any:
    """The distribution inside Independent, expansions and masks."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def noise_scale(fn: Any) -> Any | None:
    """The Normal or MultivariateNormal inside a distribution, if its noise coordinates are known."""
    fn = unwrap(fn)
    return fn if isinstance(fn, (dist.Normal, dist.MultivariateNormal)) else None


def to_value(fn: Any, u: jax.Array, coordinates: str) -> tuple[jax.Array, jax.Array]:
    """Value of a site at coordinates u, and its log density there; see the Pyro side for the equations."""
    normal = noise_scale(fn) if coordinates == "noise" else None
    if normal is not None:
        if isinstance(normal, dist.MultivariateNormal):
            value = normal.loc + (normal.scale_tril @ u[..., None])[..., 0]
        else:
            value = normal.loc + normal.scale * u
        log_density = -0.5 * (u * u) - 0.5 * math.log(2 * math.pi)
        return value, log_density.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else log_density
    if getattr(fn.support, "base_constraint", fn.support) is constraints.real:
        return u, fn.log_prob(u)
    bijection = biject_to(fn.support)
    value = bijection(u)
    return value, fn.log_prob(value) + bijection.log_abs_det_jacobian(u, value)


def to_coordinates(fn: Any, value: jax.Array, coordinates: str) -> jax.Array:
    """The inverse of `to_value`."""
    normal = noise_scale(fn) if coordinates == "noise" else None
    if isinstance(normal, dist.MultivariateNormal):
        tril = jnp.broadcast_to(normal.scale_tril, (*value.shape, value.shape[-1]))
        return jax.scipy.linalg.solve_triangular(tril, (value - normal.loc)[..., None], lower=True)[..., 0]
    if normal is not None:
        return (value - normal.loc) / normal.scale
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
    has_noise=lambda fn: noise_scale(fn) is not None,
    is_discrete=lambda fn: fn.support.is_discrete,
    support_name=support_name,
    unconstrained=lambda fn, value: biject_to(fn.support).inv(value),
    all_finite=lambda a: bool(jnp.isfinite(a).all()),
)
