"""A call of `pplebm.sample` as blocks of steps, between which it can be interrupted, and what is kept of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import BASE_WINDOW, windows
from pplebm.kernels.kernel import Info, Kernel, State, Target
from pplebm.kernels.trajectory import Leap, assembled
from pplebm.ppl.language import PPL, Array, Latents, Tree
from pplebm.ppl.trees import tree_leaves
from pplebm.sampling.draws import STANDARD_STATS, Plan
from pplebm.sampling.warmup import warmup_windows


class Block(NamedTuple):
    """Steps that are run at once."""

    n_steps: int
    ends: str  # "window" or "warm-up" of an adapting kernel, or nothing
    metric: bool  # set at the end of the window
    n_draws: int  # kept of the block; 0 during warm-up


class Recorded(NamedTuple):
    """Latents after a step, and the figures of it that are kept."""

    z: Latents
    stats: dict[str, Array]


def recording(kernel: Kernel, extra_fields: Sequence[str]) -> Kernel:
    """The same kernel, its Info the latents after the step and the wanted fields."""

    def recorded(new: State, info: Info) -> tuple[State, Recorded]:
        stats = {name: getattr(info, name) for name in STANDARD_STATS if hasattr(info, name)}
        for name in extra_fields:
            if name not in (*info._fields, *new._fields):
                there = ", ".join(dict.fromkeys((*info._fields, *new._fields)))
                raise PplebmError(f"the kernel has no field '{name}'; extra_fields can be {there}.")
            leaf = getattr(info, name, None) if name in info._fields else getattr(new, name)
            stats |= {path: a for path, a in tree_leaves(leaf, name) if getattr(a, "ndim", 0)}
        return new, Recorded(new.z, stats)

    def move(ppl: PPL, noise: Tree, state: State, log_density: Target) -> tuple[State, Recorded]:
        return recorded(*kernel.move(ppl, noise, state, log_density))

    def end(ppl: PPL, noise: Tree, state: State, at: Leap) -> tuple[State, Recorded]:
        return recorded(*kernel.trajectory.end(ppl, noise, state, at))

    settings = ("recording", kernel.settings, tuple(extra_fields))
    if kernel.trajectory is None:
        return replace(kernel, settings=settings, move=move)
    return assembled(settings, kernel.init, kernel.noise, kernel.trajectory._replace(end=end), kernel.tuning)


def blocks(plan: Plan, most: int, adapts: bool, along_trajectories: bool = False) -> list[Block]:
    """The steps of a call in pieces, most of equal length so that they compile once.

    Args:
        most: draws of one block.
        adapts: whether windows of warm-up end in between.
        along_trajectories: whether these are windows of kernels whose trajectories learn their length.
    """
    found = []
    phases = (warmup_windows if along_trajectories else windows)(plan.n_warmup) if adapts else [(plan.n_warmup, False)]
    for i, (length, metric) in enumerate(phases):
        size = min(BASE_WINDOW, phases[0][0]) if along_trajectories and adapts else BASE_WINDOW
        pieces = [min(size, length - at) for at in range(0, length, size)]
        found += [Block(n, "", False, 0) for n in pieces]
        if adapts:
            found[-1] = found[-1]._replace(ends="warm-up" if i + 1 == len(phases) else "window", metric=metric)
    draws = [min(most, plan.n_draws - at) for at in range(0, plan.n_draws, most)]
    return found + [Block(n * plan.thin, "", False, n) for n in draws]


def block_seed(seed: int, i: int) -> int:
    """Seed of the i-th block: independent of how a call was interrupted."""
    return int(np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)[0] >> np.uint64(1))
