"""Layers as data (`pplebm.networks.layers`) in torch; images run channels last, as oneDNN and cuDNN like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from pplebm.networks import layers as nets

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda a: a,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "leaky_relu": lambda a: functional.leaky_relu(a, 0.2),
}


def apply(net: nets.Net, weights: Mapping[str, torch.Tensor], a: torch.Tensor) -> torch.Tensor:
    """Apply a net to (..., *event); weights by name and number of their layer, "weight_0"."""
    for i, (layer, before) in enumerate(zip(net.layers, nets.shapes(net), strict=False)):
        lead = a.shape[: a.dim() - len(before)]
        if isinstance(layer, nets.Reshape):
            a = a.reshape(*lead, *layer.shape)
        elif isinstance(layer, nets.ChannelsFirst):
            a = a.movedim(-1, -3)
        elif isinstance(layer, nets.ChannelsLast):
            a = a.movedim(-3, -1)
        else:
            weight, bias = weights[f"weight_{i}"], weights[f"bias_{i}"]
            if isinstance(layer, nets.Recurrent):
                a = _last_state(a.reshape(-1, *before), weight, bias).reshape(*lead, layer.units)
                continue
            if isinstance(layer, nets.Dense):
                a = functional.linear(a, weight, bias)
            elif isinstance(layer, nets.ConvTransposed) and before[:2] == (1, 1) and layer.padding == 0:
                a = _from_a_pixel(a, weight, bias)
            else:
                a = _convolve(layer, a.reshape(-1, *before), weight, bias)
                a = a.reshape(*lead, *a.shape[1:])
            a = ACTIVATIONS[layer.activation](a)
    return a


def _last_state(a: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Last state of a gated recurrent unit over (N, T, C)."""
    units, channels = len(bias) // 3, a.shape[-1]
    start, none = a.new_zeros(1, len(a), units), torch.zeros_like(bias)
    parts = [weight[:, :channels], weight[:, channels:], bias, none]
    return torch.gru(a, start, parts, True, 1, 0.0, False, False, True)[1][0]


def _from_a_pixel(a: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Transposed convolution of an image of one pixel: a matrix product, which is much faster."""
    rows = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    out = functional.linear(a[..., 0, 0, :], rows).reshape(*a.shape[:-3], *weight.shape[2:], weight.shape[1])
    return out + bias


def _convolve(
    layer: nets.Conv | nets.ConvTransposed, a: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """(N, H, W, C) to (N, H', W', C'); the permuted view is what torch calls channels_last."""
    function = functional.conv_transpose2d if isinstance(layer, nets.ConvTransposed) else functional.conv2d
    return function(a.permute(0, 3, 1, 2), weight, bias, layer.stride, layer.padding).permute(0, 2, 3, 1)
