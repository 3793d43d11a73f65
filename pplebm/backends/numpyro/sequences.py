"""Layers for sequences (`pplebm.networks.sequences`) in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pplebm.networks import layers as nets


def _recurrent(layer: nets.Recurrent, before: nets.Shape, a: Array, weight: Array, bias: Array) -> Array:
    units, channels = layer.units, before[1]

    def step(h: Array, of_input: Array) -> tuple[Array, Any]:
        of_state = h @ weight[:, channels:].T
        r, u = (jax.nn.sigmoid(of_input[:, s] + of_state[:, s]) for s in (slice(units), slice(units, 2 * units)))
        new = jnp.tanh(of_input[:, 2 * units :] + r * of_state[:, 2 * units :])
        h = (1.0 - u) * new + u * h
        return h, h if layer.all_states else None

    flat = a.reshape(-1, *before)
    inputs = jnp.moveaxis(flat @ weight[:, :channels].T + bias, 1, 0)
    last, states = jax.lax.scan(step, jnp.zeros((len(flat), units), a.dtype), inputs)
    found = jnp.moveaxis(states, 0, 1) if layer.all_states else last
    return found.reshape(*a.shape[:-2], *layer.output(before, ""))


def _embedding(layer: nets.Embedding, before: nets.Shape, a: Array, weight: Array) -> Array:
    symbols = a.astype(int)
    outside = (symbols < 0) | (symbols >= layer.symbols)
    return jnp.where(outside[..., None], jnp.nan, weight[jnp.where(outside, 0, symbols)])


def _positions(layer: nets.Positions, before: nets.Shape, a: Array, weight: Array) -> Array:
    return a + weight


def _conv(layer: nets.SequenceConv, before: nets.Shape, a: Array, weight: Array, bias: Array) -> Array:
    padded = jnp.pad(a, ((0, 0),) * (a.ndim - 2) + (layer.padding(), (0, 0)))
    taps = [padded[..., layer.dilation * k :, :][..., : before[0], :] for k in range(layer.kernel)]
    rows = weight.transpose(2, 1, 0).reshape(-1, layer.channels)  # (K in, out), as the taps stand side by side
    return jnp.concatenate(taps, -1) @ rows + bias


def _layer_norm(layer: nets.LayerNorm, before: nets.Shape, a: Array) -> Array:
    return (a - a.mean(-1, keepdims=True)) * jax.lax.rsqrt(a.var(-1, keepdims=True) + 1e-5)


def _attention(layer: nets.Attention, before: nets.Shape, a: Array, weight: Array, bias: Array) -> Array:
    steps, channels = before
    parts = jnp.tensordot(a, weight[: 3 * channels], ((-1,), (1,))) + bias[: 3 * channels]
    heads = parts.reshape(*a.shape[:-1], 3, layer.heads, channels // layer.heads)
    queries, keys, values = jnp.moveaxis(heads, (-3, -2), (0, -3))  # (..., heads, T, C / heads)
    score = queries @ jnp.swapaxes(keys, -1, -2) / (channels / layer.heads) ** 0.5
    if layer.causal:
        score = jnp.where(jnp.tril(jnp.ones((steps, steps), bool)), score, -jnp.inf)
    out = jnp.moveaxis(jax.nn.softmax(score) @ values, -3, -2).reshape(a.shape)
    return jnp.tensordot(out, weight[3 * channels :], ((-1,), (1,))) + bias[3 * channels :]


APPLY: dict[type, Callable[..., Array]] = {
    nets.Recurrent: _recurrent,
    nets.Embedding: _embedding,
    nets.Positions: _positions,
    nets.SequenceConv: _conv,
    nets.LayerNorm: _layer_norm,
    nets.Attention: _attention,
}
