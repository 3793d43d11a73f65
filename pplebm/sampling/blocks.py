"""A call of `pplebm.sample` as blocks of steps, between which it can be interrupted, and what is kept of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import BASE_WINDOW, windows
from pplebm.kernels.kernel import Info, Kernel, State, Target
from pplebm.kernels.trajectory import Leap, assembled
from pplebm.ppl.language import PPL, Array, Latents, Tree
from pplebm.ppl.trees import tree_leaves
from pplebm.sampling.draws import STANDARD_STATS, Plan
from pplebm.sampling.warmup import warmup_windows

UNITS_PER_SPLIT = 8


class Block(NamedTuple):
    """Steps that are run at once."""

    n_steps: int
    ends: str  # "window" or "warm-up" of an adapting kernel, or nothing
    metric: bool  # set at the end of the window
    n_draws: int  # kept of the block; 0 during warm-up
    at: int  # blocks before it during warm-up, draws after


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


def warm_up(plan: Plan, adapts: bool, along_trajectories: bool = False) -> list[Block]:
    """The steps before the first draw in pieces, most of equal length so that they compile once.

    Args:
        adapts: whether windows of warm-up end in between.
        along_trajectories: whether these are windows of kernels whose trajectories learn their length.
    """
    found: list[Block] = []
    phases = (warmup_windows if along_trajectories else windows)(plan.n_warmup) if adapts else [(plan.n_warmup, False)]
    size = min(BASE_WINDOW, phases[0][0]) if along_trajectories and phases else BASE_WINDOW
    for i, (length, metric) in enumerate(phases):
        pieces = [min(size, length - at) for at in range(0, length, size)]
        found += [Block(n, "", False, 0, len(found) + j) for j, n in enumerate(pieces)]
        if adapts:
            found[-1] = found[-1]._replace(ends="warm-up" if i + 1 == len(phases) else "window", metric=metric)
    return found


def draw_blocks(plan: Plan, made: int, unit: int, most: int) -> list[Block]:
    """The draws that are left in blocks.

    Args:
        made: draws there are.
        unit: steps that are run together. Blocks end with one where they can.
        most: draws of one block, unless they are of one unit.

    Example:
        >>> plan = Plan("", "", 4, 1, 25, 0, 2, 0, (), 4)
        >>> [(block.at, block.n_draws) for block in draw_blocks(plan, 3, 10, 12)]
        [(3, 7), (10, 10), (20, 5)]
    """
    least = unit // math.gcd(unit, plan.thin)
    length, found = least * max(1, most // least), []
    while made < plan.n_draws:
        n = min(length - made % length, plan.n_draws - made)
        found.append(Block(n * plan.thin, "", False, n, made))
        made += n
    return found


def unit_keys(ppl: PPL, plan: Plan, i: int, unit: int, n_before: int) -> Any:
    """A key for every step of the i-th unit after warm-up, whose blocks are `n_before`."""
    number, first = n_before + i // UNITS_PER_SPLIT, i % UNITS_PER_SPLIT * unit
    return ppl.split(ppl.key(block_seed(plan.seed, number + 1)), UNITS_PER_SPLIT * unit)[first : first + unit]


def block_seed(seed: int, i: int) -> int:
    """The i-th seed of a call: independent of how a call was cut or interrupted."""
    return int(np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_seed(seed: int, i: int) -> int:
    """Seed of the i-th batch of data: that of the call for the first."""
    sequence = np.random.SeedSequence(seed, spawn_key=(i,))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)) if i else seed
