"""Rewrites of a traced graph that leave its values as they are: folding, and work done once for a whole chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tag
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

_ATEN = torch.ops.aten
_RESHAPING = (_ATEN.expand.default, _ATEN.permute.default, _ATEN.view.default)


def writes(graph: GraphModule) -> bool:
    """Whether an operation writes into memory that others read: such a graph must be left as it is."""
    schemas = (getattr(node.target, "_schema", None) for node in graph.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def simplify(graph: GraphModule, differentiable: bool = True) -> None:
    """Compute once what depends on no input, and drop what changes nothing: reshapings and, if allowed, detachings."""
    constants: dict[Node, torch.Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            constants[node] = getattr(graph, node.target)
        elif node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            if node.all_input_nodes and all(parent in constants for parent in node.all_input_nodes):
                _fold(graph, node, constants)
            elif _is_identity(node) or (node.target is _ATEN.detach.default and not differentiable):
                node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def share(graph: GraphModule) -> None:
    """Do once what a graph of pure operations does twice to the same values."""
    first: dict[Any, Node] = {}
    for node in list(graph.graph.nodes):
        if node.op not in ("call_function", "get_attr"):
            continue
        if isinstance(node.target, OpOverload) and Tag.nondeterministic_seeded in node.target.tags:
            continue
        key = (node.op, node.target, _typed(node.args), _typed(node.kwargs))
        if first.setdefault(key, node) is not node:
            node.replace_all_uses_with(first[key])
            graph.graph.erase_node(node)
    graph.recompile()


def _typed(argument: Any) -> Any:
    """An argument that can be looked up, in which 1, 1.0 and True are three."""
    if isinstance(argument, Mapping):
        return tuple((name, _typed(value)) for name, value in argument.items())
    if isinstance(argument, (list, tuple, slice)):
        parts = (argument.start, argument.stop, argument.step) if isinstance(argument, slice) else argument
        return type(argument), *map(_typed, parts)
    return argument if isinstance(argument, Node) else (type(argument), argument)


def _fold(graph: GraphModule, node: Node, constants: dict[Node, torch.Tensor]) -> None:
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda parent: constants[parent])
    name = f"_folded_{len(constants)}"
    graph.register_buffer(name, node.target(*args, **kwargs).detach())  # type: ignore[operator]
    with graph.graph.inserting_before(node):
        folded = graph.graph.get_attr(name)
    folded.meta = dict(node.meta)
    constants[folded] = getattr(graph, name)
    node.replace_all_uses_with(folded)


def _is_identity(node: Node) -> bool:
    if node.target not in _RESHAPING:
        return False
    source = node.args[0].meta.get("val")  # type: ignore[union-attr]
    if not isinstance(source, torch.Tensor) or source.shape != node.meta["val"].shape:
        return False
    dims = node.args[1] if node.target is _ATEN.permute.default else ()
    return list(dims) == list(range(len(dims)))  # type: ignore[arg-type]


def hoist(graph: GraphModule, n_fixed: int) -> tuple[GraphModule, GraphModule]:
    """Split off what depends on the first `n_fixed` inputs only, so that a loop over the others does it once.

    Returns:
        `before` of the fixed inputs, whose outputs are the first inputs of `rest`, followed by the other inputs.
    """
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    fixed = dict.fromkeys(inputs[:n_fixed])
    for node in nodes:
        parents = [parent for parent in node.all_input_nodes if parent.op != "get_attr"]
        if node.op == "call_function" and parents and all(parent in fixed for parent in parents):
            fixed[node] = None
    passed = [node for node in fixed if any(user not in fixed for user in node.users)]
    before, rest = Graph(), Graph()
    there: dict[Node, Node] = {}
    for node in nodes:
        if node in fixed or (node.op == "get_attr" and any(user in fixed for user in node.users)):
            there[node] = before.node_copy(node, lambda n: there[n])
    before.output(tuple(there[node] for node in passed))
    here: dict[Node, Node] = {node: rest.placeholder(f"fixed_{i}") for i, node in enumerate(passed)}
    for node in nodes:
        if node not in fixed:
            here[node] = rest.node_copy(node, lambda n: here[n])
    for part in (before, rest):
        part.eliminate_dead_code()
    return GraphModule(graph, before), GraphModule(graph, rest)
