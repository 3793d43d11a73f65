"""Flows (`pplebm.networks.flows`): conditional ones of NumPyro, and coupling layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.distributions import constraints
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.distributions.transforms import AffineTransform, IndependentTransform, PermuteTransform, Transform
from numpyro.nn import AutoregressiveNN

from pplebm.backends.numpyro.arrays import asarray
from pplebm.networks.flows import Coupling, Flow, Step, log_det, through


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


class CouplingTransform(Transform):  # type: ignore[misc,type-arg]
    """Noise to a vector by coupling layers."""

    domain = codomain = constraints.real_vector

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps

    def __call__(self, u: jax.Array) -> jax.Array:
        return through(self.steps, jnp.exp, u)

    def _inverse(self, z: jax.Array) -> jax.Array:
        return through(self.steps, jnp.exp, z, backwards=True)

    def log_abs_det_jacobian(self, u: jax.Array, z: jax.Array, intermediates: Any = None) -> jax.Array:
        """At noise u, whatever its vector z."""
        return log_det(self.steps, jnp.exp, u)

    def tree_flatten(self) -> Any:
        """As every transform of NumPyro: no arrays of its own, and what makes it."""
        return (), ((), {"steps": self.steps})

    def eq(self, other: object, static: bool = False) -> bool:
        """Whether another one has the same layers."""
        return isinstance(other, CouplingTransform) and self.steps is other.steps


def coupled(flow: Coupling, networks: Sequence[Callable[[jax.Array], jax.Array]]) -> Any:
    """The law of the vector, by the networks of its layers."""
    steps = list(zip(networks, map(asarray, flow.kept()), strict=True))
    base = dist.Normal(asarray(np.zeros(flow.size)), 1.0).to_event(1)
    return dist.TransformedDistribution(base, [CouplingTransform(steps)])
