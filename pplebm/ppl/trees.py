"""Trees of arrays: dicts, tuples and NamedTuples whose leaves are arrays or numbers; data are such trees, by rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to corresponding leaves and keep the structure; None stands for an absent branch.

    >>> tree_map(lambda a, b: a + b, {"a": 1, "b": (2, 3)}, {"a": 10, "b": (20, 30)})
    {'a': 11, 'b': (22, 33)}
    """
    if tree is None:
        return None
    if _is_mapping(tree):
        return {k: tree_map(function, v, *(o[k] for o in others)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [tree_map(function, v, *(o[i] for o in others)) for i, v in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, *others)


def tree_leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """Pairs `(path, leaf)` in order, paths joined by "/".

    >>> tree_leaves({"a": 1, "b": (2, 3)})
    [('a', 1), ('b/0', 2), ('b/1', 3)]
    """
    if tree is None:
        return []
    if _is_mapping(tree):
        children = tree.items()
    elif isinstance(tree, tuple):
        children = zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True)
    else:
        return [(path, tree)]
    before = f"{path}/" if path else ""
    return [found for name, child in children for found in tree_leaves(child, f"{before}{name}")]


def tree_values(tree: Any) -> list[Any]:
    """The leaves of `tree_leaves`, without their paths, in half the time.

    >>> tree_values({"a": 1, "b": (2, 3)})
    [1, 2, 3]
    """
    if tree is None:
        return []
    if not (is_mapping := _is_mapping(tree)) and not isinstance(tree, tuple):
        return [tree]
    return [leaf for child in (tree.values() if is_mapping else tree) for leaf in tree_values(child)]


def tree_fill(tree: Any, leaves: Mapping[str, Any], path: str = "") -> Any:
    """Return `tree` with every leaf replaced by `leaves[path]`; the inverse of `tree_leaves`.

    >>> tree_fill({"a": 0, "b": (0, 0)}, {"a": 1, "b/0": 2, "b/1": 3})
    {'a': 1, 'b': (2, 3)}
    """
    if tree is None:
        return None
    join = (lambda name: f"{path}/{name}") if path else str
    if _is_mapping(tree):
        return {k: tree_fill(v, leaves, join(k)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        parts = [tree_fill(v, leaves, join(n)) for n, v in zip(names, tree, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return leaves[path]


def _is_mapping(tree: Any) -> bool:
    return _maps(type(tree))  # type: ignore[arg-type]  # types are hashable


@functools.cache
def _maps(kind: type) -> bool:
    return issubclass(kind, Mapping)  # asked once: it takes as long as ten of the rest


def n_rows(data: Any) -> int:
    """Rows of data: the length that all their arrays share.

    >>> import numpy as np
    >>> n_rows({"dose": np.zeros(3), "y": np.zeros((3, 2))})
    3
    """
    return len(tree_values(data)[0])


def take_rows(data: Any, index: Any) -> Any:
    """The same data at these rows: a slice, or an array of numbers of the backend.

    >>> import numpy as np
    >>> take_rows((np.arange(3), np.arange(6).reshape(3, 2)), slice(1, 2))
    (array([1]), array([[2, 3]]))
    """
    return tree_map(lambda a: a[index], data)
