"""An entry in one language: its model, its data, its program and the host's own account of it, each made once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmWarning
from zoo.entries import Entry
from zoo.hosts import host
from zoo.reference import Reference, forward, mapped, n_rows, reference


def n_forward(entry: Entry) -> int:
    """Draws of every row, or of all rows of a joint program, which are made one after another."""
    return 200 if entry.joint else 400


class Case:
    """What tests of an entry on a host share; made and used in double precision."""

    def __init__(self, entry: Entry, name: str) -> None:
        self.entry, self.name, self.h = entry, name, host(name)

    def __repr__(self) -> str:
        return f"{self.entry}-{self.name}"

    @functools.cached_property
    def model(self) -> Callable[..., Any]:
        """In this language."""
        return self.entry.make(self.h)

    @functools.cached_property
    def data(self) -> Any:
        """Arrays of the host."""
        return mapped(self.h.array, self.entry.data)

    @property
    def n(self) -> int:
        """Rows."""
        return n_rows(self.entry.data)

    def made(self, model: Callable[..., Any], data: Any) -> Any:
        """A program of the model, with the warning that it has to give."""
        loops = self.name in self.entry.loops
        with pytest.warns(PplebmWarning, match="one after another") if loops else contextlib.nullcontext():
            return pplebm.Program(model, data=data, backend=self.name, plate=self.entry.plate)

    @functools.cached_property
    def program(self) -> Any:
        """Made of the data as NumPy has them."""
        return self.made(self.model, self.entry.data)

    @functools.cached_property
    def reference(self) -> Reference:
        """At latents of the data's rows, or of two chains."""
        return reference(self.entry, self.name, self.model, self.data, seed=1)

    def once(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function for a single call: compiled as a whole on JAX, where its operations one by one take longer."""
        return self.h.jax.jit(function) if self.name == "numpyro" else function

    def take(self, tree: Any, index: Any) -> Any:
        """These rows of data or latents."""
        return mapped(lambda a: a[self.h.array(np.asarray(index))], tree)


@functools.cache
def case_of(entry: Entry, name: str) -> Case:
    """The case, made once."""
    return Case(entry, name)


def tiled(data: Any, n: int) -> Any:
    """Data of NumPy, n times over, row by row."""
    return mapped(lambda a: np.repeat(a, n, 0), data)


@functools.cache
def drawn_forward(entry: Entry) -> dict[str, np.ndarray]:
    """Draws of the observed sites by the first host that has the entry, (draws, rows, ...)."""
    case, n = case_of(entry, entry.hosts[0]), n_forward(entry)
    if entry.joint:
        return forward(entry, case.name, case.model, case.data, n, seed=2)
    data = mapped(case.h.array, tiled(entry.data, n))
    found = forward(entry, case.name, case.model, data, 1, seed=2)
    return {site: by_row(a, case.n) for site, a in found.items()}


def by_row(a: np.ndarray, n: int) -> np.ndarray:
    """(rows x draws, ...) to (draws, rows, ...)."""
    return np.moveaxis(a.reshape(n, len(a) // n, *a.shape[1:]), 1, 0)


def moments(draws: dict[str, np.ndarray], like: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means, squares and products of neighbours of bounded functions of the draws, and their standard errors.

    The function is s arctan(x / s) around the median of `like`, s three times its spread: it has moments whatever the
    distribution, and hardly changes x where there are data.
    """
    columns = []
    for site in sorted(draws):
        a, b = (d[site].reshape(len(d[site]), -1).astype(float) for d in (draws, like))
        centre, low, high = (np.quantile(b, q, axis=0) for q in (0.5, 0.1, 0.9))
        s = 3.0 * (high - low) + 1e-3
        columns.append(s * np.arctan((a - centre) / s) / s)
    x = np.concatenate(columns, 1)
    found = np.concatenate([x, x**2, x * np.roll(x, 1, 1)], 1)
    return found.mean(0), found.std(0) / len(found) ** 0.5
