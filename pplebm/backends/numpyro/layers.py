"""Layers declared as data (`pplebm.networks.layers`) in JAX; images run channels last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from pplebm.backends.numpyro import transposed
from pplebm.networks import layers as nets

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda a: a,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.2),
}
_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
_convolution = jax.lax.conv_general_dilated


def apply(net: nets.Net, weights: Mapping[str, jax.Array], a: jax.Array) -> jax.Array:
    """Apply a net to (..., *event); weights by name and number of their layer, "weight_0"."""
    for i, (layer, before) in enumerate(zip(net.layers, nets.shapes(net), strict=False)):
        lead = a.shape[: a.ndim - len(before)]
        if isinstance(layer, nets.Reshape):
            a = a.reshape(*lead, *layer.shape)
        elif isinstance(layer, nets.ChannelsFirst):
            a = jnp.moveaxis(a, -1, -3)
        elif isinstance(layer, nets.ChannelsLast):
            a = jnp.moveaxis(a, -3, -1)
        else:
            weight, bias = weights[f"weight_{i}"], weights[f"bias_{i}"]
            if isinstance(layer, nets.Recurrent):
                a = _last_state(a.reshape(-1, *before), weight, bias).reshape(*lead, layer.units)
                continue
            if isinstance(layer, nets.Dense):
                a = a @ weight.T + bias
            elif isinstance(layer, nets.ConvTransposed) and before[:2] == (1, 1) and layer.padding == 0:
                a = _from_a_pixel(a, weight) + bias
            else:
                function = _transposed if isinstance(layer, nets.ConvTransposed) else _plain
                a = function(a.reshape(-1, *before), weight, layer.stride, layer.padding) + bias
                a = a.reshape(*lead, *a.shape[1:])
            a = ACTIVATIONS[layer.activation](a)
    return a


def _last_state(a: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """Last state of a gated recurrent unit over (N, T, C)."""
    units, channels = len(bias) // 3, a.shape[-1]

    def step(h: jax.Array, of_input: jax.Array) -> tuple[jax.Array, None]:
        of_state = h @ weight[:, channels:].T
        r, u = (jax.nn.sigmoid(of_input[:, s] + of_state[:, s]) for s in (slice(units), slice(units, 2 * units)))
        new = jnp.tanh(of_input[:, 2 * units :] + r * of_state[:, 2 * units :])
        return (1.0 - u) * new + u * h, None

    inputs = jnp.moveaxis(a @ weight[:, :channels].T + bias, 1, 0)
    return jax.lax.scan(step, jnp.zeros((len(a), units), a.dtype), inputs)[0]


def _from_a_pixel(a: jax.Array, weight: jax.Array) -> jax.Array:
    """Transposed convolution of an image of one pixel: a matrix product, which is much faster."""
    rows = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    return (a[..., 0, 0, :] @ rows.T).reshape(*a.shape[:-3], *weight.shape[2:], weight.shape[1])


def _plain(a: jax.Array, weight: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution, weights (out, in, height, width)."""
    return _convolution(
        a, _last(weight, (2, 3, 1, 0)), (stride,) * 2, [(padding,) * 2] * 2, dimension_numbers=_CHANNELS_LAST
    )


def _last(weight: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Weights as (height, width, in, out): any other order is a hundred times slower in a loop on a CPU.

    The barrier keeps XLA from undoing the transposition.
    """
    return jax.lax.optimization_barrier(weight.transpose(axes))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transposed(a: jax.Array, weight: jax.Array, stride: int, padding: int) -> jax.Array:
    """Transposed convolution with a gradient of its own: XLA runs the one it derives several times slower on a CPU."""
    if not transposed.fits(a.shape, weight.shape, stride, padding):
        return transposed.spread(a, weight, stride, padding)
    cpu, other = (partial(f, stride=stride, padding=padding) for f in (transposed.by_columns, transposed.spread))
    return jax.lax.platform_dependent(a, weight, cpu=cpu, default=other)


def _forward(
    a: jax.Array, weight: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _transposed(a, weight, stride, padding), (a, weight)


def _backward(
    stride: int, padding: int, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients: with respect to the image a plain convolution; with respect to the weights one over the batch."""
    a, weight = kept
    cpu, other = (partial(f, stride=stride, padding=padding) for f in (transposed.back_by_columns, _plain))
    if transposed.fits(a.shape, weight.shape, stride, padding):
        of_image = jax.lax.platform_dependent(gradient, weight, cpu=cpu, default=other)
    else:
        of_image = _plain(gradient, weight, stride, padding)
    of_weight = _convolution(
        gradient,
        a,
        (1, 1),
        [(padding,) * 2] * 2,
        rhs_dilation=(stride,) * 2,
        dimension_numbers=("CHWN", "IHWO", "CNHW"),
    )
    return of_image, of_weight


_transposed.defvjp(_forward, _backward)
