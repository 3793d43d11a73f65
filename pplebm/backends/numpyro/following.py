"""Which inputs a result was made of, followed through the operations of a traced function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters.partial_eval import dce_jaxpr

from pplebm.backends.numpyro.parameters import readable


def made_of(function: Callable[[Any], dict[str, jax.Array]], tree: Any) -> dict[str, set[str]]:
    """By result, paths of the leaves of a tree whose values, not their shapes alone, it was made of.

    Example:
        >>> import jax.numpy as jnp
        >>> found = made_of(lambda a: {"y": a["x"].sum() + 1, "n": jnp.zeros_like(a["x"])}, {"x": jnp.ones(2)})
        >>> found["y"], found["n"]
        ({'x'}, set())
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(tree)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = ["/".join(readable("", [step])[1:] for step in path) for path, _ in leaves]
    names = [path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]
    found = {}
    for i, name in enumerate(names):
        _, used = dce_jaxpr(closed.jaxpr, [j == i for j in range(len(names))])
        found[name] = {path for path, is_used in zip(paths, used, strict=True) if is_used}
    return found
