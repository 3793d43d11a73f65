"""NumPyro's statements seen from a chain: coordinates, densities, and what the structure of a program asks."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints

from pplebm.backends.numpyro.noise import noise_of, unmasked, unwrap
from pplebm.backends.structure import BackendSites, support_name
from pplebm.errors import PplebmError

NO_MEAN = (dist.CategoricalLogits, dist.CategoricalProbs, dist.Cauchy, dist.HalfCauchy)  # NaN, or not finite


def to_value(msg: Any, u: jax.Array, coordinates: str) -> tuple[jax.Array, jax.Array]:
    """Value of a latent at coordinates u, and its log density there; see the Pyro backend for the equations."""
    fn = msg["fn"]
    noise = noise_of(fn) if coordinates == "noncentered" else None
    if noise is not None:
        value = noise.to_value(u)
        standard = -0.5 * (u * u) - 0.5 * math.log(2 * math.pi)
        standard = standard.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else standard
        if msg["scale"] is None and unmasked(fn) is fn:
            return value, standard
        return value, density(msg | {"value": value}) + standard - unmasked(fn).log_prob(value)
    if getattr(fn.support, "base_constraint", fn.support) is constraints.real:
        return u, density(msg | {"value": u})
    bijection = biject_to(fn.support)
    value = bijection(u)
    return value, density(msg | {"value": value}) + bijection.log_abs_det_jacobian(u, value)


def density_at(msg: Any, u: jax.Array) -> jax.Array:
    """Log density of a latent that has its value already, which coordinates u led to by the support's bijection."""
    bijection = biject_to(msg["fn"].support)
    return density(msg) + bijection.log_abs_det_jacobian(u, msg["value"])


def to_coordinates(msg: Any, coordinates: str) -> jax.Array:
    """Coordinates of a latent's value: the inverse of `to_value`."""
    noise = noise_of(msg["fn"]) if coordinates == "noncentered" and not msg.get("_control_flow_done") else None
    if noise is not None:
        return noise.from_value(msg["value"])
    return biject_to(msg["fn"].support).inv(msg["value"])


def density(msg: Any) -> jax.Array:
    """Log density of a statement's value, as the handlers around it have it."""
    log_density = msg["fn"].log_prob(msg["value"])
    return log_density if msg["scale"] is None else msg["scale"] * log_density


def plain_density(msg: Any) -> jax.Array:
    """The same before masks and scales."""
    return unmasked(msg["fn"]).log_prob(msg["value"])


def masks_of(msg: Any) -> jax.Array | None:
    """Where a statement counts, if masks say so; (batch shape)."""
    fn, found = msg["fn"], None
    while hasattr(fn, "base_dist"):
        if isinstance(fn, dist.MaskedDistribution):
            mask = jnp.asarray(fn._mask)
            extra = mask.ndim - len(msg["fn"].batch_shape)  # a mask of parts of an event
            mask = mask.any(tuple(range(-extra, 0))) if extra > 0 else mask
            mask = jnp.broadcast_to(mask, msg["fn"].batch_shape)
            found = mask if found is None else found & mask
        fn = fn.base_dist
    return found


def counted(msg: Any) -> jax.Array | None:
    """Which numbers of a statement's value count, if masks say so; (shape of the value)."""
    value, fn, whole = msg["value"], msg["fn"], None
    while hasattr(fn, "base_dist"):
        if isinstance(fn, dist.MaskedDistribution):  # the axes of a mask are the first of the value
            part = jnp.broadcast_to(jnp.asarray(fn._mask), fn.batch_shape)
            part = part.reshape(*fn.batch_shape, *(1,) * (jnp.ndim(value) - len(fn.batch_shape)))
            part = jnp.broadcast_to(part, jnp.shape(value))
            whole = part if whole is None else whole & part
        fn = fn.base_dist
    return whole


def improper_start(fn: Any, key: jax.Array) -> tuple[jax.Array, bool]:
    """A draw, or where a distribution has none, a value at coordinates uniform in [-2, 2]; and whether it is that."""
    try:
        return fn(rng_key=key, sample_shape=()), False
    except NotImplementedError:
        bijection = biject_to(fn.support)
        shape = bijection.inverse_shape(fn.shape())
        return bijection(jax.random.uniform(key, shape, minval=-2.0, maxval=2.0)), True


def is_deterministic(site: dict[str, Any]) -> bool:
    """Whether a statement only records a value: `numpyro.deterministic`, observed Deltas of their own value."""
    if site["type"] == "deterministic":
        return True
    if not site["is_observed"]:
        return False
    fn = unwrap(unmasked(site["fn"]))
    return isinstance(fn, dist.Delta) and bool(jnp.all(fn.v == site["value"]))


def mean(msg: Any) -> jax.Array:
    """Mean of a statement's distribution.

    Raises:
        PplebmError: for a distribution that has none, such as one of classes, or of which the backend knows none.
    """
    fn = unmasked(msg["fn"])
    try:
        if isinstance(unwrap(fn), NO_MEAN):
            raise NotImplementedError
        return fn.mean
    except NotImplementedError as error:
        what = f"site '{msg['name']}' ({type(unwrap(fn)).__name__})"
        raise PplebmError(f"{what} has no mean; ask for draws, and for scores by 'likelihood'.") from error


BACKEND = BackendSites(
    name="numpyro",
    unwrap=lambda fn: unwrap(unmasked(fn)),
    has_noncentered=lambda fn: noise_of(fn) is not None,
    is_discrete=lambda fn: fn.support.is_discrete,
    is_deterministic=is_deterministic,
    support_name=lambda support: support_name(support, constraints),
    unconstrained=lambda fn, value: biject_to(fn.support).inv(value),
    all_finite=lambda a: isinstance(a, jax.core.Tracer) or bool(jnp.isfinite(a).all()),  # see `messengers.Checks`
    has_mask=lambda site: masks_of(site) is not None,
)
