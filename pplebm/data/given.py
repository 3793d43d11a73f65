"""Data of a user's own program: exactly as given, any arrays, columns or frames, and scaled only where it was asked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.data.columns import Levels, Signature, is_frame, read
from pplebm.data.dataset import Dataset
from pplebm.data.files import read_file, read_table, table_of_npz
from pplebm.data.mapped import chunks, extremes, is_large, only
from pplebm.data.named import READERS
from pplebm.data.raw import split
from pplebm.data.scaling import Scaling, Scalings, range_of, standard_of, standard_of_all
from pplebm.data.sources import check_exists
from pplebm.errors import PplebmError
from pplebm.ppl.trees import n_rows, tree_leaves, tree_map

UNSCALED = Scaling("none", 0.0, 1.0)


def load_as_given(
    source: Any,
    signature: Signature,
    data_dir: str | os.PathLike[str] | None = None,
    held_out_fraction: float = 0.2,
    seed: int = 0,
    levels: Levels | None = None,
) -> Dataset:
    """Read and split data for a model with this signature; nothing is scaled and dtypes are kept.

    Args:
        source: a name, a path, or what `pplebm.Program.data` takes. Of a table with a header the model's arguments pick
            the columns; a table none of whose columns is an argument is one array.
        signature: of the model.
        data_dir: where named data sets lie.
        held_out_fraction: of the rows, for sources without a held-out part; 0 holds out none.
        seed: of the split.
        levels: of columns of text whose codes are fixed already.

    Raises:
        PplebmError: in one sentence, for a source that is missing or damaged, or does not fit the model.

    Example:
        >>> data = {"dose": np.arange(10.0), "y": np.arange(10)}
        >>> found = load_as_given(data, Signature(("dose", "y"), frozenset(), False))
        >>> {name: (a.dtype.kind, len(a)) for name, a in found.train.items()}
        {'dose': ('f', 8), 'y': ('i', 8)}
    """
    if isinstance(source, Dataset):
        return source  # in model units already
    name, tree, held_out, columns, labels = _read(source, data_dir, signature)
    tree, found = read(tree, signature, levels)
    tree = tree_map(_as_numpy, tree)
    if held_out is None:
        if n_rows(tree) < 2:
            raise PplebmError(f"{name}: there is one row; learning needs two or more, some of them held out.")
        keep, hold = split_rows(n_rows(tree), held_out_fraction, seed, labels)
        tree, held_out = (tree_map(lambda a, rows=rows: only(a, rows), tree) for rows in (keep, hold))
        y, y_held_out = (None, None) if labels is None else (labels[keep], labels[hold])
    else:
        y, y_held_out = labels, None
    scaling = UNSCALED if hasattr(tree, "shape") else Scalings({})
    return with_fingerprint(Dataset(name, tree, held_out, y, y_held_out, scaling, (), "", found, columns))


def read_rows(
    source: Any,
    signature: Signature,
    data_dir: str | os.PathLike[str] | None = None,
    levels: Levels | None = None,
) -> Any:
    """All rows of a source, or its held-out part where it has one, as a model with this signature takes them."""
    _, tree, held_out, *_ = _read(source, data_dir, signature)
    return tree_map(_as_numpy, read(tree if held_out is None else held_out, signature, levels)[0])


def split_rows(n: int, fraction: float, seed: int, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows kept and held out; of fewer than four one is held out, unless none is to be."""
    if n >= 4 or fraction == 0.0:
        return split(n, float(fraction), seed, labels)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[1:]), order[:1]


def _read(source: Any, data_dir: Any, signature: Signature) -> tuple[str, Any, Any, tuple[str, ...] | None, Any]:
    """Name, all or training rows, held-out rows if the source has them, names of a table's columns, and labels."""
    if isinstance(source, Dataset):
        return source.name, source.scaling.to_user(source.train), source.scaling.to_user(source.held_out), None, None
    if isinstance(source, str) and source in READERS:
        raw = READERS[source](Path("data" if data_dir is None else data_dir).expanduser().absolute())
        return raw.name, raw.x, raw.held_out, None, raw.y
    if not isinstance(source, (str, os.PathLike)):
        names = tuple(map(str, source.columns)) if is_frame(source) else None
        return "array" if hasattr(source, "shape") and names is None else "table", source, None, names, None
    path = check_exists(source)
    if path.name.lower().endswith((".csv", ".csv.gz")) and (table := read_table(path, signature.names)) is not None:
        return path.name, table, None, None, None
    if path.name.lower().endswith(".npz") and (mapping := table_of_npz(path, signature.names)) is not None:
        return path.name, mapping, None, None, None
    raw = read_file(path)
    return path.name, raw.x, raw.held_out, raw.columns, raw.y


def _as_numpy(a: Any) -> Any:
    return a if is_large(a) else np.asarray(a.detach().cpu() if hasattr(a, "detach") else a)


def rescaled(data: Dataset, scaling: Scaling | Scalings) -> Dataset:
    """The same data in the units that a scaling leads to."""
    return with_fingerprint(
        data._replace(train=scaling.to_model(data.train), held_out=scaling.to_model(data.held_out), scaling=scaling)
    )


def scaling_for(kind: str, data: Dataset, observed: dict[str, str]) -> Scaling | Scalings:
    """The scaling of a kind for the arrays that may be scaled: real numbers that are observed and nothing else.

    Args:
        kind: "unit", to [-1, 1], or "standard".
        data: unscaled.
        observed: path of an array to the support of the site whose values it is, whole.

    Raises:
        PplebmError: if no array may be scaled.
    """
    parts = {}
    for path, a in tree_leaves(data.train):
        is_image = a.dtype == np.uint8 and a.ndim > 2
        if observed.get(path) == "real" and (a.dtype.kind == "f" or is_image):
            parts[path] = _scaling_of(kind, a)
    if not parts:
        raise PplebmError(
            f"scaling '{kind}' finds nothing to scale: only arrays of real numbers that an observed site on the real "
            f"line takes whole are scaled, never covariates, counts or parts of an array; give such a column by name, "
            f"or scaling='none'."
        )
    return parts[""] if hasattr(data.train, "shape") else Scalings(parts)


def _scaling_of(kind: str, a: Any) -> Scaling:
    if kind == "standard":
        if a.ndim == 2:
            return standard_of(a)
        return standard_of_all(a)
    low, high = (0.0, 255.0) if a.dtype == np.uint8 else map(float, extremes(a, None))
    return range_of(low, high) if high > low else UNSCALED


def with_fingerprint(data: Dataset) -> Dataset:
    """The data set with its fingerprint: the sha256 of all bytes, names and dtypes."""
    found = hashlib.sha256()
    for part in (data.train, data.held_out):
        for path, a in tree_leaves(part):
            found.update(f"{path} {a.dtype} {a.shape}".encode() * bool(path))
            for rows in chunks(a):
                found.update(np.ascontiguousarray(rows).data)
    return data._replace(fingerprint=found.hexdigest())
