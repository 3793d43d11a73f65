"""Layers as data: one declaration of a network that every backend builds with the same initial weights.

A layer type knows what comes out of it and which weights it has; a backend adds one function for each (`layers.APPLY`).

Layers for images are in `images`, those for sequences in `sequences`; this is where all of them are found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.networks.images import ChannelsFirst as ChannelsFirst
from pplebm.networks.images import ChannelsLast as ChannelsLast
from pplebm.networks.images import Conv as Conv
from pplebm.networks.images import ConvTransposed as ConvTransposed
from pplebm.networks.sequences import Attention as Attention
from pplebm.networks.sequences import Embedding as Embedding
from pplebm.networks.sequences import LayerNorm as LayerNorm
from pplebm.networks.sequences import Positions as Positions
from pplebm.networks.sequences import Recurrent as Recurrent
from pplebm.networks.sequences import SequenceConv as SequenceConv
from pplebm.networks.weights import Shape as Shape
from pplebm.networks.weights import Weights as Weights

ACTIVATIONS = ("linear", "tanh", "silu", "gelu", "leaky_relu")


class Dense(NamedTuple):
    """Affine map of a vector to `units` outputs and an activation: a -> activation(W a + b), W (units, inputs)."""

    units: int
    activation: str = "linear"

    def output(self, shape: Shape, name: str) -> Shape:
        """Shape of the output; what does not fit is refused as that of layer `name`."""
        if len(shape) != 1:
            size = math.prod(shape)
            raise PplebmError(f"{name} needs a vector and got shape {shape}; put Reshape(({size},)) before it.")
        return (self.units,)

    def weights(self, shape: Shape) -> Weights:
        """For inputs of that shape."""
        return Weights((self.units, shape[0]), self.units, shape[0])


class Reshape(NamedTuple):
    """Give an event the shape `shape`; a -> a.reshape(..., *shape)."""

    shape: Shape

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        if math.prod(self.shape) != math.prod(shape):
            raise PplebmError(f"{name} cannot give shape {shape} the shape {self.shape}: numbers of entries differ.")
        return tuple(self.shape)

    def weights(self, shape: Shape) -> None:
        """There are none."""


class Residual(NamedTuple):
    """What layers make of an event, added to it: a -> a + layers(a)."""

    layers: tuple[Layer, ...]

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        after = shapes(Net(shape, self.layers))[-1]
        if after != shape:
            raise PplebmError(f"{name} cannot add shape {after}, which its layers make, to the shape {shape}.")
        return shape

    def weights(self, shape: Shape) -> None:
        """There are none but those of its layers."""


class Skip(NamedTuple):
    """What layers make of a sequence beside it, (..., T, C) to (..., T, C + C'): the skip connection of a U-Net."""

    layers: tuple[Layer, ...]

    def output(self, shape: Shape, name: str) -> Shape:
        """As for `Dense`."""
        after = shapes(Net(shape, self.layers))[-1]
        if after[:-1] != shape[:-1]:
            raise PplebmError(f"{name} cannot put shape {after}, which its layers make, beside the shape {shape}.")
        return (*shape[:-1], shape[-1] + after[-1])

    def weights(self, shape: Shape) -> None:
        """There are none but those of its layers."""


Layer = (
    Dense | Reshape | Conv | ConvTransposed | ChannelsFirst | ChannelsLast | Recurrent | Embedding | Positions
    | SequenceConv | LayerNorm | Attention | Residual | Skip
)  # fmt: skip


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
        at = layer.output(at, f"layer {i}, {type(layer).__name__}(...),")
        found.append(at)
    return found


def checked(net: Net) -> Net:
    """The net, whose shapes fit, as `shapes` says."""
    shapes(net)
    return net


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
    return checked(Net(inputs, (*(Dense(width, activation),) * depth, Dense(size, last), *end)))


def initial_weights(net: Net, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights and biases uniform on ±1/sqrt(fan in), by name and number of their layer: "weight_0", "bias_0", ...

    Those of layers inside layer 2 are "weight_2_0", "bias_2_0", ...
    """
    found = {}
    for i, (layer, before) in enumerate(zip(net.layers, shapes(net), strict=False)):
        weights = layer.weights(before)
        if weights is not None:
            bound = 1.0 / np.sqrt(weights.fan_in)
            found[f"weight_{i}"] = rng.uniform(-bound, bound, weights.weight)
            if weights.bias:
                found[f"bias_{i}"] = rng.uniform(-bound, bound, weights.bias)
        elif isinstance(layer, (Residual, Skip)):
            inner = initial_weights(Net(before, layer.layers), rng)
            found |= {f"{kind}_{i}_{rest}": a for name, a in inner.items() for kind, rest in [name.split("_", 1)]}
    return found


def weights_at(weights: Mapping[str, Any], layer: Layer, i: int) -> list[Any]:
    """Weights of layer i of a net as `layers.APPLY` takes them: its weight and bias, or those inside it by name."""
    if isinstance(layer, (Residual, Skip)):
        of = {kind: f"{kind}_{i}_" for kind in ("weight", "bias")}
        inside = [
            (k, n.removeprefix(start), a) for n, a in weights.items() for k, start in of.items() if n.startswith(start)
        ]
        return [{f"{kind}_{rest}": a for kind, rest, a in inside}]
    return [weights[name] for kind in ("weight", "bias") if (name := f"{kind}_{i}") in weights]
