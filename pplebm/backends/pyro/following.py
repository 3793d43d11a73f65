"""Which inputs a result was made of, followed operation by operation while a function runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ATEN = torch.ops.aten
_SHAPES_ONLY = frozenset(
    getattr(_ATEN, name).default
    for name in ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros",
                 "new_ones", "new_full", "new_empty")
)  # fmt: skip


class NotFollowed(Exception):
    """A value left torch, as a Python number: what is made of it cannot be known."""


def _memory(a: torch.Tensor) -> int:
    """Where a tensor's numbers are: the same for all views of them."""
    return a.untyped_storage()._cdata


class _Following(TorchDispatchMode):
    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.made_of = {_memory(a): frozenset({name}) for name, a in inputs.items()}
        self._alive: list[Any] = list(inputs.values())  # so that no memory is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [a for a in tree_leaves((args, kwargs or {})) if isinstance(a, torch.Tensor)]
        sources = frozenset().union(*(self.made_of.get(_memory(a), frozenset()) for a in given))
        if sources and func is _ATEN._local_scalar_dense.default:
            raise NotFollowed
        out = func(*args, **(kwargs or {}))
        if sources and func not in _SHAPES_ONLY:
            changed = [a for a in tree_leaves(out) if isinstance(a, torch.Tensor)]
            changed += [given[0]] if func._schema.is_mutable and given else []
            for a in changed:
                self.made_of[_memory(a)] = self.made_of.get(_memory(a), frozenset()) | sources
                self._alive.append(a)
        return out


def made_of(
    function: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], inputs: dict[str, torch.Tensor]
) -> dict[str, set[str]]:
    """Names by result of the inputs whose values, not their shapes alone, it was made of.

    Raises:
        NotFollowed: if a value that depends on an input became a Python number on the way.

    Example:
        >>> found = made_of(lambda a: {"y": a["x"].sum() + 1, "n": torch.zeros_like(a["x"])}, {"x": torch.ones(2)})
        >>> found["y"], found["n"]
        ({'x'}, set())
    """
    copies = {name: a.detach().clone() for name, a in inputs.items()}
    with torch.no_grad(), _Following(copies) as mode:
        found = function(copies)
    return {name: set(mode.made_of.get(_memory(a), frozenset())) for name, a in found.items()}
