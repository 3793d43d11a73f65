"""Transposed convolutions in a form that CPUs run faster, put into a traced graph.

Where the library is slow at the transposed form, phases (`pplebm.backends.transposed`) are computed one by one, each by
an ordinary convolution, and interleaved. With few output channels, the products of all taps and inputs come from one
matrix product, and are summed by shifting.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.nn import functional

from pplebm.backends import transposed

FEW_CHANNELS = 4  # at most: the library's transposed form then runs at a tenth of its speed
_CONVOLUTION = torch.ops.aten.convolution.default
_KERNEL_AT = {_CONVOLUTION: 1, torch.ops.aten.convolution_backward.default: 2}


def speed_up(graph: GraphModule) -> None:
    """Replace transposed 2-d convolutions on a CPU, where another form is faster."""
    node: Any
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target is _CONVOLUTION and _is_plain_transposed(node):
            weight = node.args[1].meta["val"]
            axes = list(zip(weight.shape[2:], node.args[3], strict=True))
            if weight.shape[1] <= FEW_CHANNELS and all(k >= s for k, s in axes):
                _replace(graph, node, *_columns(graph, node))
            elif all(s < k < 2 * s for k, s in axes):
                _replace(graph, node, *_phases(graph, node))
    _channels_last(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _channels_last(graph: GraphModule) -> None:
    """Lay kernels out as the compiler wants them, in nodes of their own, or it would do so at every step."""
    node: Any
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in _KERNEL_AT:
            at = _KERNEL_AT[node.target]
            weight = node.args[at]
            if weight.meta["val"].dim() == 4:
                with graph.graph.inserting_before(node):
                    laid = graph.graph.call_function(laid_out, (weight,))
                laid.meta = dict(weight.meta)
                node.update_arg(at, laid)


def laid_out(weight: torch.Tensor) -> torch.Tensor:
    """The kernel with its channels last in memory."""
    return weight.contiguous(memory_format=torch.channels_last)


def _is_plain_transposed(node: Any) -> bool:
    image, _, _, stride, padding, dilation, transposed, output_padding, groups = node.args
    value = node.meta["val"]
    return (
        bool(transposed) and value.device.type == "cpu" and value.dim() == 4 and groups == 1
        and max(stride) > 1 and set(dilation) == {1} and set(output_padding) == {0}
        and all(n >= s for n, s in zip(value.shape[2:], stride, strict=True))
        and all(n >= p for n, p in zip(image.meta["val"].shape[2:], padding, strict=True))
    )  # fmt: skip


def _replace(graph: GraphModule, node: Any, function: Any, weights: list[Node]) -> None:
    a, weight, bias, stride, padding, *_ = node.args
    kernel = tuple(weight.meta["val"].shape[2:])
    with graph.graph.inserting_before(node):
        new = graph.graph.call_function(function, (a, weights, bias, kernel, tuple(stride), tuple(padding)))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)


def _columns(graph: GraphModule, node: Any) -> tuple[Any, list[Node]]:
    with graph.graph.inserting_before(node):
        return by_columns, [graph.graph.call_function(columns, (node.args[1],))]


def _phases(graph: GraphModule, node: Any) -> tuple[Any, list[Node]]:
    """Weights of the phases are nodes of their own, so that a chain prepares them once."""
    weight, stride, padding = node.args[1], tuple(node.args[3]), tuple(node.args[4])
    with graph.graph.inserting_before(node):
        return by_phases, [
            graph.graph.call_function(phase, (weight, at, stride, padding)) for at in product(*map(range, stride))
        ]


def columns(weight: torch.Tensor) -> torch.Tensor:
    """Kernel (in, out, h, w) as that of a convolution of one tap, (h w out, in, 1, 1)."""
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0], 1, 1).contiguous()


def phase(weight: torch.Tensor, at: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> torch.Tensor:
    """Taps of one phase, as the kernel of an ordinary convolution."""
    y, x = ((r + p) % s for r, s, p in zip(at, stride, padding, strict=True))
    return laid_out(weight[:, :, y :: stride[0], x :: stride[1]].flip(2, 3).transpose(0, 1))


def by_phases(
    a: torch.Tensor, weights: list[torch.Tensor], bias: torch.Tensor | None,
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
) -> torch.Tensor:  # fmt: skip
    """Transposed convolution (N, in, h, w) to (N, out, h', w'), every phase an ordinary one."""
    sizes = [transposed.size(n, k, s, p) for n, k, s, p in zip(a.shape[2:], kernel, stride, padding, strict=True)]
    spans = [
        [transposed.span(r, *axis) for r in range(axis[2])] for axis in zip(sizes, kernel, stride, padding, strict=True)
    ]
    left = [max(0, max(-low for low, _ in axis)) for axis in spans]
    right = [max(0, max(high for _, high in axis) - n) for axis, n in zip(spans, a.shape[2:], strict=True)]
    if any(left + right):
        a = functional.pad(a, (left[1], right[1], left[0], right[0]))
    grid = [-(-n // s) for n, s in zip(sizes, stride, strict=True)]
    parts = []
    for ((y0, y1), (x0, x1)), weight in zip(product(*spans), weights, strict=True):
        part = functional.conv2d(a[:, :, left[0] + y0 : left[0] + y1, left[1] + x0 : left[1] + x1], weight)
        parts.append(functional.pad(part, (0, grid[1] - part.shape[3], 0, grid[0] - part.shape[2])))
    out = torch.stack(parts, -1).permute(0, 2, 3, 4, 1).reshape(len(a), *grid, *stride, parts[0].shape[1])
    return _interleaved(out.transpose(2, 3), sizes, bias)


def by_columns(
    a: torch.Tensor, weights: list[torch.Tensor], bias: torch.Tensor | None,
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
) -> torch.Tensor:  # fmt: skip
    """Transposed convolution (N, in, h, w) to (N, out, h', w') by one matrix product and shifted sums."""
    sizes = [transposed.size(n, k, s, p) for n, k, s, p in zip(a.shape[2:], kernel, stride, padding, strict=True)]
    products = functional.conv2d(a, weights[0]).permute(0, 2, 3, 1)
    products = products.reshape(*products.shape[:3], *kernel, -1)  # (N, h, w, taps, taps, out)
    rows = torch.stack(_summed(products, 1, kernel[0], stride[0], padding[0]), 2)  # (N, m, s, w, taps, out)
    out = torch.stack(_summed(rows, 3, kernel[1], stride[1], padding[1]), 4)  # (N, m, s, m', s', out)
    return _interleaved(out, sizes, bias)


def _interleaved(out: torch.Tensor, sizes: list[int], bias: torch.Tensor | None) -> torch.Tensor:
    """(N, m, s, m', s', out) to (N, out, m s, m' s') without the surplus at the ends."""
    n, m, s, l, t, channels = out.shape
    out = out.reshape(n, m * s, l * t, channels)[:, : sizes[0], : sizes[1]]
    return (out if bias is None else out + bias).permute(0, 3, 1, 2)


def _summed(products: torch.Tensor, axis: int, kernel: int, stride: int, padding: int) -> list[torch.Tensor]:
    """Sums by phase over taps, (…, n, …, taps, …), of products moved along `axis` to the output they belong to."""
    n, at = products.shape[axis], 3 if axis == 1 else 4
    m, found = -(-transposed.size(n, kernel, stride, padding) // stride), []
    for r in range(stride):
        parts = [(products.select(at, tap), shift) for tap, shift in transposed.shifts(r, kernel, stride, padding)]
        skip = [0, 0] * (products.dim() - 2 - axis)
        moved = [functional.pad(part, [*skip, shift, m - n - shift]) for part, shift in parts]
        found.append(sum(moved[1:], moved[0]))
    return found
