"""Layers declared as data (`pplebm.networks.layers`) in JAX; images run channels last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pplebm.backends.numpyro import sequences, transposed
from pplebm.networks import layers as nets

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda a: a,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.2),
}
_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
_convolution = jax.lax.conv_general_dilated


def apply(net: nets.Net, weights: Mapping[str, Array], a: Array) -> Array:
    """Apply a net to (..., *event); weights by name and number of their layer, "weight_0"."""
    for i, (layer, before) in enumerate(zip(net.layers, nets.shapes(net), strict=False)):
        a = APPLY[type(layer)](layer, before, a, *nets.weights_at(weights, layer, i))
        a = ACTIVATIONS[getattr(layer, "activation", "linear")](a)
    return a


# --- layer, shape of its input's event, input (..., *event), weights -> output before the activation


def _dense(layer: nets.Dense, before: nets.Shape, a: Array, weight: Array, bias: Array) -> Array:
    return jnp.tensordot(a, weight, ((-1,), (1,))) + bias  # without a transposed copy, which would be compiled first


def _reshape(layer: nets.Reshape, before: nets.Shape, a: Array) -> Array:
    return a.reshape(*a.shape[: a.ndim - len(before)], *layer.shape)


def _conv(layer: nets.Conv, before: nets.Shape, a: Array, weight: Array, bias: Array) -> Array:
    return _by_image(_plain, layer, before, a, weight) + bias


def _conv_transposed(layer: nets.ConvTransposed, before: nets.Shape, a: Array, weight: Array, bias: Array) -> Array:
    if before[:2] == (1, 1) and layer.padding == 0:
        return _from_a_pixel(a, weight) + bias
    return _by_image(_transposed, layer, before, a, weight) + bias


def _inside(layer: nets.Residual | nets.Skip, before: nets.Shape, a: Array, weights: Mapping[str, Array]) -> Array:
    return apply(nets.Net(before, layer.layers), weights, a)


def _residual(layer: nets.Residual, before: nets.Shape, a: Array, weights: Mapping[str, Array]) -> Array:
    return a + _inside(layer, before, a, weights)


def _skip(layer: nets.Skip, before: nets.Shape, a: Array, weights: Mapping[str, Array]) -> Array:
    return jnp.concatenate([a, _inside(layer, before, a, weights)], -1)


APPLY: dict[type, Callable[..., Array]] = {
    nets.Dense: _dense,
    nets.Reshape: _reshape,
    nets.Conv: _conv,
    nets.ConvTransposed: _conv_transposed,
    nets.ChannelsFirst: lambda layer, before, a: jnp.moveaxis(a, -1, -3),
    nets.ChannelsLast: lambda layer, before, a: jnp.moveaxis(a, -3, -1),
    nets.Residual: _residual,
    nets.Skip: _skip,
    **sequences.APPLY,
}


def _by_image(
    function: Callable[..., Array], layer: nets.Conv | nets.ConvTransposed, before: nets.Shape, a: Array, weight: Array
) -> Array:
    """A convolution of (..., H, W, C)."""
    out = function(a.reshape(-1, *before), weight, layer.stride, layer.padding)
    return out.reshape(*a.shape[:-3], *out.shape[1:])


def _from_a_pixel(a: Array, weight: Array) -> Array:
    """Transposed convolution of an image of one pixel: a matrix product, which is much faster."""
    rows = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    return (a[..., 0, 0, :] @ rows.T).reshape(*a.shape[:-3], *weight.shape[2:], weight.shape[1])


def _plain(a: Array, weight: Array, stride: int, padding: int) -> Array:
    """Convolution, weights (out, in, height, width)."""
    return _convolution(
        a, _last(weight, (2, 3, 1, 0)), (stride,) * 2, [(padding,) * 2] * 2, dimension_numbers=_CHANNELS_LAST
    )


def _last(weight: Array, axes: tuple[int, ...]) -> Array:
    """Weights as (height, width, in, out): any other order is a hundred times slower in a loop on a CPU.

    The barrier keeps XLA from undoing the transposition.
    """
    return jax.lax.optimization_barrier(weight.transpose(axes))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transposed(a: Array, weight: Array, stride: int, padding: int) -> Array:
    """Transposed convolution with a gradient of its own: XLA runs the one it derives several times slower on a CPU."""
    if not transposed.fits(a.shape, weight.shape, stride, padding):
        return transposed.spread(a, weight, stride, padding)
    cpu, other = (partial(f, stride=stride, padding=padding) for f in (transposed.by_columns, transposed.spread))
    return jax.lax.platform_dependent(a, weight, cpu=cpu, default=other)


def _forward(a: Array, weight: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _transposed(a, weight, stride, padding), (a, weight)


def _backward(stride: int, padding: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
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
