"""Candidates that there are, by key, and those that run here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pplebm.errors import PplebmError

from .candidate import Candidate, Skipped
from .sizes import Size

KEYS = ("a", "a-1", "original", "b-torch", "b-jax", "c", "c-bf16", "d", "d-sharded")


class Choice(NamedTuple):
    """Choice of the user."""

    only: tuple[str, ...] | None = None  # keys
    reference: str | None = None
    compiled: bool = True

    def wants(self, key: str) -> bool:
        """Whether a candidate is asked for; (a) always is, since ratios are to it."""
        if key == "original":
            return self.reference is not None
        return self.only is None or key in self.only or key.startswith("a")


def expanded(words: Sequence[str]) -> tuple[str, ...]:
    """Keys as they are, and for a letter all keys that begin with it.

    Raises:
        PplebmError: for a word that is neither.
    """
    for word in words:
        if word not in KEYS and word != "b":
            raise PplebmError(f"--only {word}: there is no such candidate; choose from b, {', '.join(KEYS)}.")
    return tuple(key for key in KEYS if any(key == w or (len(w) == 1 and key.startswith(w)) for w in words))


def devices(size: Size) -> int:
    """The most devices, up to one a core, that the batch can be split over evenly."""
    return max(n for n in range(1, (os.cpu_count() or 1) + 1) if size.batch % n == 0)


def make(key: str, size: Size, place: str, choice: Choice) -> Candidate:
    """One candidate.

    Raises:
        Skipped: if it cannot run here.
    """
    import torch

    from .by_hand import ByHandTorch
    from .by_hand_jax import ByHandJax
    from .original import Original
    from .ours import OnNumPyro, OnPyro
    from .published import Published

    if key == "a-1" and (place != "cpu" or torch.get_num_threads() == 1):
        raise Skipped("the same as (a)")
    if key == "d-sharded" and (place != "cpu" or devices(size) == 1):
        raise Skipped("there is one device")
    makers: dict[str, Callable[[], Candidate]] = {
        "a": lambda: Published(size, place),
        "a-1": lambda: Published(size, place, threads=1),
        "original": lambda: Original(size, place, str(choice.reference)),
        "b-torch": lambda: ByHandTorch(size, place, choice.compiled),
        "b-jax": lambda: ByHandJax(size, place),
        "c": lambda: OnPyro(size, place, compiled=choice.compiled),
        "c-bf16": lambda: OnPyro(size, place, "bf16", choice.compiled),
        "d": lambda: OnNumPyro(size, place),
        "d-sharded": lambda: OnNumPyro(size, place, devices(size)),
    }
    return makers[key]()


def roster(size: Size, place: str, choice: Choice) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates that run here, and why the others do not."""
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    for key in KEYS:
        if not choice.wants(key):
            continue
        try:
            found.append(make(key, size, place, choice))
        except Skipped as reason:
            skipped[key] = str(reason)
        except Exception as error:
            if place == "cpu":  # what runs here must run; an accelerator may lack a part
                raise
            skipped[key] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    for key, reason in skipped.items():
        print(f"  skipped {key}: {reason}", file=sys.stderr, flush=True)
    return found, skipped


def places() -> list[str]:
    """The CPU, and a GPU if torch sees one."""
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def as_dict(choice: Choice) -> dict[str, Any]:
    """Fields for the JSON."""
    return {"only": choice.only, "reference_given": choice.reference is not None, "compiled": choice.compiled}
