"""Networks from data of any shape to a vector of features: vectors, images, windows of a series, sequences."""

from __future__ import annotations

import math

from pplebm.errors import PplebmError
from pplebm.networks.decoders import MOST_CHANNELS, SHORTEST, layout, pyramid
from pplebm.networks.layers import Conv, Dense, Layer, Net, Recurrent, Reshape, Shape, mlp, shapes

KINDS = ("dense", "conv", "series", "recurrent")
SMALLEST_IMAGE = 32  # pixels a side, from which convolutions are the default: they cost XLA's CPU ten perceptrons
LONGEST = 16  # steps of a series, from which convolutions in time are
KERNEL = 4  # steps of a convolution in time


def encoder(
    kind: str | None, shape: Shape, outputs: int, width: int, depth: int, channels: int, activation: str
) -> Net:
    """A network from data of event shape `shape` to `outputs` features, with an activation at its end.

    Args:
        kind: "dense", a perceptron of `depth` layers of `width` units; "conv", convolutions of images; "series",
            convolutions in time of windows, (T,) or (T, C); "recurrent", a gated recurrent unit for sequences, (T,)
            or (T, C). None: convolutions for images from 32 pixels a side on; convolutions in time for 16 steps and
            more of fewer channels; perceptrons for all else.
        channels: of the first convolution.

    Raises:
        PplebmError: for a kind that is not known, or does not fit the shape.

    >>> [encoder(None, shape, 8, 8, 1, 4, "silu").layers[1] for shape in ((28, 28), (32, 32, 3), (64, 3))]
    [Dense(units=8, activation='silu'), Conv(channels=8, kernel=(4, 4), ...), Conv(channels=4, kernel=(4, 1), ...)]
    """
    if kind is None:
        kind = _default(shape)
    if kind == "conv":
        return conv_encoder(shape, outputs, channels, activation, last=activation)
    if kind == "series":
        return series_encoder(shape, outputs, channels, activation, last=activation)
    if kind == "recurrent":
        return recurrent_encoder(shape, outputs, width, last=activation)
    if kind != "dense":
        raise PplebmError(f"encoder '{kind}' is not known; choose one of {', '.join(KINDS)}, or give a Net.")
    size = math.prod(shape)
    return Net(shape, (Reshape((size,)), *mlp(size, outputs, width, max(depth - 1, 0), activation, activation).layers))


def _default(shape: Shape) -> str:
    if len(shape) in (2, 3) and min(layout(shape)[0][:2]) >= SMALLEST_IMAGE:
        return "conv"
    return "series" if len(shape) == 2 and shape[0] >= LONGEST > shape[1] else "dense"


def conv_encoder(
    shape: Shape, outputs: int, width: int = 64, activation: str = "leaky_relu", last: str = "linear"
) -> Net:
    """Convolutions from images of event shape (H, W), (C, H, W) or (H, W, C) to vectors: `conv_decoder` backwards.

    >>> shapes(conv_encoder((3, 32, 32), 10))[:3]
    [(3, 32, 32), (32, 32, 3), (16, 16, 64)]
    """
    sides, channels = pyramid(shape)
    layers: list[Layer] = list(layout(shape)[2])
    for i, large in enumerate(sides[:-1]):
        kernel = (4 if large[0] % 2 == 0 else 3, 4 if large[1] % 2 == 0 else 3)
        channels = min(width * 2**i, MOST_CHANNELS)
        layers.append(Conv(channels, kernel, 2, 1, activation))
    layers += [Reshape((math.prod(sides[-1]) * channels,)), Dense(outputs, last)]
    return Net(tuple(shape), tuple(layers))


def series_encoder(
    shape: Shape, outputs: int, width: int = 32, activation: str = "leaky_relu", last: str = "linear"
) -> Net:
    """Convolutions in time, of 4 steps and stride 2, from windows (T,) or (T, C) to vectors.

    The first has `width` channels, every further one twice as many, up to 512; from 8 steps on a matrix follows.

    Raises:
        PplebmError: for another shape, or windows of fewer than 4 steps.

    >>> shapes(series_encoder((64, 3), 10))
    [(64, 3), (64, 1, 3), (31, 1, 32), (14, 1, 64), (6, 1, 128), (768,), (10,)]
    """
    length, channels = _sequence(shape, KERNEL)
    layers: list[Layer] = [Reshape((length, 1, channels))]
    for i in range(length):
        layers.append(Conv(min(width * 2**i, MOST_CHANNELS), (KERNEL, 1), 2, 0, activation))
        length = (length - KERNEL) // 2 + 1
        if length <= SHORTEST:
            break
    layers += [Reshape((math.prod(shapes(Net(shape, tuple(layers)))[-1]),)), Dense(outputs, last)]
    return Net(tuple(shape), tuple(layers))


def recurrent_encoder(shape: Shape, outputs: int, width: int = 64, last: str = "linear") -> Net:
    """A gated recurrent unit of `width` units over sequences (T,) or (T, C), and a matrix.

    Source: Cho et al. (EMNLP 2014), section 2.3, with the reset after the product.

    >>> shapes(recurrent_encoder((50,), 10))
    [(50,), (50, 1), (64,), (10,)]
    """
    return Net(tuple(shape), (Reshape(_sequence(shape, 1)), Recurrent(width), Dense(outputs, last)))


def _sequence(shape: Shape, shortest: int) -> tuple[int, int]:
    if len(shape) not in (1, 2) or shape[0] < shortest:
        raise PplebmError(f"series have shape (T,) or (T, C) with {shortest} steps or more, got {tuple(shape)}.")
    return shape[0], shape[1] if len(shape) == 2 else 1
