"""Layers as data (`pplebm.networks.layers`) in torch; images run channels last, as oneDNN and cuDNN like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from pplebm.backends.pyro import sequences
from pplebm.networks import layers as nets

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda a: a,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "leaky_relu": lambda a: functional.leaky_relu(a, 0.2),
}


def apply(net: nets.Net, weights: Mapping[str, Tensor], a: Tensor) -> Tensor:
    """Apply a net to (..., *event); weights by name and number of their layer, "weight_0"."""
    for i, (layer, before) in enumerate(zip(net.layers, nets.shapes(net), strict=False)):
        a = APPLY[type(layer)](layer, before, a, *nets.weights_at(weights, layer, i))
        a = ACTIVATIONS[getattr(layer, "activation", "linear")](a)
    return a


# --- layer, shape of its input's event, input (..., *event), weights -> output before the activation


def _dense(layer: nets.Dense, before: nets.Shape, a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.linear(a, weight, bias)


def _reshape(layer: nets.Reshape, before: nets.Shape, a: Tensor) -> Tensor:
    return a.reshape(*a.shape[: a.dim() - len(before)], *layer.shape)


def _conv(layer: nets.Conv, before: nets.Shape, a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _by_image(functional.conv2d, layer, before, a, weight, bias)


def _conv_transposed(layer: nets.ConvTransposed, before: nets.Shape, a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if before[:2] == (1, 1) and layer.padding == 0:
        return _from_a_pixel(a, weight, bias)
    return _by_image(functional.conv_transpose2d, layer, before, a, weight, bias)


def _inside(layer: nets.Residual | nets.Skip, before: nets.Shape, a: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return apply(nets.Net(before, layer.layers), weights, a)


def _residual(layer: nets.Residual, before: nets.Shape, a: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return a + _inside(layer, before, a, weights)


def _skip(layer: nets.Skip, before: nets.Shape, a: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return torch.concat([a, _inside(layer, before, a, weights)], -1)


APPLY: dict[type, Callable[..., Tensor]] = {
    nets.Dense: _dense,
    nets.Reshape: _reshape,
    nets.Conv: _conv,
    nets.ConvTransposed: _conv_transposed,
    nets.ChannelsFirst: lambda layer, before, a: a.movedim(-1, -3),
    nets.ChannelsLast: lambda layer, before, a: a.movedim(-3, -1),
    nets.Residual: _residual,
    nets.Skip: _skip,
    **sequences.APPLY,
}


def _from_a_pixel(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution of an image of one pixel: a matrix product, which is much faster."""
    rows = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    out = functional.linear(a[..., 0, 0, :], rows).reshape(*a.shape[:-3], *weight.shape[2:], weight.shape[1])
    return out + bias


def _by_image(
    function: Callable[..., Tensor], layer: nets.Conv | nets.ConvTransposed, before: nets.Shape,
    a: Tensor, weight: Tensor, bias: Tensor,
) -> Tensor:  # fmt: skip
    """A convolution of (..., H, W, C); the permuted view is what torch calls channels_last."""
    images = a.reshape(-1, *before).permute(0, 3, 1, 2)
    out = function(images, weight, bias, layer.stride, layer.padding).permute(0, 2, 3, 1)
    return out.reshape(*a.shape[:-3], *out.shape[1:])
