"""Processes that learn one model together: what the learning loop asks of them, and the case of one alone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any, Protocol

from pplebm.errors import PplebmError
from pplebm.ppl.trees import tree_map


class Parallel(Protocol):
    """Processes or devices that share every batch; made by `PPL.parallel`.

    Every device holds all weights, its rows of the batch and their chains. What differs between devices is averaged
    by `PPL.average` in the algorithm page, so that all do the same update.
    """

    rank: int  # of this process; the first, 0, writes the files
    size: int  # devices in all

    def launch(self, function: Callable[..., Any], *args: Any) -> Any:
        """Start the processes where they are not running yet, and call function(self, *args) in each."""

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """Surroundings of the updates: the device or devices."""

    def alone(self) -> contextlib.AbstractContextManager[Any]:
        """Inside `around`, surroundings of what this process does alone, on `local` copies."""

    def share(self, x: Any) -> Any:
        """The rows of a block of batches, along the second axis, that this process works on, as its arrays."""

    def key(self, keys: Any) -> Any:
        """The random numbers of this process, for those of all."""

    def same(self, tree: Any) -> Any:
        """The first process's values, on every device."""

    def local(self, tree: Any) -> Any:
        """A copy that this process can use alone."""

    def check_same(self, tree: Any) -> None:
        """Compare the values of all processes.

        Raises:
            PplebmError: if they differ.
        """


class Alone:
    """One process on one device."""

    rank, size = 0, 1

    def __init__(self, asarray: Callable[[Any], Any]) -> None:
        self.share = lambda data: tree_map(asarray, data)

    def launch(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self, *args)

    def around(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    alone = around

    def key(self, keys: Any) -> Any:
        return keys

    def same(self, tree: Any) -> Any:
        return tree

    def local(self, tree: Any) -> Any:
        return tree

    def check_same(self, tree: Any) -> None:
        """There is nothing to compare with."""


def check_counts(devices: int, nodes: int) -> None:
    """Refuse numbers of devices that are none.

    Raises:
        PplebmError: if one is not positive.
    """
    for name, value in (("devices", devices), ("nodes", nodes)):
        if value < 1:
            raise PplebmError(f"{name} must be positive, got {value}.")


def check_batch(batch_size: int, size: int) -> None:
    """Refuse a batch that cannot be split evenly.

    Raises:
        PplebmError: if it cannot.
    """
    if batch_size % size:
        fits = max(size, batch_size // size * size)
        raise PplebmError(
            f"a batch of {batch_size} cannot be split evenly over {size} devices; use --set batch_size={fits}."
        )


def leave_interrupts_to_the_first(rank: int) -> None:
    """Ctrl-C reaches all processes; the first saves, and the others end when they lose it."""
    if rank and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
