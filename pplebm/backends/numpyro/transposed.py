"""Transposed convolutions in JAX, images (N, h, w, in), weights (in, out, height, width).

XLA runs the usual form, a convolution of the image spread out by the stride, well on accelerators. On a CPU one product
of matrices, all taps of all pixels at once, followed by shifted sums (`pplebm.backends.transposed`), is faster, and so
is its transpose; they take memory for that product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pplebm.backends import transposed

MOST = 2**24  # numbers in the product, 64 MiB: beyond, memory costs more than is gained


def fits(image: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether the columns are defined, every phase having a tap, and small enough to be worth while."""
    n, height, width, _ = image
    _, channels, *k = kernel
    return (
        1 < stride <= min(k) and padding <= min(height, width) and n * height * width * channels * k[0] * k[1] <= MOST
    )


def spread(a: jax.Array, weight: jax.Array, stride: int, padding: int) -> jax.Array:
    """Transposed convolution by a convolution of the image spread out by the stride."""
    edges = [(k - 1 - padding,) * 2 for k in weight.shape[2:]]
    flipped = jax.lax.optimization_barrier(weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1))
    return jax.lax.conv_general_dilated(
        a, flipped, (1, 1), edges, lhs_dilation=(stride,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_columns(a: jax.Array, weight: jax.Array, stride: int, padding: int) -> jax.Array:
    """Transposed convolution by one matrix product and shifted sums."""
    inputs, channels, *kernel = weight.shape
    sizes = [transposed.size(n, k, stride, padding) for n, k in zip(a.shape[1:3], kernel, strict=True)]
    matrix = jax.lax.optimization_barrier(weight.transpose(0, 2, 3, 1).reshape(inputs, -1))
    products = (a.reshape(-1, inputs) @ matrix).reshape(*a.shape[:3], *kernel, channels)
    rows = jnp.stack(_summed(products, 1, 3, kernel[0], stride, padding), 2)  # (N, m, s, w, taps, out)
    out = jnp.stack(_summed(rows, 3, 4, kernel[1], stride, padding), 4)  # (N, m, s, m', s, out)
    n, m, s, l, t, _ = out.shape
    return out.reshape(n, m * s, l * t, channels)[:, : sizes[0], : sizes[1]]


def _summed(products: jax.Array, axis: int, at: int, kernel: int, stride: int, padding: int) -> list[jax.Array]:
    """Sums by phase over the taps, which are at axis `at`, of products moved along `axis` to their output."""
    n, found = products.shape[axis], []
    m = -(-transposed.size(n, kernel, stride, padding) // stride)
    for r in range(stride):
        total: jax.Array | float = 0.0
        for tap, shift in transposed.shifts(r, kernel, stride, padding):
            part = jax.lax.index_in_dim(products, tap, at, keepdims=False)
            around = [(0, 0, 0)] * part.ndim
            around[axis] = (shift, m - n - shift, 0)  # negative: cut off
            total = total + jax.lax.pad(part, jnp.zeros((), part.dtype), around)
        found.append(jnp.asarray(total))
    return found


def back_by_columns(gradient: jax.Array, weight: jax.Array, stride: int, padding: int) -> jax.Array:
    """Gradient with respect to the image, (N, h, w, in), by one matrix product."""
    inputs, channels, *kernel = weight.shape
    n, *sizes, _ = gradient.shape
    h, w = ((size + 2 * padding - k) // stride + 1 for size, k in zip(sizes, kernel, strict=True))
    around = jnp.pad(gradient, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    columns = [
        jax.lax.slice(around, (0, y, x, 0), (n, y + stride * (h - 1) + 1, x + stride * (w - 1) + 1, channels),
                      (1, stride, stride, 1))
        for y in range(kernel[0]) for x in range(kernel[1])
    ]  # fmt: skip
    matrix = jax.lax.optimization_barrier(weight.transpose(2, 3, 1, 0).reshape(-1, inputs))
    return (jnp.stack(columns, 3).reshape(n * h * w, -1) @ matrix).reshape(n, h, w, inputs)
