"""Networks from a vector to data of any shape: perceptrons, and transposed convolutions for images."""

from __future__ import annotations

from typing import Literal, get_args

from pplebm.errors import PplebmError
from pplebm.networks.layers import ChannelsFirst, Conv, ConvTransposed, Layer, Net, Reshape, Shape, checked, mlp

Decoder = Literal["dense", "conv"]
SMALLEST = 4  # pixels a side, below which a convolution has nothing to look at
MOST_CHANNELS = 512


def conv_decoder(
    inputs: int, shape: Shape, width: int = 64, activation: str = "leaky_relu", last: str = "linear"
) -> Net:
    """Transposed convolutions from vectors to images of event shape (H, W) or (C, H, W).

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
    layers.append(ChannelsFirst() if len(shape) == 3 else Reshape(shape))
    return checked(Net(inputs, tuple(layers)))


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
