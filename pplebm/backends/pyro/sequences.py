"""Layers for sequences (`pplebm.networks.sequences`) in torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pplebm.networks import layers as nets


def _recurrent(layer: nets.Recurrent, before: nets.Shape, a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    flat, channels = a.reshape(-1, *before), before[1]
    start, none = flat.new_zeros(1, len(flat), layer.units), torch.zeros_like(bias)
    parts = [weight[:, :channels], weight[:, channels:], bias, none]
    states, last = torch.gru(flat, start, parts, True, 1, 0.0, False, False, True)
    return (states if layer.all_states else last[0]).reshape(*a.shape[:-2], *layer.output(before, ""))


def _embedding(layer: nets.Embedding, before: nets.Shape, a: Tensor, weight: Tensor) -> Tensor:
    return functional.embedding(a.long(), weight)


def _positions(layer: nets.Positions, before: nets.Shape, a: Tensor, weight: Tensor) -> Tensor:
    return a + weight


def _conv(layer: nets.SequenceConv, before: nets.Shape, a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    padded = functional.pad(a, (0, 0, *layer.padding()))
    taps = [padded[..., layer.dilation * k :, :][..., : before[0], :] for k in range(layer.kernel)]
    rows = weight.transpose(1, 2).reshape(layer.channels, -1)  # (out, K in), as the taps stand side by side
    return functional.linear(torch.concat(taps, -1), rows, bias)


def _layer_norm(layer: nets.LayerNorm, before: nets.Shape, a: Tensor) -> Tensor:
    return functional.layer_norm(a, before[-1:])


def _attention(layer: nets.Attention, before: nets.Shape, a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Written out: the library's own has no second derivatives on every machine."""
    steps, channels = before
    parts = functional.linear(a, weight[: 3 * channels], bias[: 3 * channels])
    heads = parts.reshape(*a.shape[:-1], 3, layer.heads, channels // layer.heads).movedim((-3, -2), (0, -3))
    queries, keys, values = heads  # (..., heads, T, C / heads)
    score = queries @ keys.transpose(-1, -2) / (channels / layer.heads) ** 0.5
    if layer.causal:
        later = torch.ones(steps, steps, dtype=torch.bool, device=a.device).triu(1)
        score = score.masked_fill(later, -torch.inf)
    out = (score.softmax(-1) @ values).movedim(-3, -2).reshape(a.shape)
    return functional.linear(out, weight[3 * channels :], bias[3 * channels :])


APPLY: dict[type, Callable[..., Tensor]] = {
    nets.Recurrent: _recurrent,
    nets.Embedding: _embedding,
    nets.Positions: _positions,
    nets.SequenceConv: _conv,
    nets.LayerNorm: _layer_norm,
    nets.Attention: _attention,
}
