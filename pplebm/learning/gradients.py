"""Norms of gradients, and clipping."""

from __future__ import annotations

from pplebm.ppl.language import PPL, Array, Params


def norm(gradient: Params, like: Array) -> Array:
    """Euclidean norm over all parameters, a scalar; zero for none, of the kind of the scalar `like`."""
    total = 0.0 * like
    for g in gradient.values():
        total = total + g.reshape(-1) @ g.reshape(-1)  # compiles faster than a sum of squares
    return total**0.5


def clip(ppl: PPL, gradient: Params, max_norm: float) -> tuple[Params, Array]:
    """Shorten a gradient to `max_norm` where it is longer; returns it and its norm before.

    >>> import torch, pplebm.backends.pyro as ppl
    >>> clipped, length = clip(ppl, {"a": torch.tensor([3.0, 4.0])}, max_norm=1.0)
    >>> clipped["a"].tolist(), length.item()
    ([0.6000000238418579, 0.800000011920929], 5.0)
    """
    length = norm(gradient, like=next(iter(gradient.values())).sum())
    shrink = ppl.where(length > max_norm, max_norm / length, 1.0 + 0.0 * length)
    return {name: shrink * g for name, g in gradient.items()}, length
