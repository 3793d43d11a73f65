"""Conditional flows (`pplebm.networks.flows`) of NumPyro."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.distributions.transforms import AffineTransform, IndependentTransform, PermuteTransform
from numpyro.nn import AutoregressiveNN

from pplebm.networks.flows import Flow


def built(flow: Flow, name: str, seed: int) -> Callable[[], Callable[[jax.Array], Any]]:
    """A function that declares the flow's parameters, and gives the one from (..., 2 size) to a distribution."""
    width = max(flow.width, flow.size)
    init, apply = AutoregressiveNN(flow.size, [width], nonlinearity=stax.Elu)
    keys = jax.random.split(jax.random.key(seed), flow.n_transforms)
    initial = [init(key, (flow.size,))[1] for key in keys]

    def declared() -> Callable[[jax.Array], Any]:
        weights = [numpyro.param(f"{name}.{i}", w) for i, w in enumerate(initial)]
        return partial(_law, flow, [partial(apply, w) for w in weights])

    return declared


def _law(flow: Flow, nets: list[Callable[..., Any]], h: jax.Array) -> Any:
    mean, scale = h[..., : flow.size], jax.nn.softplus(h[..., flow.size :]) + flow.scale_floor
    steps: list[Any] = []
    for net in nets:
        steps += [InverseAutoregressiveTransform(net), PermuteTransform(jnp.arange(flow.size)[::-1])]
    steps.append(IndependentTransform(AffineTransform(mean, scale), 1))
    return dist.TransformedDistribution(dist.Normal(jnp.zeros_like(mean), 1.0).to_event(1), steps)
