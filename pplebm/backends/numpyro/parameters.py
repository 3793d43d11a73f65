"""Parameters of a NumPyro program: trees of constrained values in its statements, flat and unconstrained in pplebm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to, constraints

from pplebm.backends.structure import all_there

Arrays = dict[str, jax.Array]


class _Statement(NamedTuple):
    names: tuple[str, ...]  # of the leaves, as a person reads them
    structure: Any  # of their tree
    constraint: Any


class Parameters:
    """The parameter statements of a program, by name, as a first run of it found them."""

    def __init__(self, statements: Mapping[str, Any]) -> None:
        self._statements = {}
        for name, msg in statements.items():
            paths, structure = jax.tree_util.tree_flatten_with_path(msg["value"])
            names = tuple(readable(name, path) for path, _ in paths)
            self._statements[name] = _Statement(names, structure, msg["kwargs"].get("constraint", constraints.real))

    @property
    def constraints(self) -> list[Any]:
        """Of the statements."""
        return [statement.constraint for statement in self._statements.values()]

    def flat(self, values: Mapping[str, Any]) -> Arrays:
        """Unconstrained arrays by readable name, of constrained values by statement.

        Raises:
            PplebmError: if a statement has no value.
        """
        found = {}
        for name in all_there(self._statements, values):
            names, _, constraint = self._statements[name]
            for readable_name, leaf in zip(names, jax.tree.leaves(values[name]), strict=True):
                free = leaf if constraint is constraints.real else biject_to(constraint).inv(leaf)
                found[readable_name] = jnp.asarray(free)
        return found

    def in_supports(self, params: Mapping[str, jax.Array]) -> Arrays:
        """Constrained values by readable name, of statements with a constraint."""
        return {
            name: biject_to(statement.constraint)(params[name])
            for statement in self._statements.values()
            for name in statement.names
            if statement.constraint is not constraints.real
        }

    def constrained(self, params: Mapping[str, jax.Array]) -> dict[str, Any]:
        """The inverse: constrained values by statement."""
        values = {}
        for name, (names, structure, constraint) in self._statements.items():
            leaves = [params[readable_name] for readable_name in names]
            if constraint is not constraints.real:
                leaves = [biject_to(constraint)(leaf) for leaf in leaves]
            values[name] = jax.tree.unflatten(structure, leaves)
        return values


def readable(name: str, path: Any) -> str:
    """Name of a leaf: "net$params" and its path become "net.path"; a plain array keeps its name."""
    parts = [str(getattr(step, "key", getattr(step, "name", getattr(step, "idx", step)))) for step in path]
    return ".".join([name.removesuffix("$params"), *parts])
