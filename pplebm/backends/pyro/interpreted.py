"""A graph of operations run by torch's own interpreter, which goes from one to the next without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch.fx import GraphModule

from pplebm.errors import PplebmWarning

Graph = Callable[..., tuple[torch.Tensor, ...]]


def interpreted(graph: GraphModule, examples: Sequence[torch.Tensor]) -> Graph:
    """The graph for tensors of just these shapes, dtypes and devices; made in a tenth of a second.

    Between small operations Python takes as long as they do. Operations are run as they stand: what torch's interpreter
    would rewrite after a few runs would make the first ones differ from later ones in their last digits. Where the
    graph cannot be taken over, it runs as it is, and a warning says so.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that other ways, which compile, are to be preferred
            script = torch.jit.trace(lambda *tensors: graph.forward(*tensors), tuple(examples), check_trace=False)
    except Exception as error:  # of torch, for operations its interpreter does not know: many types
        what = " ".join(str(error).split("\n\n")[0].split())[:200]
        warnings.warn(f"a graph runs by Python, about half as fast: {what}", PplebmWarning, stacklevel=2)
        return graph.forward

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.jit.optimized_execution(False):
            return script(*tensors)

    return run
