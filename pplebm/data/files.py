"""The user's own files: .npy, .npz, .csv and .csv.gz."""

import csv
import difflib
import gzip
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.data import mapped
from pplebm.data.columns import Table
from pplebm.data.raw import Raw, first_line
from pplebm.errors import PplebmError

SUFFIXES = (".npy", ".npz", ".csv", ".csv.gz")
SPLIT_KEYS = (("train", "held_out"), ("x_train", "x_test"))
WHOLE_KEYS = ("x", "train", "x_train")
LABEL_KEYS = ("y", "labels", "train_labels", "y_train")
HELD_OUT_LABEL_KEYS = ("held_out_labels", "y_test")


def read_file(path: Path) -> Raw:
    """The arrays in the file at `path`, as stored; raises PplebmError when there is no such file or it is damaged."""
    path = path.expanduser().absolute()
    check_file(path)
    name = path.name.lower()
    if path.is_dir() or not name.endswith(SUFFIXES):
        what = "is a folder" if path.is_dir() else "is of a kind that is not read (and nothing is ever unpickled)"
        raise PplebmError(f"{path} {what}; pass a file that ends in one of {', '.join(SUFFIXES)}")
    return read_csv(path) if name.endswith((".csv", ".csv.gz")) else read_numpy(path)


def check_file(path: Path) -> None:
    """Raise unless there is such a file, or a folder, of which the reader tells."""
    if not os.path.exists(path):  # unlike Path.exists, no OSError for a name that is too long
        raise PplebmError(f"there is no file {shown(path)}{near_name(path)}; check the path")
    if not (os.path.isfile(path) or os.path.isdir(path)):  # a pipe would be waited for, a device never ends
        raise PplebmError(f"{path} is a pipe or a device, not a file; write the data to a file first")


def shown(path: Path) -> str:
    """A path as messages show it, cut where it is longer than any that could be meant."""
    text = str(path).encode(errors="replace").decode()
    return text if len(text) <= 300 else f"{text[:300]}..."


def near_name(path: Path, also: tuple[str, ...] = ()) -> str:
    """A "did you mean" for a file that is not there, or a remark that its folder is not there; "" without either."""
    if not os.path.isdir(path.parent):
        return f" and no folder {shown(path.parent)}"
    try:
        there = [name for name in os.listdir(path.parent) if name.lower().endswith(SUFFIXES)]
    except OSError:  # a folder that may not be listed has no hints to give
        there = []
    wanted = path.name.lower().replace("-", "_")
    near = difflib.get_close_matches(wanted, [*also, *there], n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def read_numpy(path: Path) -> Raw:
    """A .npy array, mapped if it is large, or the arrays of an .npz; object arrays, which are pickled, are refused."""
    try:
        if path.name.lower().endswith(".npy") and os.path.getsize(path) > mapped.LARGEST:
            return Raw(path.name, np.load(path, mmap_mode="r", allow_pickle=False))
        with open(path, "rb") as file:  # given a path, numpy leaves a damaged .npz open
            loaded = np.load(file, allow_pickle=False)
            return Raw(path.name, loaded) if isinstance(loaded, np.ndarray) else pick(path, loaded)
    except PplebmError:
        raise
    except Exception as error:  # a damaged file makes numpy, zipfile, zlib or lzma raise almost anything
        raise PplebmError(
            f"{path} cannot be read ({first_line(error)}); save plain numeric arrays with numpy.save or numpy.savez"
        ) from error


def pick(path: Path, arrays: np.lib.npyio.NpzFile) -> Raw:
    """The data and labels among the members of an .npz, found by their keys."""
    keys = list(arrays.files)

    def first_of(wanted: tuple[str, ...]) -> np.ndarray | None:
        return next((arrays[key] for key in wanted if key in keys), None)

    for train, held_out in SPLIT_KEYS:
        if train in keys and held_out in keys:
            return Raw(path.name, arrays[train], arrays[held_out], first_of(LABEL_KEYS), first_of(HELD_OUT_LABEL_KEYS))
    data = tuple(key for key in keys if key not in LABEL_KEYS + HELD_OUT_LABEL_KEYS)
    x = first_of(WHOLE_KEYS + (data if len(data) == 1 else ()))
    if x is None:
        raise PplebmError(
            f"{path} holds the keys {', '.join(keys) or '(none)'}, from which the data cannot be told; "
            f"store them as 'x', as 'train' and 'held_out', or as 'x_train' and 'x_test' (labels: 'y', 'y_train', ...)"
        )
    return Raw(path.name, x, y=first_of(LABEL_KEYS))


def read_csv(path: Path) -> Raw:
    """A table of numbers (N, columns), separated by commas, semicolons or tabs, with or without a header line."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except Exception as error:  # not a gzip file, cut short, not text: several modules' errors
        raise PplebmError(f"{path} cannot be read ({first_line(error)}); save it as UTF-8 text") from error
    try:
        return parse_csv(path, text)
    except (ValueError, csv.Error) as error:
        raise PplebmError(
            f"{path} cannot be read as a table ({first_line(error)}); save it as rows of numbers"
        ) from error


def read_table(path: Path, wanted: tuple[str, ...]) -> Table | None:
    """The columns of a table with a header, text and all, if one of them is among the wanted names; else None."""
    frame = read_frame(path)
    columns = {str(name).strip(): frame[name] for name in frame.columns}
    return Table(columns) if any(name in columns for name in wanted) else None


def has_header(path: Path) -> bool:
    """Whether the first line of a .csv file, which must be there, holds anything but numbers."""
    check_file(path)
    try:
        with gzip.open(path, "rt") if path.name.lower().endswith(".gz") else open(path) as file:
            first = file.readline()
    except Exception as error:  # of gzip, of decoding
        raise PplebmError(f"{path} cannot be read ({first_line(error)}); save it as UTF-8 text") from error
    return not all(is_number(cell) for cell in first.strip().split(_delimiter(path)))


def read_frame(path: Path) -> Any:
    """A table with a header as a data frame."""
    import pandas  # by those who name columns only

    check_file(path)
    try:
        return pandas.read_csv(path, sep=_delimiter(path), skipinitialspace=True)
    except Exception as error:  # of pandas, of gzip, of decoding: many types
        raise PplebmError(f"{path} cannot be read as a table ({first_line(error)}); save it as UTF-8 text") from error


def _delimiter(path: Path) -> str:
    with gzip.open(path, "rt") if path.name.lower().endswith(".gz") else open(path) as file:
        first = file.readline()
    return max(",;\t", key=first.count)


def table_of_npz(path: Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz whose keys are all arguments of the model; None if they are not."""
    check_file(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = list(arrays.files)
            if len(keys) < 2 or not set(keys) <= set(wanted):
                return None
            return {key: arrays[key] for key in keys}
    except Exception:  # damaged: told by the reader of arrays
        return None


def parse_csv(path: Path, text: str) -> Raw:
    """The table in `text`, parsed by numpy; only a table that fails is gone through cell by cell, for the message."""
    delimiter = max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = (row for row in reader if row)
    first = next(rows, [])
    start = reader.line_num
    second = next(rows, [])
    header = is_header(first, second)
    if not first or (header and not second):
        raise PplebmError(f"{path} is empty; it needs rows of numbers")
    columns = tuple(cell.strip() for cell in first) if header else None
    layout: dict[str, Any] = {"delimiter": delimiter, "skiprows": start if header else 0, "quotechar": '"'}
    try:
        table = np.loadtxt(io.StringIO(text, newline=None), ndmin=2, comments=None, **layout)
    except ValueError:
        if fault := csv_fault(text, delimiter, columns):
            raise PplebmError(f"{path}: {fault}") from None
        raise
    if columns and len(columns) != table.shape[1]:
        raise PplebmError(f"{path}: the header names {len(columns)} columns but the rows have {table.shape[1]}; fix it")
    return Raw(path.name, table, columns=columns)


def is_number(cell: str) -> bool:
    """Whether a cell holds one number (NaN and infinity, reported later, included)."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number, CSV files do not mean it


def is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first row is names: no numbers in it at all, or text above a number."""
    numeric = [is_number(cell) for cell in first]
    return not any(numeric) or any(is_number(below) and not n for n, below in zip(numeric, second, strict=False))


def csv_fault(text: str, delimiter: str, columns: tuple[str, ...] | None) -> str:
    """Fault of a table that did not parse, with the column and the line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    width = 0
    for number, row in enumerate(row for row in reader if row):
        width = width or len(row)
        if number == 0 and columns:
            continue
        if len(row) != width:
            return f"line {reader.line_num} has {len(row)} cells but the first line has {width}; make them equal"
        for i, cell in enumerate(row):
            if not is_number(cell):
                name = repr(columns[i]) if columns else f"{i + 1} (of {width})"
                held = f"holds {cell!r}" if cell.strip() else "is empty"
                return f"column {name} is not numeric, line {reader.line_num} {held}; encode, fill or drop the column"
    return ""
