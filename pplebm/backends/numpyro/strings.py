"""Laws of strings (`pplebm.networks.strings`) as distributions of NumPyro."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from pplebm.networks.strings import END, Strings


class _Ended(constraints.Constraint):  # type: ignore[misc,type-arg]
    """Strings of integers below `symbols`, which are 0 from the first 0 on."""

    is_discrete, event_dim = True, 1

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols

    def __call__(self, x: jax.Array) -> jax.Array:
        is_symbol = (x >= 0) & (x < self.symbols) & (x % 1 == 0)
        return (is_symbol & ((x == END) | ~ended(x))).all(-1)

    def tree_flatten(self) -> Any:
        """As every constraint of NumPyro."""
        return (), ((), {"symbols": self.symbols})

    def eq(self, other: object, static: bool = False) -> bool:
        """Whether another one has as many symbols."""
        return isinstance(other, _Ended) and self.symbols == other.symbols


def ended(x: jax.Array) -> jax.Array:
    """Whether an end stands before each place of a string."""
    before = (x[..., :-1] == END).cumsum(-1) > 0
    return jnp.concatenate([jnp.zeros_like(x[..., :1], bool), before], -1)


class StringsLaw(dist.Distribution):  # type: ignore[misc]
    """The law of strings, (..., T), given vectors, (..., latent)."""

    arg_constraints: dict[str, Any] = {}
    pytree_data_fields = ("z",)
    pytree_aux_fields = ("law", "networks")

    def __init__(self, law: Strings, networks: Sequence[Callable[[jax.Array], jax.Array]], z: jax.Array) -> None:
        self.law, self.networks, self.z = law, tuple(networks), z
        super().__init__(z.shape[:-1], (law.length,), validate_args=False)

    @property
    def support(self) -> Any:
        """Strings that end once."""
        return _Ended(self.law.symbols)

    def logits(self, x: jax.Array) -> jax.Array:
        """Of every symbol given those before it, (..., T, symbols)."""
        embed, read = self.networks
        first = jnp.full_like(x[..., :1], self.law.symbols)
        seen = embed(jnp.concatenate([first, x[..., :-1]], -1))
        beside = jnp.broadcast_to(self.z[..., None, :], (*x.shape, self.law.latent))
        return read(jnp.concatenate([seen, beside], -1))

    def log_prob(self, value: jax.Array, intermediates: Any = None) -> jax.Array:
        """Of strings, by one pass; what follows an end has to be an end."""
        shape = jnp.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = jnp.broadcast_to(value.astype(int), (*shape, self.law.length))
        log_p = jax.nn.log_softmax(self.logits(x))
        after = jnp.where(x == END, 0.0, -jnp.inf)
        return jnp.where(ended(x), after, jnp.take_along_axis(log_p, x[..., None], -1)[..., 0]).sum(-1)

    def sample(self, key: Any, sample_shape: Any = ()) -> jax.Array:
        """Draws, symbol by symbol."""

        def step(x: jax.Array, at: Any) -> tuple[jax.Array, None]:
            t, key = at
            drawn = jax.random.categorical(key, jnp.take(self.logits(x), t, axis=-2))
            is_over = jnp.take(ended(x), t, axis=-1)
            return x.at[..., t].set(jnp.where(is_over, END, drawn)), None

        n = self.law.length
        empty = jnp.full((*sample_shape, *self.batch_shape, n), 0, dtype=int)
        return jax.lax.scan(step, empty, (jnp.arange(n), jax.random.split(key, n)))[0]
