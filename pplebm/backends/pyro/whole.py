"""A whole function, its draws and gradients included, as one graph of torch operations: an update of learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as distributed

from pplebm.backends.pyro.graphs import elsewhere, operations
from pplebm.backends.pyro.interpreted import interpreted
from pplebm.backends.pyro.keys import Notes
from pplebm.backends.pyro.passes import share, simplify, writes
from pplebm.backends.pyro.steps import KINKS, TOLERANCE, contiguous, filled
from pplebm.errors import PplebmError
from pplebm.ppl.language import ChainOptions
from pplebm.ppl.trees import tree_fill, tree_leaves, tree_values

Function = Callable[..., Any]  # of a key and trees of tensors, the first of them parameters


def compiled(function: Function, whole: ChainOptions | None = None) -> Function:
    """The function itself, whose densities are compiled one by one here; or one graph of it.

    With `whole`, and where chains are compiled, a graph is made once for every shape of its arguments, a key and trees
    of tensors, and checked against a plain run: that takes seconds, which a short run would not earn back. It is
    interpreted: torch's compiler would take half a minute to save one millisecond an update.
    Processes that learn together, which exchange numbers inside, run the function itself.
    """
    if whole is None or not whole.compiled:
        return function
    graphs: dict[Any, Callable[[int, list[Any]], Any] | None] = {}

    def run(key: int, *trees: Any) -> Any:
        if distributed.is_available() and distributed.is_initialized():
            return function(key, *trees)
        given = tree_values(trees)
        shapes = tuple((a.shape, a.dtype, a.device) for a in given)
        if shapes not in graphs:
            graphs[shapes] = _graph(function, key, trees)
        graph = graphs[shapes]
        return function(key, *trees) if graph is None else graph(key, given)

    return run


def _graph(function: Function, key: int, trees: Any) -> Callable[[int, list[Any]], Any] | None:
    """A function of a key and leaves by one graph; None where there can be none."""
    notes = Notes()
    out = function(notes.key(key), *trees)
    if not notes.is_complete:  # it draws from Pyro's own statements
        return None
    inputs = (trees, notes.draws(key))
    paths = [path for path, _ in tree_leaves(inputs)]

    def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        trees, noise = tree_fill(inputs, dict(zip(paths, tensors, strict=True)))
        found = function(notes.key(key, noise), *trees)
        return tuple(torch.as_tensor(leaf).contiguous() for leaf in tree_values(found))

    with torch.no_grad():
        examples = [leaf.clone() for leaf in contiguous(inputs)]  # a tensor that stands in two places would become one
        graph = operations(flat, *examples)
        forward = graph.forward if writes(graph) else interpreted(_simplified(graph), examples)
        _check(flat, forward, inputs)

    def run(key: int, given: list[Any]) -> Any:
        with torch.no_grad():
            found = forward(*(a.contiguous() for a in given), *contiguous(notes.draws(key)))
        return filled(out, found)

    return run


def _simplified(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    simplify(graph, differentiable=False)
    share(graph)  # parts of a loss run the same networks at the same latents
    return graph


def _check(plain: Function, graph: Function, inputs: Any) -> None:
    """Compare with a plain run at other parameters than the graph was made at."""
    (params, *others), noise = inputs
    moved = contiguous(((elsewhere(params, 0.01), *others), noise))
    off = total = 0
    for a, b in zip(plain(*moved), graph(*moved), strict=True):
        if a.is_floating_point():
            a, b = a.nan_to_num(), b.nan_to_num()
            off += int(((a - b).abs() > TOLERANCE.get(a.dtype, 1e-3) * (1 + a.abs())).sum())
            total += a.numel()
    if off > KINKS * total:
        raise PplebmError(
            f"the graph of an update disagrees with a plain run in {off} of {total} numbers: the model branches on "
            f"values or keeps state between calls; write it with torch.where."
        )
