"""Distributions whose draws are maps of standard normal noise, and these maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import MaskedDistribution
from torch.distributions import ComposeTransform, Independent, MultivariateNormal, Normal, TransformedDistribution


class Noise(NamedTuple):
    """Noise u to the value of a site, and back."""

    to_value: Callable[[torch.Tensor], torch.Tensor]
    from_value: Callable[[torch.Tensor], torch.Tensor]


def unwrap(fn: Any) -> Any:
    """The distribution inside Independent."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def unmasked(fn: Any) -> Any:
    """The distribution before `.mask(...)`, itself where there are none."""
    if isinstance(fn, MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, Independent) and (inner := unmasked(fn.base_dist)) is not fn.base_dist:
        return inner.to_event(fn.reinterpreted_batch_ndims)
    return fn


def noise_of(fn: Any) -> Noise | None:
    """The maps of a (multivariate) normal distribution, or of bijections of one; None for others."""
    fn = unwrap(unmasked(fn))
    if isinstance(fn, MultivariateNormal):
        return Noise(
            lambda u: fn.loc + (fn.scale_tril @ u.unsqueeze(-1)).squeeze(-1),
            lambda value: torch.linalg.solve_triangular(
                fn.scale_tril, (value - fn.loc).unsqueeze(-1), upper=False
            ).squeeze(-1),
        )
    if isinstance(fn, Normal):
        return Noise(lambda u: fn.loc + fn.scale * u, lambda value: (value - fn.loc) / fn.scale)
    flow: Any = fn.dist if isinstance(fn, ZukoToPyro) else None
    if hasattr(flow, "transform"):  # zuko's transforms lead from values to noise
        base = noise_of(flow.base)
        if base is not None:
            return Noise(
                lambda u: flow.transform.inv(base.to_value(u)), lambda value: base.from_value(flow.transform(value))
            )
    if isinstance(fn, TransformedDistribution):
        inner, transform = noise_of(fn.base_dist), ComposeTransform(list(fn.transforms))
        if inner is not None:
            return Noise(lambda u: transform(inner.to_value(u)), lambda value: inner.from_value(transform.inv(value)))
    return None
