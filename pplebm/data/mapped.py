"""Rows of a file that is too large for memory: read, and scaled, when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

LARGEST = 2**30  # bytes of an array that is read whole
AT_ONCE = 2**24  # bytes of rows that are looked at together


class Mapped:
    """Some rows of an array that stays in its file, in model units; indexed by rows like an array (N, *event).

    Args:
        stored: the array in the file, in the user's units.
        rows: numbers of its rows that these are, in order.
        scalings: by which the values become model values, the first one first.

    Example:
        >>> a = Mapped(np.arange(12.0).reshape(6, 2), np.array([0, 2, 5]))
        >>> a.shape, a[1:], a[np.array([[2], [0]])].shape
        ((3, 2), array([[ 4.,  5.],
               [10., 11.]]), (2, 1, 2))
    """

    def __init__(self, stored: np.ndarray, rows: np.ndarray, scalings: tuple[Any, ...] = ()) -> None:
        self._stored, self._rows, self._scalings = stored, rows, scalings
        self.dtype = self[:1].dtype

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the shape of one."""
        return (len(self), *self._stored.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._stored.ndim

    def __getitem__(self, index: Any) -> np.ndarray:
        found = np.asarray(self._stored[self._rows[index]])
        for scaling in self._scalings:
            found = scaling.to_model(found)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)  # all of it, for those who insist

    def scaled(self, scaling: Any) -> Mapped:
        """The same rows on another scale."""
        return Mapped(self._stored, self._rows, (*self._scalings, scaling))


def is_large(a: Any) -> bool:
    """Whether an array stays in its file."""
    return isinstance(a, Mapped) or (isinstance(a, np.memmap) and a.nbytes > LARGEST)


def only(a: Any, rows: np.ndarray) -> Any:
    """Some rows of an array: a copy in memory, or those of a large file where they are."""
    return Mapped(a, rows) if is_large(a) else a[rows]


def chunks(a: Any, what: str = "looking at the data") -> Iterator[np.ndarray]:
    """The rows of an array, some at a time; with a progress bar in a terminal where the file is large.

    >>> [len(part) for part in chunks(np.zeros((5, 2**20)))]
    [2, 2, 1]
    """
    n = max(1, AT_ONCE // max(1, a[:1].nbytes))
    hidden = None if is_large(a) else True
    for at in tqdm(range(0, len(a), n), desc=what, unit="part", disable=hidden, leave=False):
        yield np.asarray(a[at : at + n])


def extremes(a: Any, axis: int | None = 0) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest values over rows, or over everything; NaN are left out.

    >>> extremes(np.array([[1.0, 5.0], [np.nan, 4.0]]))
    (array([1., 4.]), array([1., 5.]))
    """
    lows, highs = zip(*((np.fmin.reduce(c, axis), np.fmax.reduce(c, axis)) for c in chunks(a)), strict=True)
    return np.fmin.reduce(lows), np.fmax.reduce(highs)


def mean_of(a: Any, axis: int | None = 0, function: Any = np.asarray) -> Any:
    """Mean of a function of the values over rows, or over everything, in float64; NaN are left out."""
    total = count = 0.0
    for part in chunks(a):
        values = function(part.astype(np.float64))
        known = ~np.isnan(values)
        total = total + np.where(known, values, 0.0).sum(axis)
        count = count + known.sum(axis)
    return total / np.maximum(count, 1)
