"""A network cut in two: its halves, what comes out of the lower one, whitened, and parameters of the upper one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.networks.layers import Dense, Net, shapes

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda a: a,
    "tanh": np.tanh,
    "leaky_relu": lambda a: np.where(a > 0.0, a, 0.2 * a),
}


class Whitened(NamedTuple):
    r"""Vectors in the directions of their largest variance, :math:`h = \mu + L u`, u of mean 0 and variance 1."""

    values: np.ndarray  # u, (n, rank)
    factor: np.ndarray  # L, (numbers of h, rank)
    mean: np.ndarray  # μ, (numbers of h,)


def halves(net: Net, at: int) -> tuple[Net, Net]:
    """The first layers of a net and the rest, cut after `at` layers; none of them: the lower half is the identity.

    Raises:
        PplebmError: where the net has no such layer, or what comes out of it is no vector.

    >>> from pplebm.networks.layers import mlp
    >>> lower, upper = halves(mlp(2, (4, 4), width=8, depth=2), 1)
    >>> [len(half.layers) for half in (lower, upper)], upper.inputs
    ([1, 3], 8)
    """
    if not 0 <= at < len(net.layers):
        raise PplebmError(f"a net of {len(net.layers)} layers cannot be cut after {at} of them.")
    between = shapes(net)[at]
    if len(between) != 1:
        raise PplebmError(f"after {at} layers of the net an event has shape {between}; cut it where it is a vector.")
    return Net(net.inputs, net.layers[:at]), Net(between[0], net.layers[at:])


def activations(lower: Net, params: Mapping[str, Any], z: Any, name: str = "decoder") -> np.ndarray:
    """What the lower half of a network makes of vectors z, (n, numbers of the layer).

    Args:
        lower: of `halves`.
        params: of the program whose network it is half of.
        z: (n, inputs), such as draws of its prior.
        name: of that network in the program.

    Raises:
        PplebmError: for layers that are not dense.

    >>> from pplebm.networks.layers import mlp
    >>> params = {"decoder.weight_0": [[1.0], [-1.0]], "decoder.bias_0": [0.0, 0.5]}
    >>> activations(halves(mlp(1, 4, 2, 1, "leaky_relu"), 1)[0], params, [[2.0]]).tolist()
    [[2.0, -0.3...]]
    """
    h = np.asarray(z, float)
    for i, layer in enumerate(lower.layers):
        if not isinstance(layer, Dense) or layer.activation not in ACTIVATIONS:
            raise PplebmError(f"layer {i} is {layer}; it must be dense, with {', '.join(ACTIVATIONS)} units.")
        weight, bias = (np.asarray(params[f"{name}.{kind}_{i}"], float) for kind in ("weight", "bias"))
        h = ACTIVATIONS[layer.activation](h @ weight.T + bias)
    return h


def whitened(h: np.ndarray, rank: int) -> Whitened:
    r"""Principal components of vectors, each of variance 1.

    .. math:: h \approx \mu + L u, \qquad L = V_r \Lambda_r^{1/2}, \quad \mathrm{cov}(h) = V \Lambda V^\top

    Args:
        h: (n, numbers), n > rank.
        rank: r, the number of directions that are kept, those of most variance.

    Raises:
        PplebmError: for a rank that vectors do not have.

    >>> u, factor, mean = whitened(np.random.default_rng(0).normal([1.0, 2.0], [3.0, 0.5], (1000, 2)), 1)
    >>> u.shape, round(abs(factor[0, 0])), mean.round().tolist()
    ((1000, 1), 3, [1.0, 2.0])
    """
    from sklearn.decomposition import PCA

    most = int(np.linalg.matrix_rank(h - h.mean(0)))
    if not 1 <= rank <= most:
        raise PplebmError(f"rank is {rank}, and {len(h)} vectors of {h.shape[1]} numbers vary in {most} directions.")
    found = PCA(rank, whiten=True, svd_solver="full").fit(h)
    return Whitened(found.transform(h), (found.components_ * found.explained_variance_[:, None] ** 0.5).T, found.mean_)


def handed(
    generator: Mapping[str, Any],
    white: Whitened,
    at: int,
    tilt: Mapping[str, Any] | None = None,
    asarray: Callable[[Any], Any] = np.asarray,
) -> dict[str, Any]:
    """Parameters of the page intermediate_layers, by name.

    Args:
        generator: of a latent_ebm, whose decoder is cut; its tilt, of z, is left out.
        white: of activations of its layer.
        at: layers below the cut.
        tilt: of a data_ebm learned from `white.values`; None for an untilted layer.
        asarray: `ppl.asarray` of the backend.

    >>> white = whitened(np.random.default_rng(0).normal(size=(9, 2)), 2)
    >>> params = {"decoder.weight_0": 0, "decoder.weight_1": 1, "decoder.bias_1": 2, "tilt.weight_0": 3}
    >>> sorted(handed(params, white, 1))
    ['base.bias_0', 'base.weight_0', 'decoder.bias_0', 'decoder.weight_0']
    """
    upper = {}
    for name, value in generator.items():
        kind, _, number = name.removeprefix("decoder.").rpartition("_")
        if name.startswith("decoder.") and int(number) >= at:
            upper[f"decoder.{kind}_{int(number) - at}"] = value
    base = {"base.weight_0": asarray(white.factor), "base.bias_0": asarray(white.mean)}
    return upper | base | {k: v for k, v in (tilt or {}).items() if k.startswith("tilt.")}
