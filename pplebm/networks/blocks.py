"""What nets for sequences are made of: a block of a transformer, and a U-Net in time."""

from __future__ import annotations

from pplebm.errors import PplebmError
from pplebm.networks.layers import Attention, Layer, LayerNorm, Net, Reshape, Residual, SequenceConv, Skip, checked

KERNEL = 3  # steps that a convolution of a U-Net sees


def transformer_block(
    channels: int, heads: int = 1, width: int | None = None, causal: bool = True
) -> tuple[Layer, ...]:
    r"""Layers from sequences of `channels` channels to the like: attention, then a perceptron at every step.

    .. math:: a \leftarrow a + \mathrm{attention}(\mathrm{norm}(a)), \qquad a \leftarrow a + W' g(W\, \mathrm{norm}(a))

    Args:
        width: hidden units of the perceptron, with gelu; four for every channel if left out.
        causal: whether a step is seen by itself and later ones alone.

    Source: Vaswani et al. (NeurIPS 2017), section 3, with norms before the layers: Xiong et al. (ICML 2020).

    >>> from pplebm.networks.layers import shapes
    >>> shapes(Net((5, 4), (*transformer_block(4, heads=2), *transformer_block(4))))[-1]
    (5, 4)
    """
    hidden = SequenceConv(4 * channels if width is None else width, activation="gelu")
    return (
        Residual((LayerNorm(), Attention(heads, causal))),
        Residual((LayerNorm(), hidden, SequenceConv(channels))),
    )


def unet(length: int, channels: int, width: int, levels: int = 1, activation: str = "silu") -> Net:
    """A network from sequences (T, C) to the like, that sees them at T, T/2, T/4, ... steps.

    Two steps become one of twice the channels, and back; what a level begins with stands beside what comes back to it.

    Args:
        length: T, which can be halved `levels` times.
        width: channels inside, at every level.

    Raises:
        PplebmError: for a length that cannot be halved so often.

    Source: Ronneberger, Fischer, Brox (MICCAI 2015), figure 1, with convolutions in time.

    >>> from pplebm.networks.layers import shapes
    >>> shapes(unet(8, 2, width=4, levels=2))
    [(8, 2), (8, 4), (8, 8), (8, 2)]
    """
    if length % 2**levels:
        raise PplebmError(f"{length} steps cannot be halved {levels} times; give a multiple of {2**levels}, or fewer.")
    last = SequenceConv(channels, KERNEL, causal=False)
    return checked(Net((length, channels), (*_levels(length, width, levels, activation), last)))


def _levels(length: int, width: int, levels: int, activation: str) -> tuple[Layer, ...]:
    """Layers from sequences of any channels to those of `width`, or twice as many where there is a level below."""
    conv, half = SequenceConv(width, KERNEL, causal=False, activation=activation), length // 2
    if not levels:
        return (conv,)
    below = _levels(half, width, levels - 1, activation)
    both = (Reshape((half, 2 * width)), *below, conv._replace(channels=2 * width), Reshape((length, width)))
    return conv, Skip(both)
