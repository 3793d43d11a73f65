"""Chains whose steps are trajectories: one leapfrog step is the graph, so that length costs no tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pplebm.backends.pyro.steps import Step, contiguous, filled
from pplebm.kernels.kernel import Kernel, Target
from pplebm.kernels.trajectory import Leap, Trajectory
from pplebm.ppl.language import PPL, Data, Params, Tree
from pplebm.ppl.trees import tree_map


def leaping(parts: Trajectory) -> Kernel:
    """A kernel whose step is one leapfrog step of a trajectory under way, which is its state."""

    def move(ppl: PPL, noise: Tree, at: Leap, log_density: Target) -> tuple[Leap, tuple[()]]:
        return parts.leap(ppl, at, log_density), ()

    return Kernel(("leap", parts.dynamics), _none, lambda ppl, key, z: {}, move)


def _none(*_: Any) -> Any:
    raise NotImplementedError("a trajectory begins from a chain's state")


def run_trajectories(
    ppl: PPL, made: Callable[[Kernel, Leap], Step], kernel: Kernel, state: Any, keys: Any, params: Params, data: Data
) -> Any:
    """Last state, and infos stacked by trajectory.

    Args:
        made: the graph of one leapfrog step, for a trajectory under way.
    """
    parts, rows = kernel.trajectory, []
    leap, step, fixed = leaping(parts), None, ()
    with torch.no_grad():
        for key in keys:
            noise = kernel.noise(ppl, key, state.z)
            at = parts.begin(ppl, noise, state)
            if step is None:
                step = made(leap, at)
                fixed = step.before(*contiguous((params, data)))
            leaves = contiguous(at)
            for _ in range(int(at.left.max())):
                leaves = list(step.graph(*fixed, *leaves)[: step.n_state])
            state, info = parts.end(ppl, noise, state, filled(step.state, leaves))
            rows.append(info)
    return state, tree_map(lambda *a: torch.stack(a), *rows) if rows else None
