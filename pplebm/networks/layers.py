"""Layers as data: one declaration of a network that every backend builds with the same initial weights.

Images run through a network channels last, (..., H, W, C). Data are (H, W) or (C, H, W); `ChannelsFirst` and
`ChannelsLast` stand at that border.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np

from pplebm.errors import PplebmError

ACTIVATIONS = ("linear", "tanh", "silu", "gelu", "leaky_relu")
Shape = tuple[int, ...]
SMALLEST = 4  # pixels a side, below which a convolution has nothing to look at
MOST_CHANNELS = 512


class Dense(NamedTuple):
    """Affine map of a vector to `units` outputs and an activation: a -> activation(W a + b)."""

    units: int
    activation: str = "linear"


class Reshape(NamedTuple):
    """Give an event the shape `shape`; a -> a.reshape(..., *shape)."""

    shape: Shape


class Conv(NamedTuple):
    """Convolution of (..., H, W, C): side n becomes floor((n + 2 padding - kernel) / stride) + 1."""

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    activation: str = "linear"


class ConvTransposed(NamedTuple):
    """Transposed convolution of (..., H, W, C): side n becomes (n - 1) stride - 2 padding + kernel."""

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    activation: str = "linear"


class ChannelsFirst(NamedTuple):
    """(..., H, W, C) to (..., C, H, W), the layout of data."""


class ChannelsLast(NamedTuple):
    """(..., C, H, W) to (..., H, W, C)."""


class Recurrent(NamedTuple):
    r"""Last state of a gated recurrent unit that reads a sequence, (..., T, C), from the state 0.

    .. math:: h \leftarrow (1 - u)\, n + u\, h, \quad n = \tanh(W_n x + b_n + r\, V_n h), \quad
              r, u = \sigma(W x + b + V h)

    Rows of the weights, (3 units, C + units), are those of r, u and n, their columns those of x and h.
    """

    units: int


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
        at = _after(layer, at, f"layer {i}, {type(layer).__name__}(...),")
        found.append(at)
    return found


def _after(layer: Layer, at: Shape, who: str) -> Shape:
    if isinstance(layer, Reshape):
        if math.prod(layer.shape) != math.prod(at):
            raise PplebmError(f"{who} cannot give shape {at} the shape {layer.shape}: the numbers of entries differ.")
        return tuple(layer.shape)
    if isinstance(layer, Dense):
        if len(at) != 1:
            raise PplebmError(f"{who} needs a vector and got shape {at}; put Reshape(({math.prod(at)},)) before it.")
        return (layer.units,)
    if isinstance(layer, Recurrent):
        if len(at) != 2:
            raise PplebmError(f"{who} needs a sequence (T, C) and got shape {at}; put a Reshape before it.")
        return (layer.units,)
    if len(at) != 3:
        raise PplebmError(f"{who} needs an image (H, W, C) and got shape {at}; put a Reshape before it.")
    if isinstance(layer, ChannelsFirst):
        return (at[2], at[0], at[1])
    if isinstance(layer, ChannelsLast):
        return (at[1], at[2], at[0])
    transposed = isinstance(layer, ConvTransposed)
    sides = tuple(
        (n - 1) * layer.stride - 2 * layer.padding + k
        if transposed
        else (n + 2 * layer.padding - k) // max(layer.stride, 1) + 1
        for n, k in zip(at[:2], layer.kernel, strict=True)
    )
    if min(sides) < 1 or layer.stride < 1 or not 0 <= layer.padding < min(layer.kernel):
        raise PplebmError(
            f"{who} would make {sides[0]} x {sides[1]} pixels of {at[0]} x {at[1]}; it has kernel {layer.kernel}, "
            f"stride {layer.stride}, padding {layer.padding}: stride must be positive and padding less than the kernel."
        )
    return (*sides, layer.channels)


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
    return _checked(Net(inputs, (*(Dense(width, activation),) * depth, Dense(size, last), *end)))


def conv_decoder(
    inputs: int, shape: Shape, width: int = 64, activation: str = "leaky_relu", last: str = "linear"
) -> Net:
    """Transposed convolutions from vectors to images of event shape (H, W) or (C, H, W).

    The first layer makes an image of at most 4 pixels a side, every further one doubles the sides; the last hidden
    layer has `width` channels, each one before it twice as many, up to 512.

    Raises:
        PplebmError: for another shape than that of an image, or sides under 4.

    >>> net = conv_decoder(32, (28, 28))
    >>> [s for s in shapes(net)]
    [(32,), (1, 1, 32), (4, 4, 256), (7, 7, 128), (14, 14, 64), (28, 28, 1), (28, 28)]
    """
    sides, channels = pyramid(shape)
    hidden = [min(width * 2**i, MOST_CHANNELS) for i in range(max(len(sides) - 1, 1))][::-1]
    layers: list[Layer] = [Reshape((1, 1, inputs)), ConvTransposed(hidden[0], sides[-1], activation=activation)]
    for i, (small, large) in enumerate(zip(sides[::-1], sides[-2::-1], strict=False), start=1):
        kernel = tuple(4 if n == 2 * m else 3 for m, n in zip(small, large, strict=True))
        is_last = i == len(sides) - 1
        out, end = (channels, last) if is_last else (hidden[i], activation)
        layers.append(ConvTransposed(out, kernel, 2, 1, end))  # type: ignore[arg-type]
    if len(sides) == 1:
        layers.append(Conv(channels, (3, 3), 1, 1, last))
    layers.append(ChannelsFirst() if len(shape) == 3 else Reshape(shape))
    return _checked(Net(inputs, tuple(layers)))


Decoder = Literal["dense", "conv"]


def decoder(
    kind: str, inputs: int, shape: Shape, channels: int, width: int, depth: int, activation: str, last: str = "linear"
) -> Net:
    """`mlp` of `depth` layers of `width` units for "dense", `conv_decoder` of `channels` for "conv".

    Raises:
        PplebmError: for another kind, or for "conv" and an event that is no image.
    """
    if kind not in get_args(Decoder):
        raise PplebmError(f"decoder '{kind}' is not known; choose one of {', '.join(get_args(Decoder))}.")
    if kind == "conv":
        return conv_decoder(inputs, shape, channels, activation, last)
    return mlp(inputs, shape, width, depth, activation, last)


def pyramid(shape: Shape) -> tuple[list[tuple[int, int]], int]:
    """Sides of the image, halved (upwards) until they are 4 or less, and its channels."""
    if len(shape) not in (2, 3) or min(shape[-2:]) < SMALLEST:
        raise PplebmError(
            f"convolutions need images of shape (H, W) or (C, H, W) with sides of {SMALLEST} or more, got {shape}; "
            f"use `mlp`."
        )
    sides = [(shape[-2], shape[-1])]
    while max(sides[-1]) > SMALLEST and min(sides[-1]) > 1:
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return sides, shape[0] if len(shape) == 3 else 1


def _checked(net: Net) -> Net:
    shapes(net)
    return net


def initial_weights(net: Net, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Weights and biases uniform on ±1/sqrt(fan in), layer by layer; layers without weights give an empty dict.

    Weights of a `Dense` layer are (out, in), of a `Recurrent` one (3 units, C + units), of a `Conv` (out, in, height,
    width), of a `ConvTransposed` (in, out, height, width). Fan in is the number of terms in one output.
    """
    weights: list[dict[str, np.ndarray]] = []
    for layer, before in zip(net.layers, shapes(net), strict=False):
        form: Shape
        if isinstance(layer, Dense):
            form, fan_in, out = (layer.units, before[0]), float(before[0]), layer.units
        elif isinstance(layer, Recurrent):
            form, fan_in, out = (3 * layer.units, before[1] + layer.units), float(layer.units), 3 * layer.units
        elif isinstance(layer, Conv):
            form, out = (layer.channels, before[2], *layer.kernel), layer.channels
            fan_in = float(before[2] * math.prod(layer.kernel))
        elif isinstance(layer, ConvTransposed):
            form, out = (before[2], layer.channels, *layer.kernel), layer.channels
            met = math.prod(min(n, max(1.0, k / layer.stride)) for n, k in zip(before[:2], layer.kernel, strict=True))
            fan_in = before[2] * met
        else:
            weights.append({})
            continue
        bound = 1.0 / np.sqrt(fan_in)
        weights.append({"weight": rng.uniform(-bound, bound, form), "bias": rng.uniform(-bound, bound, out)})
    return weights
