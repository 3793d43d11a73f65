"""Calls that are timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

COLUMNS = ("iteration", "posterior", "prior")
Latents = dict[str, np.ndarray]


class Candidate:
    """One way to do the work, on one place ("cpu" or "cuda"); every call ends when its result has been read."""

    key: str  # "a", "c-bf16", ...: for --only and the JSON
    label: str  # for the table

    def calls(self) -> dict[str, Callable[[], None]]:
        """Calls that are timed, by column."""
        return {column: getattr(self, column) for column in COLUMNS}

    def iteration(self) -> None:
        """One learning iteration: both phases and the update."""
        raise NotImplementedError

    def posterior(self) -> None:
        """The positive phase."""
        raise NotImplementedError

    def prior(self) -> None:
        """The negative phase."""
        raise NotImplementedError

    def final(self, start: Latents, phase: str) -> Latents:
        """Latents at the end of a phase from given ones, noise off, at the initial weights."""
        raise NotImplementedError


class Skipped(Exception):
    """Why a candidate cannot run here."""


@contextlib.contextmanager
def torch_threads(n: int | None) -> Iterator[None]:
    """Torch on n threads for a while; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
