"""The form that every source is read into, with what is demanded of it and how it is split."""

import math
from typing import Any, NamedTuple

import numpy as np

from pplebm.data.mapped import chunks
from pplebm.errors import PplebmError

MIN_ROWS = 4


class Raw(NamedTuple):
    """User values as read: `x` (N, *event), and `held_out` where the source has a split of its own."""

    name: str
    x: np.ndarray
    held_out: np.ndarray | None = None
    y: np.ndarray | None = None
    y_held_out: np.ndarray | None = None
    columns: tuple[str, ...] | None = None  # names, from a table's header
    limits: tuple[float, float] | None = None  # where the values' range is known beforehand
    notes: tuple[str, ...] = ()


def first_line(error: Exception) -> str:
    """Message of an error on one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].rstrip('.')}"


def checked(raw: Raw, least_rows: int = MIN_ROWS) -> Raw:
    """`raw` itself when its arrays are finite numbers of rank 2 to 4 that fit together; PplebmError otherwise."""
    check_array(raw.name, raw.x, least_rows, raw.columns)
    if raw.held_out is not None:
        check_array(f"{raw.name}, held-out part", raw.held_out, 1, raw.columns)
        if raw.held_out.shape[1:] != raw.x.shape[1:]:
            raise PplebmError(
                f"{raw.name}: the held-out rows have shape {raw.held_out.shape[1:]} but the training rows have shape "
                f"{raw.x.shape[1:]}; store both parts with the same shape per row"
            )
    y = check_labels(raw.name, raw.y, len(raw.x))
    y_held_out = None if raw.held_out is None else check_labels(raw.name, raw.y_held_out, len(raw.held_out))
    if raw.held_out is not None and (y is None) != (y_held_out is None):
        raise PplebmError(f"{raw.name}: only one of the two parts has labels; store labels for both parts or for none")
    return raw._replace(y=y, y_held_out=y_held_out)


def check_array(name: str, x: Any, least_rows: int, columns: tuple[str, ...] | None = None) -> None:
    """Raise PplebmError, in one sentence, unless `x` is a finite numeric array (N, *event) of rank 2 to 4."""
    if not isinstance(x, np.ndarray):
        raise PplebmError(
            f"{name}: a numpy array is needed but this is a {type(x).__module__}.{type(x).__qualname__}; convert it, "
            f"for example with numpy.asarray, x.numpy() or frame.to_numpy()"
        )
    if np.ma.is_masked(x):
        raise PplebmError(f"{name}: {np.ma.count_masked(x)} values are masked; fill them or drop their rows first")
    if x.dtype.kind not in "biuf":
        raise PplebmError(
            f"{name}: values of dtype {x.dtype} cannot be modelled; convert them to floats, integers or booleans"
        )
    if x.ndim not in (2, 3, 4):
        raise PplebmError(
            f"{name}: an array of rank 2 (table), 3 or 4 (images) is needed but the shape is {x.shape}, "
            f"of rank {x.ndim}; reshape it to (rows, *event)"
        )
    if 0 in x.shape:
        raise PplebmError(f"{name}: the array of shape {x.shape} is empty; pass at least {least_rows} rows of values")
    if len(x) < least_rows:
        raise PplebmError(
            f"{name}: the array of shape {x.shape} has too few rows; pass at least {least_rows}, one row per datum"
        )
    check_finite(name, x, columns)


def check_finite(name: str, x: Any, columns: tuple[str, ...] | None = None) -> None:
    """Raise PplebmError with the count and the first place where `x` is NaN or infinite."""
    if x.dtype.kind != "f":
        return
    n_bad, at, first = 0, 0, None
    for part in chunks(x):
        finite = np.isfinite(part)
        if not finite.all():
            n_bad += int((~finite).sum())
            row, *place = (int(i) for i in np.unravel_index(int(np.argmin(finite)), part.shape))
            first = first or ((at + row, *place), part[(row, *place)])
        at += len(part)
    if first is not None:
        index, value = first
        where = f"row {index[0]}, column {column_name(index[1], columns)}" if x.ndim == 2 else f"index {index}"
        raise PplebmError(
            f"{name}: {n_bad} of {math.prod(x.shape)} values are NaN or infinite, the first ({value}) at {where}, "
            f"counted from 0; drop or fill these values"
        )


def column_name(i: int, columns: tuple[str, ...] | None) -> str:
    """A column as messages name it."""
    return repr(columns[i]) if columns else str(i)


def check_labels(name: str, y: Any, n: int) -> np.ndarray | None:
    """The labels as an array (n,), or None where there are none; PplebmError when they are not one per row."""
    if y is None:
        return None
    y = np.asarray(y)
    if y.shape not in ((n,), (n, 1)) or y.dtype.kind not in "biufU":
        raise PplebmError(
            f"{name}: labels of shape {y.shape} and dtype {y.dtype} do not go with {n} rows; "
            f"store one number or string per row, shape ({n},)"
        )
    return y.reshape(n)


def split(n: int, fraction: float, seed: int, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted, disjoint index arrays that cover range(n), with every class in proportion to within one row."""
    if fraction == 0.0:
        return np.arange(n), np.arange(0)
    n_held_out = min(max(round(n * fraction), 1), n - 2)  # one training row has no spread to scale by
    order = np.random.default_rng(seed).permutation(n)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    # evenly spaced picks from the shuffled rows sorted by class: exact in total, proportional in every class
    picks = ((np.arange(n_held_out) + 0.5) * n / n_held_out).astype(np.int64)
    held_out = np.zeros(n, bool)
    held_out[order[picks]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
