"""Layers as data: one declaration of a network that every backend builds with the same initial weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError

ACTIVATIONS = ("linear", "tanh", "silu", "gelu", "leaky_relu")


class Dense(NamedTuple):
    """Affine map to `units` outputs and an activation: a -> activation(W a + b)."""

    units: int
    activation: str = "linear"


class Reshape(NamedTuple):
    """Give the last axis the shape `shape`; a -> a.reshape(..., *shape)."""

    shape: tuple[int, ...]


class Net(NamedTuple):
    """A feed-forward network from vectors of length `inputs`."""

    inputs: int
    layers: tuple[Dense | Reshape, ...]


def mlp(
    inputs: int,
    outputs: int | tuple[int, ...],
    width: int = 128,
    depth: int = 2,
    activation: str = "silu",
    last: str = "linear",
) -> Net:
    """Multilayer perceptron with `depth` hidden layers of `width` units; a tuple of outputs is the shape of an event.

    >>> mlp(4, (8, 8), width=16, depth=1).layers
    (Dense(units=16, activation='silu'), Dense(units=64, activation='linear'), Reshape(shape=(8, 8)))
    """
    for name in (activation, last):
        if name not in ACTIVATIONS:
            raise PplebmError(f"activation '{name}' is not known; choose one of {', '.join(ACTIVATIONS)}.")
    hidden: tuple[Dense | Reshape, ...] = (Dense(width, activation),) * depth
    if isinstance(outputs, tuple):
        return Net(inputs, (*hidden, Dense(int(np.prod(outputs)), last), Reshape(outputs)))
    return Net(inputs, (*hidden, Dense(outputs, last)))


def initial_weights(net: Net, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Weights and biases uniform on ±1/sqrt(fan in), layer by layer; layers without weights give an empty dict."""
    weights: list[dict[str, np.ndarray]] = []
    fan_in = net.inputs
    for layer in net.layers:
        if isinstance(layer, Dense):
            bound = 1.0 / np.sqrt(fan_in)
            weights.append(
                {
                    "weight": rng.uniform(-bound, bound, (layer.units, fan_in)),
                    "bias": rng.uniform(-bound, bound, layer.units),
                }
            )
            fan_in = layer.units
        else:
            weights.append({})
    return weights
