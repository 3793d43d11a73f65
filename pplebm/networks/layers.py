"""Layers as data: one declaration of a network that every backend builds with the same initial weights.

A layer type knows what comes out of it and which weights it has; a backend adds one function for each (`layers.APPLY`).

Images run through a network channels last, (..., H, W, C). Data are (H, W) or (C, H, W); `ChannelsFirst` and
`ChannelsLast` stand at that border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError

ACTIVATIONS = ("linear", "tanh", "silu", "gelu", "leaky_relu")
Shape = tuple[int, ...]


class Weights(NamedTuple):
    """Shapes of a layer's weights, and the number of terms in one of its outputs."""

    weight: Shape
    bias: int
    fan_in: float


class Dense(NamedTuple):
    """Affine map of a vector to `units` outputs and an activation: a -> activation(W a + b), W (units, inputs)."""

    units: int
    activation: str = "linear"

    def output(self, shape: Shape, name: str) -> Shape:
        """Shape of the output; what does not fit is refused as that of layer `name`."""
        if len(shape) != 1:
            size = math.prod(shape)
            raise PplebmError(f"{name} needs a vector and got shape {shape}; put Reshape(({size},)) before it.")
        return (self.units,)

    def weights(self, shape: Shape) -> Weights:
        """For inputs of that shape."""
        return Weights((self.units, shape[0]), self.units, shape[0])


class Reshape(NamedTuple):
    """Give an event the shape `shape`; a -> a.reshape(..., *shape)."""

    shape: Shape

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        if math.prod(self.shape) != math.prod(shape):
            raise PplebmError(f"{name} cannot give shape {shape} the shape {self.shape}: numbers of entries differ.")
        return tuple(self.shape)

    def weights(self, shape: Shape) -> None:
        """There are none."""


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


class Recurrent(NamedTuple):
    r"""Last state of a gated recurrent unit that reads a sequence, (..., T, C), from the state 0.

    .. math:: h \leftarrow (1 - u)\, n + u\, h, \quad n = \tanh(W_n x + b_n + r\, V_n h), \quad
              r, u = \sigma(W x + b + V h)

    Rows of the weights, (3 units, C + units), are those of r, u and n, their columns those of x and h.
    """

    units: int

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        if len(shape) != 2:
            raise PplebmError(f"{name} needs a sequence (T, C) and got shape {shape}; put a Reshape before it.")
        return (self.units,)

    def weights(self, shape: Shape) -> Weights:
        """For sequences of that shape."""
        return Weights((3 * self.units, shape[1] + self.units), 3 * self.units, self.units)


Layer = Dense | Reshape | Conv | ConvTransposed | ChannelsFirst | ChannelsLast | Recurrent


class Net(NamedTuple):
    """A feed-forward network from events of shape `inputs`; a number stands for vectors of that length."""

    inputs: int | Shape
    layers: tuple[Layer, ...]


def shapes(net: Net) -> list[Shape]:
    """Event shapes before the first layer and after each.

    Raises:
        PplebmError: naming the layer, if a shape does not fit or an activation is not known.

    >>> shapes(Net(2, (ConvTransposed(8, (4, 4)), ConvTransposed(1, (4, 4), 2, 1), Reshape((8, 8)))))
    Traceback (most recent call last):
    pplebm.errors.PplebmError: layer 0, ConvTransposed(...), needs an image (H, W, C) and got shape (2,); ...
    """
    at: Shape = (net.inputs,) if isinstance(net.inputs, int) else tuple(net.inputs)
    found = [at]
    for i, layer in enumerate(net.layers):
        activation = getattr(layer, "activation", "linear")
        if activation not in ACTIVATIONS:
            raise PplebmError(f"activation '{activation}' is not known; choose one of {', '.join(ACTIVATIONS)}.")
        at = layer.output(at, f"layer {i}, {type(layer).__name__}(...),")
        found.append(at)
    return found


def checked(net: Net) -> Net:
    """The net, whose shapes fit, as `shapes` says."""
    shapes(net)
    return net


def mlp(
    inputs: int,
    outputs: int | Shape,
    width: int = 128,
    depth: int = 2,
    activation: str = "silu",
    last: str = "linear",
) -> Net:
    """Multilayer perceptron with `depth` hidden layers of `width` units; a tuple of outputs is the shape of an event.

    >>> mlp(4, (8, 8), width=16, depth=1).layers
    (Dense(units=16, activation='silu'), Dense(units=64, activation='linear'), Reshape(shape=(8, 8)))
    """
    end: tuple[Layer, ...] = (Reshape(outputs),) if isinstance(outputs, tuple) else ()
    size = math.prod(outputs) if isinstance(outputs, tuple) else outputs
    return checked(Net(inputs, (*(Dense(width, activation),) * depth, Dense(size, last), *end)))


def initial_weights(net: Net, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights and biases uniform on ±1/sqrt(fan in), by name and number of their layer: "weight_0", "bias_0", ..."""
    found = {}
    for i, (layer, before) in enumerate(zip(net.layers, shapes(net), strict=False)):
        weights = layer.weights(before)
        if weights is not None:
            bound = 1.0 / np.sqrt(weights.fan_in)
            found[f"weight_{i}"] = rng.uniform(-bound, bound, weights.weight)
            found[f"bias_{i}"] = rng.uniform(-bound, bound, weights.bias)
    return found
