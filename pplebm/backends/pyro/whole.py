"""A whole function, its draws and gradients included, as one graph of torch operations: an update of learning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as distributed

from pplebm.backends.pyro.graphs import elsewhere, operations
from pplebm.backends.pyro.keys import Notes
from pplebm.backends.pyro.passes import simplify, writes
from pplebm.backends.pyro.steps import KINKS, TOLERANCE, compile_graph, contiguous
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.language import ChainOptions
from pplebm.ppl.trees import tree_fill, tree_leaves, tree_map

Function = Callable[..., Any]  # of a key and trees of tensors, the first of them parameters


def compiled(function: Function, whole: ChainOptions | None = None) -> Function:
    """The function itself, whose densities are compiled one by one here; or one graph of it.

    With `whole`, and where chains are compiled as well, a graph is made once for every shape of its arguments, a key
    and trees of tensors, and checked against a plain run: that takes seconds, which a short run would not earn back.
    Processes that learn together, which exchange numbers inside, run the function itself.
    """
    if whole is None or not whole.compiled:
        return function
    graphs: dict[Any, Function] = {}

    def run(key: int, *trees: Any) -> Any:
        if distributed.is_available() and distributed.is_initialized():
            return function(key, *trees)
        shapes = tuple((path, a.shape, a.dtype, a.device) for path, a in tree_leaves(trees))
        if shapes not in graphs:
            graphs[shapes] = _graph(function, key, trees, whole.compiled)
        return graphs[shapes](key, *trees)

    return run


def _graph(function: Function, key: int, trees: Any, is_compiled: bool) -> Function:
    """One graph, or the function itself where there can be none."""
    notes = Notes()
    out = function(notes.key(key), *trees)
    if not notes.is_complete:  # it draws from Pyro's own statements
        return function
    structure = tree_map(lambda a: None, out)
    inputs = (trees, notes.draws(key))
    paths = [path for path, _ in tree_leaves(inputs)]

    def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        trees, noise = tree_fill(inputs, dict(zip(paths, tensors, strict=True)))
        found = function(notes.key(key, noise), *trees)
        return tuple(torch.as_tensor(leaf).contiguous() for _, leaf in tree_leaves(found))

    with torch.no_grad():
        graph = operations(flat, *contiguous(inputs))
        simple = graph if writes(graph) else _simplified(graph)
        forward = _compiled(simple, contiguous(inputs)) if is_compiled else simple.forward
        _check(flat, forward, inputs)
    del structure
    names = [path for path, _ in tree_leaves(out)]

    def run(key: int, *trees: Any) -> Any:
        with torch.no_grad():
            found = forward(*contiguous((trees, notes.draws(key))))
        return tree_fill(out, dict(zip(names, found, strict=True)))

    return run


def _simplified(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    simplify(graph, differentiable=False)
    return graph


def _compiled(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Function:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's compiler imports deprecated torch
            return compile_graph(graph, examples)
    except Exception as error:  # no C++ compiler, or a defect of the torch compiler: many types
        what = " ".join(str(error).split("\n\n")[0].split())
        warnings.warn(
            f"an update could not be compiled and runs by its uncompiled graph: {what}", PplebmWarning, stacklevel=2
        )
        return graph.forward


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
