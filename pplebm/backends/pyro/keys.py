"""Random keys in torch: integers, so that they can be stored, compared and split without side effects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pplebm.ppl.trees import tree_map

Path = tuple[tuple[int, int], ...]  # of splits, each into how many keys, and which of them


class Notes:
    """Notes of what a function draws from a key, in order, so that a graph of it can be given the draws."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, Any]] = []  # which key, and a tree like the draw
        self.is_complete = True  # whether the key was used for nothing else
        self._given: Iterator[Any] | None = None

    def key(self, key: int, given: tuple[Any, ...] | None = None) -> Noted:
        """The key, whose draws are noted, or given if there are any to give."""
        self._given = None if given is None else iter(given)
        return Noted(key, self, ())

    def draw(self, key: Noted, tree: Any) -> Any:
        """A draw from a key of these notes."""
        if self._given is not None:
            return next(self._given)
        self.asked.append((key.path, tree_map(torch.zeros_like, tree)))
        return normal_like(int(key), tree)

    def draws(self, key: int) -> tuple[Any, ...]:
        """All that is drawn from another key."""
        made: dict[Path, int] = {(): key}

        def follow(path: Path) -> int:
            if path not in made:
                n, i = path[-1]
                made[path] = split(follow(path[:-1]), n)[i]
            return made[path]

        return tuple(normal_like(follow(path), tree) for path, tree in self.asked)


class Noted(int):
    """A key whose draws are noted."""

    notes: Notes
    path: Path

    def __new__(cls, key: int, notes: Notes, path: Path) -> Noted:
        made = super().__new__(cls, key)
        made.notes, made.path = notes, path
        return made


def key(seed: int | list[int]) -> Any:
    """Make a key from a seed, or keys from several."""
    return [int(s) for s in seed] if isinstance(seed, list) else int(seed)


def split(key: int, n: int = 2) -> list[int]:
    """Derive n independent keys."""
    words = np.random.SeedSequence(int(key)).generate_state(n, np.uint64)
    keys = [int(w >> np.uint64(1)) for w in words]
    return [Noted(k, key.notes, (*key.path, (n, i))) for i, k in enumerate(keys)] if isinstance(key, Noted) else keys


def normal_like(key: int, tree: Any) -> Any:
    """Draw a tree of standard normal arrays with the shapes of `tree`, on the CPU, so that devices agree."""
    if isinstance(key, Noted):
        return key.notes.draw(key, tree)
    generator = torch.Generator().manual_seed(key)
    return tree_map(lambda a: torch.randn(a.shape, generator=generator, dtype=a.dtype).to(a.device), tree)


@contextlib.contextmanager
def seeded(key: int) -> Iterator[None]:
    """Torch's global generator, on which Pyro draws, seeded for a while and then as it was."""
    if isinstance(key, Noted):
        key.notes.is_complete = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key % 2**63)
        yield
