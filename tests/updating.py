"""The learning loop, update by update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pplebm.learning import loop


def one_by_one(*args: Any, **more: Any) -> Iterator[tuple[loop.Progress, loop.Event]]:
    """Progress after every update, and what became of it."""
    for progress, (event,) in loop.updates(*args, at_most=1, **more):
        yield progress, event
