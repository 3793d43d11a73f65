"""Conditional normalizing flows as data, which every backend builds of its library's own flows."""

from __future__ import annotations

from typing import NamedTuple


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
