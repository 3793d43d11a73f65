"""A graph of operations run by torch's own interpreter, which goes from one to the next without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from pplebm.errors import PplebmWarning

Run = Callable[..., tuple[torch.Tensor, ...]]


def interpreted(graph: GraphModule, examples: Sequence[torch.Tensor]) -> Run:
    """The graph for tensors of just these shapes, dtypes and devices; made in a tenth of a second.

    Between small operations Python takes as long as they do. Operations are run as they stand: what torch's interpreter
    would rewrite after a few runs would make the first ones differ from later ones in their last digits. Where the
    graph cannot be taken over, it runs as it is, and a warning says so.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that other ways, which compile, are to be preferred
            known = _with_known_arguments(graph)
            script = torch.jit.trace(lambda *tensors: known.forward(*tensors), tuple(examples), check_trace=False)
    except Exception as error:  # of torch, for operations its interpreter does not know: many types
        what = " ".join(str(error).split("\n\n")[0].split())[:200]
        warnings.warn(f"a graph runs by Python, about half as fast: {what}", PplebmWarning, stacklevel=2)
        return graph.forward

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.jit.optimized_execution(False):
            return script(*tensors)

    return run


def _with_known_arguments(graph: GraphModule) -> GraphModule:
    """The graph, its operations on lists of truth values, which torch does not trace, each as a script of its own."""
    known = Graph()
    known.output(known.graph_copy(graph.graph, {}))
    known.eliminate_dead_code()
    for node in known.nodes:
        if isinstance(node.target, OpOverload) and any(map(_is_truths, node.args)):
            node.target, node.args = _script(node), tuple(node.all_input_nodes)
    return GraphModule(graph, known)


def _script(node: Node) -> Run:
    """What a node does to its tensors, as a script that gives the results in use; other ones may not be there."""
    named = {parent: f"a{i}" for i, parent in enumerate(node.all_input_nodes)}
    arguments = ", ".join(named[a] if isinstance(a, Node) else repr(a) for a in node.args)
    users: list[Any] = list(node.users)  # each takes one result
    used = sorted({user.args[1] for user in users})
    for user in users:
        user.args = (node, used.index(user.args[1]))
    operation, results = str(node.target).rpartition(".")[0], "".join(f"found[{i}], " for i in used)
    lines = (
        f"def run({', '.join(named.values())}):", f"    found = torch.ops.{operation}({arguments})",
        f"    return ({results})", "",
    )  # fmt: skip
    return _function_of(torch.jit.CompilationUnit("\n".join(lines)).run)


def _function_of(script: Any) -> Run:
    """A script as a function, which has a name to stand in a graph."""

    def run(*tensors: torch.Tensor) -> Any:
        return script(*tensors)

    return run


def _is_truths(argument: object) -> bool:
    return isinstance(argument, list) and any(isinstance(part, bool) for part in argument)
