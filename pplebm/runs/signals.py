"""Signals that end a run: the first one saves, the second one stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

STOPPING = ("SIGTERM", "SIGUSR1")  # a cluster's time limit, a container that is stopped, `kill`; SLURM's warning


class Stopped(KeyboardInterrupt):
    """The end that a signal asked for; to those who wait for Ctrl-C it is one."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return Stopped, (self.number,)  # it may end a process of a pool


class Stop:
    """A wish to stop: raised when its signal comes, or as soon as what must not be cut in two is done."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._is_held = False

    def ask(self, number: int) -> None:
        """Note a signal, and raise it unless it has to wait."""
        self.number = number
        if not self._is_held:
            self.check()

    def check(self) -> None:
        """Raise what came and was not raised, or was lost where Python ignores errors."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Surroundings of what must not be cut in two; a signal that comes meanwhile is raised by the next `check`."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False


@contextlib.contextmanager
def stopping(rank: int = 0) -> Iterator[Stop]:
    """Hear SIGTERM, SIGUSR1 and Ctrl-C until the end of the block, in the main thread; a second one is not caught.

    Processes other than the first leave them to it: they end when they lose it.
    """
    stop, before = Stop(), dict[int, Any]()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heard(number: int, frame: Any) -> None:
        restore()
        stop.ask(number)

    if threading.current_thread() is threading.main_thread():
        for number in [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]:
            if signal.getsignal(number) is not None:  # None: set by another language, and could not be restored
                before[number] = signal.signal(number, signal.SIG_IGN if rank else heard)
        if not rank and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, heard)
    try:
        yield stop
    finally:
        restore()
