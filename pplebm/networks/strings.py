"""Laws of strings of symbols, given a vector or of their own, as data."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from pplebm.errors import PplebmError
from pplebm.networks.blocks import transformer_block
from pplebm.networks.layers import Embedding, Layer, LayerNorm, Net, Positions, Recurrent, SequenceConv, checked

Reader = Literal["recurrent", "attention"]
END = 0  # the symbol after which a string has no more


class Strings(NamedTuple):
    r"""Law of strings of at most `length` symbols given vectors of `latent` numbers, the same on all backends.

    .. math:: p(x \mid z) = \prod_{t=1}^T p(x_t \mid x_{<t}, z), \qquad
              p(x_t = k \mid x_{<t}, z) = \mathrm{softmax}_k\, g_t(x_{<t}, z),

    until the symbol 0, the end, is met: from there on :math:`x_t = 0` for certain, so that what pads a string counts
    for nothing, and the sum over all strings is 1. At every step g sees z, and of the string what stands before. A
    string of T symbols may have no end. On a page `net[name](z)` is a distribution: a density by one pass over a
    string, draws symbol by symbol.

    Args:
        latent: 0 for strings of their own, a plain language model; `net[name](z)` with z of shape (B, 0).
        symbols: the end among them.
        units: of the network's states, or channels; an even number for attention, which has two heads.
        reader: "recurrent", a gated recurrent unit; "attention", blocks of a causal transformer.
        depth: recurrent units above one another, or blocks.

    >>> [net.layers[0] for net in Strings(latent=2, length=5, symbols=4, units=8).nets()]
    [Embedding(symbols=5, units=8), Recurrent(units=8, all_states=True)]
    """

    latent: int
    length: int
    symbols: int
    units: int
    reader: Reader = "recurrent"
    depth: int = 1

    def nets(self) -> tuple[Net, Net]:
        """From symbols to vectors, with one more that stands before all strings; from these beside z to logits.

        Raises:
            PplebmError: for a reader that is not known.
        """
        if self.reader not in get_args(Reader):
            known = ", ".join(get_args(Reader))
            raise PplebmError(f"strings are read by {known}; '{self.reader}' is not known.")
        layers: list[Layer] = []
        if self.reader == "recurrent":
            layers += [Recurrent(self.units, all_states=True)] * self.depth
        else:
            layers += [SequenceConv(self.units), Positions()]
            for _ in range(self.depth):
                layers += transformer_block(self.units, heads=2)
            layers.append(LayerNorm())
        layers.append(SequenceConv(self.symbols))
        seen = (self.length, self.units + self.latent)
        return Net((self.length,), (Embedding(self.symbols + 1, self.units),)), checked(Net(seen, tuple(layers)))
