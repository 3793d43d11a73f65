"""The density of a program as a graph of torch operations: traced once per shape, checked against an eager run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from pplebm.backends.pyro.passes import simplify, writes
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.language import Data
from pplebm.ppl.trees import tree_fill, tree_leaves, tree_map, tree_values

Tensors = dict[str, torch.Tensor]
Terms = Callable[[Tensors, Tensors, Any], Tensors]  # of weights, latents and data


def operations(function: Callable[..., Any], *examples: torch.Tensor) -> torch.fx.GraphModule:
    """Graph of the operations of a function, run at these tensors.

    Torch notes shape and layout of every value by a mode, and without a common one makes one for each, which takes as
    long as all the rest.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*examples)


def compile_graph(eager: Terms, params: Tensors, z: Tensors, data: Data) -> Terms:
    """Graph of a function of weights, latents and data that runs the model.

    Where the model cannot be traced (control flow on values) the eager function is used and a warning says so.

    Raises:
        PplebmError: if graph and eager run disagree at other weights, latents and data.
    """
    params, z = ({n: t.detach() for n, t in tree.items()} for tree in (params, z))
    check_deterministic(eager, params, z, data)
    names, n_params, paths = [*params, *z], len(params), [path for path, _ in tree_leaves(data)]
    outputs: list[str] = []

    def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same without dicts, whose unpacking would cost at every step."""
        named = list(zip(names, tensors, strict=False))
        given = tree_fill(data, dict(zip(paths, tensors[len(names) :], strict=True)))
        terms = eager(dict(named[:n_params]), dict(named[n_params:]), given)
        outputs[:] = list(terms)
        return tuple(terms.values())

    try:
        graph = operations(flat, *params.values(), *z.values(), *tree_values(data))
    except PplebmError as error:
        warnings.warn(
            f"the density could not be traced and runs eagerly, several times slower: {error}",
            PplebmWarning,
            stacklevel=2,
        )
        return eager
    if not writes(graph):
        simplify(graph)
    forward, param_names, z_names = graph.forward, names[:n_params], names[n_params:]

    def compiled(params: Tensors, z: Tensors, data: Data) -> Tensors:
        given = tree_values(data)
        tensors = [*(params[n] for n in param_names), *(z[n] for n in z_names), *given]
        return dict(zip(outputs, forward(*tensors), strict=True))

    _check_agreement(eager, compiled, params, z, data)
    return compiled


def check_deterministic(eager: Terms, params: Tensors, z: Tensors, data: Data) -> None:
    with torch.no_grad():
        first, second = eager(params, z, data), eager(params, z, data)
    for name in first:
        if not torch.equal(first[name].nan_to_num(), second[name].nan_to_num()):
            raise PplebmError(
                f"site '{name}' has a random log density (dropout in training mode?): two runs of the model at the "
                f"same latents disagree; make the networks deterministic, for instance with .eval()."
            )


def elsewhere(tree: Tensors, size: float) -> Tensors:
    """The same tree with normal noise of that size added."""
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t.device) for n, t in tree.items()}
    return {n: t + size * noise[n] for n, t in tree.items()}


def rolled(data: Data) -> Any:
    """The same data, every row in the place of the next one."""
    return tree_map(lambda a: a.roll(1, 0), data)


def _check_agreement(eager: Terms, graph: Terms, params: Tensors, z: Tensors, data: Data) -> None:
    """Compare at inputs that differ from those the graph was traced at."""
    params, z = elsewhere(params, 0.01), elsewhere(z, 1.0)
    data = rolled(data)
    with torch.no_grad():
        expected, got = eager(params, z, data), graph(params, z, data)
    for name, value in expected.items():
        tolerance = 1e-3 if value.dtype == torch.float32 else 1e-8
        difference = (got[name].nan_to_num() - value.nan_to_num()).abs()
        worst = (difference / (1 + value.nan_to_num().abs())).max().item()
        if worst > tolerance:
            raise PplebmError(
                f"the compiled log density of site '{name}' disagrees with an eager run (relative difference "
                f"{worst:.1e}): the model branches on values or keeps state between calls; write it with torch.where."
            )
