"""Layers for images, which run through a network channels last, (..., H, W, C).

Data are (H, W) or (C, H, W); `ChannelsFirst` and `ChannelsLast` stand at that border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from pplebm.errors import PplebmError
from pplebm.networks.weights import Shape, Weights


class Conv(NamedTuple):
    """Convolution of (..., H, W, C): side n becomes floor((n + 2 padding - kernel) / stride) + 1.

    Its weights are (out, in, height, width).
    """

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    activation: str = "linear"

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        side = lambda n, k: (n + 2 * self.padding - k) // max(self.stride, 1) + 1
        return _image_after(self, shape, name, side)

    def weights(self, shape: Shape) -> Weights:
        """For images of that shape."""
        return Weights((self.channels, shape[2], *self.kernel), self.channels, shape[2] * math.prod(self.kernel))


class ConvTransposed(NamedTuple):
    """Transposed convolution of (..., H, W, C): side n becomes (n - 1) stride - 2 padding + kernel.

    Its weights are (in, out, height, width).
    """

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    activation: str = "linear"

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        return _image_after(self, shape, name, lambda n, k: (n - 1) * self.stride - 2 * self.padding + k)

    def weights(self, shape: Shape) -> Weights:
        """For images of that shape; taps that meet no pixel do not count."""
        met = math.prod(min(n, max(1.0, k / self.stride)) for n, k in zip(shape[:2], self.kernel, strict=True))
        return Weights((shape[2], self.channels, *self.kernel), self.channels, shape[2] * met)


def _image(shape: Shape, name: str) -> Shape:
    if len(shape) != 3:
        raise PplebmError(f"{name} needs an image (H, W, C) and got shape {shape}; put a Reshape before it.")
    return shape


def _image_after(layer: Conv | ConvTransposed, shape: Shape, name: str, side: Callable[[int, int], int]) -> Shape:
    height, width, _ = _image(shape, name)
    sides = (side(height, layer.kernel[0]), side(width, layer.kernel[1]))
    if min(sides) < 1 or layer.stride < 1 or not 0 <= layer.padding < min(layer.kernel):
        raise PplebmError(
            f"{name} would make {sides[0]} x {sides[1]} pixels of {height} x {width}; it has kernel {layer.kernel}, "
            f"stride {layer.stride}, padding {layer.padding}: stride must be positive and padding less than the kernel."
        )
    return (*sides, layer.channels)


class ChannelsFirst(NamedTuple):
    """(..., H, W, C) to (..., C, H, W), the layout of data."""

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        height, width, channels = _image(shape, name)
        return (channels, height, width)

    def weights(self, shape: Shape) -> None:
        """There are none."""


class ChannelsLast(NamedTuple):
    """(..., C, H, W) to (..., H, W, C)."""

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        channels, height, width = _image(shape, name)
        return (height, width, channels)

    def weights(self, shape: Shape) -> None:
        """There are none."""
