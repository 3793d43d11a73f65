"""Series as users give them: numbers in the order of time, with gaps, beside a column that tells the time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pplebm.data.columns import is_frame
from pplebm.data.files import has_header, read_file, read_frame
from pplebm.data.sources import check_exists
from pplebm.errors import PplebmError

TIME_NAMES = ("time", "timestamp", "date", "datetime")  # of columns that tell the time if no other is named


class Series(NamedTuple):
    """One series: `values` (points, columns), NaN where missing, and `time` (points,) as it was given, or None."""

    name: str
    values: np.ndarray
    columns: tuple[str, ...]
    time: np.ndarray | None = None
    time_name: str = "index"
    notes: tuple[str, ...] = ()


def read_series(source: Any, time: str | None = None, columns: Sequence[str] | None = None) -> Series:
    """Read one series: an array (points,) or (points, columns), a data frame, or a .csv, .csv.gz or .npy file.

    Args:
        source: see above; a `Series` stays as it is.
        time: name of the column that tells the time, numbers or dates; by default one that is called time, timestamp,
            date or datetime, else the first that holds text.
        columns: names of those to take; by default all of numbers but the time.

    Raises:
        PplebmError: in one sentence, if there is no such column, none holds numbers, values are infinite, or the time
            goes back.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"date": ["2026-01-01", "2026-01-02"], "load": [1.0, None], "who": ["a", "b"]})
        >>> found = read_series(frame)
        >>> found.columns, found.time_name, found.values.tolist(), found.notes
        (('load',), 'date', [[1.0], [nan]], ('columns without numbers are left out: who',))
    """
    if isinstance(source, Series):
        return source
    name = "series"
    if isinstance(source, (str, os.PathLike)):
        path = check_exists(source)
        name = path.name
        has_names = path.name.lower().endswith((".csv", ".csv.gz")) and has_header(path)
        source = read_frame(path) if has_names else _whole(path)
    if is_frame(source) or isinstance(source, Mapping):
        named = source.columns if is_frame(source) else source
        return _of_columns(name, {str(key).strip(): np.asarray(source[key]) for key in named}, time, columns)
    if time is not None or columns is not None:
        raise PplebmError(f"{name}: an array has no names of columns; leave time and columns out.")
    if isinstance(source, (tuple, list)) and not np.isscalar(next(iter(source), None)):
        raise PplebmError("a series is one array (points,) or (points, columns), a data frame, or a file of either.")
    values = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "biuf" or 0 in values.shape:
        raise PplebmError(
            f"{name}: a series is an array of numbers (points,) or (points, columns), not one of shape {values.shape} "
            f"and dtype {values.dtype}; of several series make windows one by one."
        )
    return _checked(Series(name, values.astype(float), tuple(str(i) for i in range(values.shape[1]))))


def _whole(path: Path) -> np.ndarray:
    raw = read_file(path)
    if raw.held_out is not None:
        raise PplebmError(f"{path} holds two parts, and a series is one; give it as one array or table.")
    return raw.x


def _of_columns(name: str, found: dict[str, np.ndarray], time: str | None, wanted: Sequence[str] | None) -> Series:
    """The series of a table."""
    for column in [*([] if time is None else [time]), *(wanted or ())]:
        if column not in found:
            raise PplebmError(f"{name} has no column '{column}'; its columns are {', '.join(found)}.")
    if time is None:
        text = [column for column, a in found.items() if not _is_numeric(a)]
        time = next((c for c in found if c.lower() in TIME_NAMES), next(iter(text), None))
        time = None if wanted is not None and time in wanted else time
    rest = [column for column in found if column != time] if wanted is None else list(wanted)
    kept = [column for column in rest if _is_numeric(found[column])]
    if not kept or (wanted is not None and len(kept) < len(rest)):
        lost = next((c for c in rest if c not in kept), None)
        raise PplebmError(
            f"{name} has no column of numbers{'' if lost is None else f': {lost!r} holds others'}; give columns= the "
            f"names of those that the series is of."
        )
    dropped = [column for column in rest if column not in kept]
    notes: tuple[str, ...] = (f"columns without numbers are left out: {', '.join(dropped)}",) if dropped else ()
    values = np.stack([np.asarray(found[column], float) for column in kept], 1)
    if time is None:
        return _checked(Series(name, values, tuple(kept), notes=notes))
    notes += _check_time(name, time, found[time])
    return _checked(Series(name, values, tuple(kept), found[time], time, notes))


def _is_numeric(a: np.ndarray) -> bool:
    if a.dtype.kind in "biuf":
        return True
    try:  # missing values make pandas' own dtypes objects
        return a.dtype.kind == "O" and not any(isinstance(v, str) for v in a) and np.asarray(a, float) is not None
    except (TypeError, ValueError):
        return False


def _check_time(name: str, column: str, values: np.ndarray) -> tuple[str, ...]:
    """Refuse time that goes back or is none, and remark on steps that differ."""
    import pandas  # by those who name columns only

    try:
        at = values.astype(float) if _is_numeric(values) else pandas.to_datetime(values).to_numpy().astype("int64")
    except Exception as error:  # of pandas: several types
        raise PplebmError(
            f"{name}: column '{column}' is to tell the time and holds neither numbers nor dates "
            f"({str(values[0])[:30]!r} comes first); give time= the name of another column."
        ) from error
    steps = np.diff(at)
    if not np.isfinite(steps.astype(float)).all() or (steps < 0).any():
        row = int(np.argmax(~(steps >= 0))) + 1
        raise PplebmError(f"{name}: the time in column '{column}' goes back in row {row} (counted from 0); sort it.")
    if len(steps) == 0 or (steps == np.median(steps)).all():
        return ()
    n_other = int((steps != np.median(steps)).sum())
    return (f"{n_other} of {len(steps)} steps of '{column}' differ from the usual one; rows are taken as equal steps",)


def _checked(series: Series) -> Series:
    if np.isinf(series.values).any():
        row, column = np.argwhere(np.isinf(series.values))[0]
        raise PplebmError(
            f"{series.name}: the value of '{series.columns[column]}' in row {row} is infinite; leave it empty if it is "
            f"missing."
        )
    return series
