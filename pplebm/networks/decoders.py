"""Networks from a vector to data of any shape: perceptrons, transposed convolutions for images and for series."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from pplebm.errors import PplebmError
from pplebm.networks.layers import (
    ChannelsFirst,
    ChannelsLast,
    Conv,
    ConvTransposed,
    Layer,
    Net,
    Reshape,
    Shape,
    checked,
    mlp,
)

Decoder = Literal["dense", "conv"]
SMALLEST = 4  # pixels a side, below which a convolution has nothing to look at
MOST_CHANNELS = 512
SHORTEST = 8  # steps of a series that is short enough for a matrix


def conv_decoder(
    inputs: int, shape: Shape, width: int = 64, activation: str = "leaky_relu", last: str = "linear"
) -> Net:
    """Transposed convolutions from vectors to images of event shape (H, W), (C, H, W) or (H, W, C).

    The first layer makes an image of at most 4 pixels a side, every further one doubles the sides; the last hidden
    layer has `width` channels, each one before it twice as many, up to 512.

    Raises:
        PplebmError: for another shape than that of an image, or sides under 4.

    >>> from pplebm.networks.layers import shapes
    >>> net = conv_decoder(32, (28, 28))
    >>> [s for s in shapes(net)]
    [(32,), (1, 1, 32), (4, 4, 256), (7, 7, 128), (14, 14, 64), (28, 28, 1), (28, 28)]
    """
    sides, channels = pyramid(shape)
    hidden = [min(width * 2**i, MOST_CHANNELS) for i in range(max(len(sides) - 1, 1))][::-1]
    layers: list[Layer] = [Reshape((1, 1, inputs)), ConvTransposed(hidden[0], sides[-1], activation=activation)]
    for i, (small, large) in enumerate(zip(sides[::-1], sides[-2::-1], strict=False), start=1):
        kernel = (4 if large[0] == 2 * small[0] else 3, 4 if large[1] == 2 * small[1] else 3)
        is_last = i == len(sides) - 1
        out, end = (channels, last) if is_last else (hidden[i], activation)
        layers.append(ConvTransposed(out, kernel, 2, 1, end))
    if len(sides) == 1:
        layers.append(Conv(channels, (3, 3), 1, 1, last))
    return checked(Net(inputs, (*layers, *layout(shape)[1])))


def series_decoder(
    inputs: int, shape: Shape, width: int = 32, activation: str = "leaky_relu", last: str = "linear"
) -> Net:
    """Transposed convolutions in time, of stride 2, from vectors to windows (T, C): `series_encoder` backwards.

    The first layer makes a series of 8 steps or fewer, every further one n of 2n + 2 steps, or of 2n + 1; the last
    hidden layer has `width` channels, each one before it twice as many, up to 512.

    Raises:
        PplebmError: for another shape.

    >>> from pplebm.networks.layers import shapes
    >>> shapes(series_decoder(5, (32, 3)))
    [(5,), (1, 1, 5), (7, 1, 64), (15, 1, 32), (32, 1, 3), (32, 3)]
    """
    if len(shape) != 2 or min(shape) < 1:
        raise PplebmError(f"a decoder of series makes windows of shape (T, C), got {tuple(shape)}.")
    lengths = [shape[0]]
    while lengths[0] > SHORTEST:
        lengths.insert(0, (lengths[0] - 1) // 2)
    hidden = [min(width * 2**i, MOST_CHANNELS) for i in range(max(len(lengths) - 1, 1))][::-1]
    layers: list[Layer] = [Reshape((1, 1, inputs)), ConvTransposed(hidden[0], (lengths[0], 1), activation=activation)]
    for i, (short, long) in enumerate(pairwise(lengths), start=1):
        is_last = i == len(lengths) - 1
        channels, end = (shape[1], last) if is_last else (hidden[i], activation)
        layers.append(ConvTransposed(channels, (long - 2 * (short - 1), 1), 2, 0, end))
    if len(lengths) == 1:
        layers.append(Conv(shape[1], (1, 1), activation=last))
    return checked(Net(inputs, (*layers, Reshape(tuple(shape)))))


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
    height, width, channels = layout(shape)[0] if len(shape) in (2, 3) else (0, 0, 0)
    if min(height, width) < SMALLEST:
        raise PplebmError(
            f"convolutions need images of shape (H, W), (C, H, W) or (H, W, C) with sides of {SMALLEST} or more and, "
            f"where they come last, fewer than {SMALLEST} channels, got {shape}; use `mlp`."
        )
    sides = [(height, width)]
    while max(sides[-1]) > SMALLEST and min(sides[-1]) > 1:
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return sides, channels


def layout(shape: Shape) -> tuple[tuple[int, int, int], tuple[Layer, ...], tuple[Layer, ...]]:
    """The shape (H, W, C) of an image, the layers that lead from there to `shape`, and those that lead back.

    Channels come last where the last axis is too short for a side: 3 or fewer.

    >>> layout((28, 28)), layout((32, 32, 3)), layout((3, 32, 32))
    (((28, 28, 1), (Reshape(shape=(28, 28)),), (Reshape(shape=(28, 28, 1)),)),
     ((32, 32, 3), (), ()),
     ((32, 32, 3), (ChannelsFirst(),), (ChannelsLast(),)))
    """
    if len(shape) == 2:
        return (*shape, 1), (Reshape(shape),), (Reshape((*shape, 1)),)  # type: ignore[return-value]
    if shape[-1] < SMALLEST:
        return (shape[0], shape[1], shape[2]), (), ()
    return (shape[1], shape[2], shape[0]), (ChannelsFirst(),), (ChannelsLast(),)
