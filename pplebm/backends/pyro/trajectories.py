"""Chains whose steps are trajectories: one leapfrog step is a graph, so that length costs no tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pplebm.backends.pyro.graphs import operations
from pplebm.backends.pyro.interpreted import interpreted
from pplebm.backends.pyro.passes import simplify
from pplebm.backends.pyro.steps import Step, contiguous, filled
from pplebm.kernels.kernel import Kernel, Target
from pplebm.kernels.trajectory import Leap, Trajectory
from pplebm.ppl.language import PPL, Data, Params, Tree
from pplebm.ppl.trees import tree_fill, tree_leaves

Leaves = list[torch.Tensor]


def leaping(parts: Trajectory) -> Kernel:
    """A kernel whose step is one leapfrog step of a trajectory under way, which is its state."""

    def move(ppl: PPL, noise: Tree, at: Leap, log_density: Target) -> tuple[Leap, tuple[()]]:
        return parts.leap(ppl, at, log_density), ()

    return Kernel(("leap", parts.dynamics), lambda ppl, at, log_density: at, lambda ppl, key, z: {}, move)


class Ends:
    """The two ends of a trajectory as graphs: what happens before its first leapfrog step, and after its last.

    Args:
        ppl: the backend.
        parts: of the kernel.
        noise, state: examples; only their shapes matter.
    """

    def __init__(self, ppl: PPL, parts: Trajectory, noise: Tree, state: Any) -> None:
        self.first, self.leap = _graph(lambda noise, state: parts.begin(ppl, noise, state), noise, state)
        self.last, self.out = _graph(lambda *trees: parts.end(ppl, *trees), noise, state, self.leap)
        self.left = [path.split("/")[-1] for path, _ in tree_leaves(self.leap)].index("left")  # also of a leap within


def _graph(function: Callable[..., Any], *trees: Any) -> tuple[Callable[..., Any], Any]:
    """A function of leaves to leaves, and the tree that these are those of."""
    paths, found = [path for path, _ in tree_leaves(trees)], list[Any]()

    def flat(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found[:] = [function(*tree_fill(trees, dict(zip(paths, leaves, strict=True))))]
        return tuple(contiguous(found[0]))

    with torch.no_grad():
        examples = [leaf.clone() for leaf in contiguous(trees)]  # a tensor that stands in two places would become one
        graph = operations(flat, *examples)
        simplify(graph, differentiable=False)
        run = interpreted(graph, examples)
        return run, filled(found[0], run(*examples))


def run_trajectories(
    ppl: PPL,
    step_of: Callable[[Kernel, Leap], Step],
    ends_of: Callable[[Tree], Ends],
    kernel: Kernel,
    state: Any,
    keys: Any,
    params: Params,
    data: Data,
) -> Any:
    """Last state, and infos stacked by trajectory. The loop handles flat lists only, as `run_steps` does.

    Args:
        step_of: the graph of one leapfrog step, for an example of a trajectory under way.
        ends_of: the graphs of its two ends, for an example of noise.
    """
    if not len(keys):
        return state, None
    at, rows = contiguous(state), list[Leaves]()
    n_state = len(at)
    with torch.no_grad():
        ends = ends_of(kernel.noise(ppl, keys[0], state.z))
        step = step_of(leaping(kernel.trajectory), ends.leap)
        fixed = step.before(*contiguous((params, data)))
        for key in keys:
            noise = contiguous(kernel.noise(ppl, key, state.z))
            leaves = list(ends.first(*noise, *at))
            for _ in range(int(leaves[ends.left].max())):
                leaves = list(step.graph(*fixed, *leaves)[: step.n_state])
            out = ends.last(*noise, *at, *leaves)
            at = list(out[:n_state])
            rows.append(list(out[n_state:]))
        columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return filled(ends.out[0], at), filled(ends.out[1], columns)
