"""Layers for sequences, (..., T, C): steps first, channels last. All but `Recurrent` leave the steps what they are."""

from __future__ import annotations

from typing import NamedTuple

from pplebm.errors import PplebmError
from pplebm.networks.weights import Shape, Weights


def _sequence(shape: Shape, name: str) -> Shape:
    if len(shape) != 2:
        raise PplebmError(f"{name} needs a sequence (T, C) and got shape {shape}; put a Reshape before it.")
    return shape


class Recurrent(NamedTuple):
    r"""Last state of a gated recurrent unit that reads a sequence, (..., T, C), from the state 0; or all its states.

    .. math:: h \leftarrow (1 - u)\, n + u\, h, \quad n = \tanh(W_n x + b_n + r\, V_n h), \quad
              r, u = \sigma(W x + b + V h)

    Rows of the weights, (3 units, C + units), are those of r, u and n, their columns those of x and h.
    """

    units: int
    all_states: bool = False  # (..., T, units): the state after every step

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        steps = _sequence(shape, name)[:1]
        return (*steps, self.units) if self.all_states else (self.units,)

    def weights(self, shape: Shape) -> Weights:
        """For sequences of that shape."""
        return Weights((3 * self.units, shape[1] + self.units), 3 * self.units, self.units)


class Embedding(NamedTuple):
    """A vector of `units` numbers for every symbol: integers 0..symbols - 1, (..., T), to (..., T, units).

    Its weights are (symbols, units), without a bias. A number that is no symbol is refused in torch, which raises, and
    gives nan in JAX, which cannot.
    """

    symbols: int
    units: int

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        if len(shape) != 1:
            raise PplebmError(f"{name} needs strings of symbols (T,) and got shape {shape}; put a Reshape before it.")
        return (*shape, self.units)

    def weights(self, shape: Shape) -> Weights:
        """For strings of any length."""
        return Weights((self.symbols, self.units), 0, 1)


class Positions(NamedTuple):
    """A vector of its own added at every step; without it attention does not know the order of steps."""

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        return _sequence(shape, name)

    def weights(self, shape: Shape) -> Weights:
        """For sequences of that shape, (T, C), without a bias."""
        return Weights(shape, 0, 1)


class SequenceConv(NamedTuple):
    r"""Convolution in time that keeps the steps; a kernel of 1 is an affine map of its own at every step.

    .. math:: y_t = b + \sum_{k=0}^{K-1} W_k\, x_{t - d (K - 1 - k) + o}, \qquad x_t = 0 \text{ outside } 0..T-1

    with dilation d; the offset o is 0 where it is causal, and centres the kernel otherwise. Its weights
    are (out, in, K).
    """

    channels: int
    kernel: int = 1
    causal: bool = True
    dilation: int = 1
    activation: str = "linear"

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        if min(self.kernel, self.dilation) < 1:
            raise PplebmError(f"{name} has kernel {self.kernel}, dilation {self.dilation}; both must be positive.")
        return (_sequence(shape, name)[0], self.channels)

    def weights(self, shape: Shape) -> Weights:
        """For sequences of that shape."""
        return Weights((self.channels, shape[1], self.kernel), self.channels, shape[1] * self.kernel)

    def padding(self) -> tuple[int, int]:
        """Steps of zeros before and after."""
        around = self.dilation * (self.kernel - 1)
        after = 0 if self.causal else around // 2
        return around - after, after


class LayerNorm(NamedTuple):
    r"""Channels of every step brought to mean 0 and variance 1; the scale is left to the layer that follows.

    .. math:: y = (x - \bar x) / \sqrt{\mathrm{var}(x) + 10^{-5}}
    """

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        return shape

    def weights(self, shape: Shape) -> None:
        """There are none."""


class Attention(NamedTuple):
    r"""Self-attention of every step to itself and those before it, or to all.

    .. math:: y_t = b + \sum_h W^o_h \sum_{s \le t} a^h_{ts}\, v^h_s, \qquad
              a^h_{ts} \propto \exp(q^h_t \cdot k^h_s / \sqrt{C / H})

    with H heads of C / H channels each. Weights are (4 C, C): rows of queries, keys, values and the output.

    Source: Vaswani et al. (NeurIPS 2017), equation 1 and section 3.2.2.
    """

    heads: int = 1
    causal: bool = True

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        if self.heads < 1 or _sequence(shape, name)[1] % self.heads:
            raise PplebmError(f"{name} cannot share {shape[1]} channels among {self.heads} heads evenly.")
        return shape

    def weights(self, shape: Shape) -> Weights:
        """For sequences of that shape."""
        return Weights((4 * shape[1], shape[1]), 4 * shape[1], shape[1])
