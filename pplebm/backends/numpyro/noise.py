"""Distributions whose draws are maps of standard normal noise, and these maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.transforms import ComposeTransform

_WRAPPERS = (dist.Independent, dist.ExpandedDistribution)


class Noise(NamedTuple):
    """Noise u to the value of a site, and back."""

    to_value: Callable[[jax.Array], jax.Array]
    from_value: Callable[[jax.Array], jax.Array]


def unwrap(fn: Any) -> Any:
    """The distribution inside Independent and expansions."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def unmasked(fn: Any) -> Any:
    """The distribution before masks, itself where there are none."""
    if isinstance(fn, dist.MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, _WRAPPERS) and (inner := unmasked(fn.base_dist)) is not fn.base_dist:
        if isinstance(fn, dist.Independent):
            return inner.to_event(fn.reinterpreted_batch_ndims)
        return inner.expand(fn.batch_shape)
    return fn


def noise_of(fn: Any) -> Noise | None:
    """The maps of a (multivariate) normal distribution, or of bijections of one; None for others."""
    fn = unwrap(unmasked(fn))
    if isinstance(fn, dist.MultivariateNormal):
        return Noise(lambda u: fn.loc + (fn.scale_tril @ u[..., None])[..., 0], lambda value: _solved(fn, value))
    if isinstance(fn, dist.Normal):
        return Noise(lambda u: fn.loc + fn.scale * u, lambda value: (value - fn.loc) / fn.scale)
    if isinstance(fn, dist.TransformedDistribution):
        inner, transform = noise_of(fn.base_dist), ComposeTransform(list(fn.transforms))
        if inner is not None:
            return Noise(lambda u: transform(inner.to_value(u)), lambda value: inner.from_value(transform.inv(value)))
    return None


def _solved(fn: Any, value: jax.Array) -> jax.Array:
    tril = jnp.broadcast_to(fn.scale_tril, (*value.shape, value.shape[-1]))
    return jax.scipy.linalg.solve_triangular(tril, (value - fn.loc)[..., None], lower=True)[..., 0]
