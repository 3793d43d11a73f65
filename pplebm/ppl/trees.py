"""Trees of arrays: dicts, tuples and NamedTuples whose leaves are arrays or numbers; data are such trees, by rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to corresponding leaves and keep the structure; None stands for an absent branch.

    >>> tree_map(lambda a, b: a + b, {"a": 1, "b": (2, 3)}, {"a": 10, "b": (20, 30)})
    {'a': 11, 'b': (22, 33)}
    """
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {k: tree_map(function, v, *(o[k] for o in others)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [tree_map(function, v, *(o[i] for o in others)) for i, v in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, *others)


def tree_leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(path, leaf)` pairs, paths joined by "/".

    >>> list(tree_leaves({"a": 1, "b": (2, 3)}))
    [('a', 1), ('b/0', 2), ('b/1', 3)]
    """
    if tree is None:
        return
    if isinstance(tree, Mapping):
        children = list(tree.items())
    elif isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        children = list(zip(names, tree, strict=True))
    else:
        yield path, tree
        return
    for name, child in children:
        yield from tree_leaves(child, f"{path}/{name}" if path else str(name))


def tree_fill(tree: Any, leaves: Mapping[str, Any], path: str = "") -> Any:
    """Return `tree` with every leaf replaced by `leaves[path]`; the inverse of `tree_leaves`.

    >>> tree_fill({"a": 0, "b": (0, 0)}, {"a": 1, "b/0": 2, "b/1": 3})
    {'a': 1, 'b': (2, 3)}
    """
    if tree is None:
        return None
    join = (lambda name: f"{path}/{name}") if path else str
    if isinstance(tree, Mapping):
        return {k: tree_fill(v, leaves, join(k)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        parts = [tree_fill(v, leaves, join(n)) for n, v in zip(names, tree, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return leaves[path]


def n_rows(data: Any) -> int:
    """Rows of data: the length that all their arrays share.

    >>> import numpy as np
    >>> n_rows({"dose": np.zeros(3), "y": np.zeros((3, 2))})
    3
    """
    return len(next(leaf for _, leaf in tree_leaves(data)))


def take_rows(data: Any, index: Any) -> Any:
    """The same data at these rows: a slice, or an array of numbers of the backend.

    >>> import numpy as np
    >>> take_rows((np.arange(3), np.arange(6).reshape(3, 2)), slice(1, 2))
    (array([1]), array([[2, 3]]))
    """
    return tree_map(lambda a: a[index], data)
