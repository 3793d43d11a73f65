"""Normalizing flows as data: conditional ones, which every backend builds of its library's own, and coupling layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.networks.layers import Net, mlp
from pplebm.ppl.language import Array

MOST_STRETCH = 2.0  # |s| of a layer stays below: a factor of e^2


class Flow(NamedTuple):
    r"""The law of a vector given what a network makes of the data, 2 `size` numbers: mean μ and scale before softplus.

    .. math:: z = \mu + \sigma\, w, \quad w = T(\epsilon), \quad \epsilon \sim N(0, I)

    In Pyro T is a neural spline flow of zuko that sees these numbers as well, in NumPyro an inverse autoregressive
    flow that does not; weights of one do not open in the other.

    Source: Durkan et al. (NeurIPS 2019); Kingma et al. (NeurIPS 2016).
    """

    size: int
    width: int  # of the hidden layer
    n_transforms: int
    scale_floor: float  # least σ


class Coupling(NamedTuple):
    r"""Law of a vector of its own: normal noise through affine coupling layers, the same weights on all backends.

    .. math:: z = T(u), \quad u \sim N(0, I), \qquad
              T_i: u \mapsto m_i u + (1 - m_i)\,(u\, e^{s_i(m_i u)} + t_i(m_i u)), \qquad |s_i| < 2

    with :math:`m_i` every second coordinate, in turn. On a page `net[name]()` is a distribution.

    Source: Dinh, Sohl-Dickstein, Bengio (ICLR 2017), equations 7 and 8.

    >>> [net.layers[-1].units for net in Coupling(size=3, width=8, depth=1, n_layers=2).nets()]
    [6, 6]
    """

    size: int  # two or more
    width: int  # of hidden layers
    depth: int  # hidden layers of a coupling layer's net
    n_layers: int  # two or more change every coordinate

    def nets(self) -> list[Net]:
        """Networks of the layers, each from a vector to s before its bound, and t.

        Raises:
            PplebmError: for a vector of one number, where nothing is left to condition on.
        """
        if self.size < 2:
            raise PplebmError(f"a coupling layer splits its vector, so it needs two numbers or more, got {self.size}.")
        return [mlp(self.size, 2 * self.size, self.width, self.depth) for _ in range(self.n_layers)]

    def kept(self) -> list[np.ndarray]:
        """Coordinates that a layer leaves alone, 1.0 or 0.0 each."""
        return [(np.arange(self.size) + i) % 2.0 for i in range(self.n_layers)]


Step = tuple[Callable[[Array], Array], Array]  # a coupling layer: its net, and the coordinates that it leaves alone


def through(steps: Sequence[Step], exp: Callable[[Array], Array], a: Array, backwards: bool = False) -> Array:
    """Vectors, (..., size), after all layers; backwards, the noise that leads to them."""
    for net, kept in reversed(steps) if backwards else steps:
        s, t = _stretch_and_shift(net, kept, a)
        a = kept * a + (1.0 - kept) * ((a - t) * exp(-s) if backwards else a * exp(s) + t)
    return a


def log_det(steps: Sequence[Step], exp: Callable[[Array], Array], u: Array) -> Array:
    r"""Logarithm :math:`\log|\partial z / \partial u|` at noise, (...)."""
    total: Array = 0.0 * u.sum(-1)
    for net, kept in steps:
        s, t = _stretch_and_shift(net, kept, u)
        u, total = kept * u + (1.0 - kept) * (u * exp(s) + t), total + s.sum(-1)
    return total


def _stretch_and_shift(net: Callable[[Array], Array], kept: Array, a: Array) -> tuple[Array, Array]:
    h, size = net(kept * a), a.shape[-1]
    s, t = h[..., :size] * (1.0 - kept), h[..., size:] * (1.0 - kept)
    return s / (1.0 + abs(s) / MOST_STRETCH), t
