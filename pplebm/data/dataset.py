"""A data set in model values, split into rows to learn from and rows held out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pplebm.data.scaling import Scaling, Scalings
from pplebm.ppl.trees import n_rows, tree_leaves


class Dataset(NamedTuple):
    """Model values ready for learning: `train` and `held_out`, arrays (N, *event) or mappings or tuples of such.

    Labels are (N,) and (M,), or None; `scaling` leads back to user values; `notes` are sentences the user should see;
    `fingerprint` is the sha256 of the bytes of `train` followed by those of `held_out`; `levels` are those of columns
    of text, whose values are codes; `columns` are the names of the columns of a table that is one array.

    >>> import pplebm.data
    >>> pplebm.data.load("digits").event_shape
    (8, 8)
    """

    name: str
    train: Any
    held_out: Any
    train_labels: np.ndarray | None
    held_out_labels: np.ndarray | None
    scaling: Scaling | Scalings
    notes: tuple[str, ...]
    fingerprint: str
    levels: dict[str, tuple[str, ...]] = {}
    columns: tuple[str, ...] | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum; () for data of several arrays, see `shapes`."""
        return tuple(self.train.shape[1:]) if hasattr(self.train, "shape") else ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one datum by path of the array, "" for the only one."""
        return {path: tuple(a.shape[1:]) for path, a in tree_leaves(self.train)}

    @property
    def n_train(self) -> int:
        """Rows to learn from."""
        return n_rows(self.train)

    @property
    def n_held_out(self) -> int:
        """Rows held out."""
        return n_rows(self.held_out)
