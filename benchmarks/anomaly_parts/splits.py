"""Rows to learn from, rows known to be normal to compare with, and rows to judge: no row is in two of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from likelihood_parts.images import omniglot  # noqa: E402

from pplebm.data import Dataset  # noqa: E402
from pplebm.data.named import READERS  # noqa: E402
from pplebm.data.scaling import range_of  # noqa: E402

N_REFERENCE = 500  # normal rows that nothing learns from and that are not judged, for scores of typicality
SHARE = 0.8  # of the normal rows, to learn from


class Split(NamedTuple):
    """Images as bytes; labels are 1 for anomalies."""

    name: str
    train: np.ndarray
    reference: np.ndarray
    test: np.ndarray
    labels: np.ndarray

    @property
    def dataset(self) -> Dataset:
        """What is learned from, in [-1, 1]; the reference rows are the held-out ones that learning watches."""
        scaling = range_of(0.0, 255.0)
        train, held_out = scaling.to_model(self.train), scaling.to_model(self.reference)
        return Dataset(self.name, train, held_out, None, None, scaling, (), f"{self.name}, {len(train)} rows")


def rows_of_digit(labels: np.ndarray, digit: int, seed: int, n: int | None) -> dict[str, np.ndarray]:
    """Indices of the pool: of four fifths of the normal rows, the last of these set aside, and of those to judge.

    Normal rows are permuted once with that seed; of rows to judge, a fifth of the normal ones and all anomalies, n are
    taken at the same prevalence, in random order.
    """
    rng = np.random.RandomState(seed)
    normal, anomalies = rng.permutation(np.flatnonzero(labels != digit)), np.flatnonzero(labels == digit)
    cut = int(SHARE * len(normal))
    test = thinned(normal[cut:], anomalies, n, rng)
    aside = min(N_REFERENCE, cut // 2)
    return {"train": normal[: cut - aside], "reference": normal[cut - aside : cut], "test": test}


def thinned(normal: np.ndarray, anomalies: np.ndarray, n: int | None, rng: np.random.RandomState) -> np.ndarray:
    """n rows of both kinds in proportion, shuffled; all for None."""
    whole = len(normal) + len(anomalies)
    share = 1.0 if n is None else min(1.0, n / whole)
    take = [rng.permutation(rows)[: max(1, round(share * len(rows)))] for rows in (normal, anomalies)]
    return rng.permutation(np.concatenate(take))


def held_out_digit(digit: int, seed: int, data_dir: str | None, n: int | None) -> Split:
    """MNIST without one digit, whose images are the anomalies; the pool is all 70000."""
    raw = READERS["mnist"](Path(data_dir or "data"))
    x, y = np.concatenate([raw.x, raw.held_out]), np.concatenate([raw.y, raw.y_held_out])
    rows = rows_of_digit(y, digit, seed, n)
    return Split(f"mnist without {digit}", *(x[rows[k]] for k in ("train", "reference", "test")),
                 labels=(y[rows["test"]] == digit).astype(int))  # fmt: skip


def two_sets(inside: str, outside: str, seed: int, data_dir: str | None, n: int | None) -> Split:
    """Learned from the training part of one set; judged are held-out images of both, as many of each."""
    rng, root = np.random.RandomState(seed), Path(data_dir or "data")
    raw = READERS[inside](root)
    other = omniglot(root) if outside == "omniglot" else READERS[outside](root).held_out
    train, normal = rng.permutation(len(raw.x)), rng.permutation(len(raw.held_out))
    size = min(len(normal), len(other)) if n is None else min(n // 2, len(normal), len(other))
    anomalies = rng.permutation(len(other))[:size]
    aside, order = min(N_REFERENCE, len(train) // 2), rng.permutation(2 * size)
    return Split(
        f"{inside} without {outside}", raw.x[train[aside:]], raw.x[train[:aside]],
        np.concatenate([raw.held_out[normal[:size]], other[anomalies]])[order],
        np.repeat([0, 1], size)[order],
    )  # fmt: skip
