"""Data as users give them, and their way into a model: arrays, mappings, frames, tuples; rows first."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pplebm.data.mapped import is_large
from pplebm.errors import PplebmError
from pplebm.ppl.trees import tree_leaves

Levels = dict[str, tuple[str, ...]]  # column of text -> its levels, whose numbers are the codes
ROWLESS_REMEDY = "close over what has no rows, or give it by functools.partial"


class Table(NamedTuple):
    """A rectangular table with named columns, as read from a file."""

    columns: dict[str, np.ndarray]


class Signature(NamedTuple):
    """Arguments that a model can be called with."""

    names: tuple[str, ...]  # of its positional arguments
    required: frozenset[str]
    takes_any: bool  # **kwargs


def signature_of(model: Callable[..., Any]) -> Signature:
    """Arguments of a model, whatever handlers are wrapped around it."""
    while callable(getattr(model, "fn", None)):
        model = model.fn  # type: ignore[attr-defined]  # inside a handler of NumPyro
    target = getattr(model, "forward", model)  # of a PyroModule
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return Signature((), frozenset(), True)
    plain = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if isinstance(model, functools.partial):
        plain = [p for p in plain if p.name not in model.keywords]
    if not plain:
        return Signature((), frozenset(), True)
    return Signature(
        tuple(p.name for p in plain),
        frozenset(p.name for p in plain if p.default is p.empty),
        any(p.kind is p.VAR_KEYWORD for p in found),
    )


def arguments_of(model: Callable[..., Any]) -> inspect.Signature:
    """The arguments of a page's model after `ppl, net, hyper`, those of the callable that is made of it."""
    found = inspect.signature(model)
    return found.replace(parameters=list(found.parameters.values())[3:])


def call(model: Callable[..., Any], data: Any) -> Any:
    """Call a model with data: an array alone, a mapping by keyword, a tuple by position.

    >>> call(lambda dose, y=0: dose + y, {"dose": 1, "y": 2}), call(lambda a, b: a - b, (3, 1)), call(abs, -1)
    (3, 2, 1)
    """
    if isinstance(data, Mapping):
        return model(**data)
    return model(*data) if isinstance(data, tuple) else model(data)


def names_of(data: Any, signature: Signature) -> dict[str, str]:
    """Names that a person gives the arrays of the data, by path: their own, or those of the model's arguments.

    >>> names_of((1, 2), Signature(("x", "y"), frozenset(), False))
    {'0': 'x', '1': 'y'}
    """
    found = {}
    for i, (path, _) in enumerate(tree_leaves(data)):
        is_named = isinstance(data, Mapping)
        known = signature.names[i] if i < len(signature.names) else (f"argument {i}" if path else "x")
        found[path] = path if is_named else known
    return found


def is_frame(source: Any) -> bool:
    """Whether something is a data frame, of pandas or with the same face."""
    return hasattr(source, "columns") and hasattr(source, "__getitem__") and not isinstance(source, (Mapping, tuple))


def read(source: Any, signature: Signature, levels: Mapping[str, Sequence[str]] | None = None) -> tuple[Any, Levels]:
    """Turn what a user gives into a tree of arrays whose leading axes are rows; text becomes codes of its levels.

    A frame, or a table of a file, gives the columns that the model's arguments name; all of them together as one array
    where it names none. Of a mapping every name must be known to the model.

    Args:
        source: an array of NumPy, torch or JAX, a mapping of names to arrays, a data frame, a tuple, or a `Table`.
        signature: of the model.
        levels: of columns whose codes are fixed already.

    Returns:
        The tree, and the levels of its columns of text.

    Raises:
        PplebmError: for names the model does not take, columns it needs that are missing, values that are no numbers,
            arrays of different length, levels that are not known.

    Example:
        >>> read({"g": np.array(["b", "a", "b"]), "y": [1., 2., 3.]}, Signature(("g", "y"), frozenset(), False))
        ({'g': array([1, 0, 1]), 'y': array([1., 2., 3.])}, {'g': ('a', 'b')})
    """
    found: Levels = {}
    known = {name: tuple(column) for name, column in (levels or {}).items()}
    if isinstance(source, Table) or is_frame(source):
        source = _picked(source.columns if isinstance(source, Table) else _columns_of(source), signature)
    elif isinstance(source, Mapping):
        _check_names(source, signature)

    def column(name: str, values: Any) -> Any:
        array, own = _numbers(name, values, known.get(name))
        if own is not None:
            found[name] = own
        return array

    if isinstance(source, Mapping):
        tree: Any = {str(k): None if v is None else column(str(k), v) for k, v in source.items()}
    elif isinstance(source, tuple):
        names = [*signature.names, *(str(i) for i in range(len(signature.names), len(source)))]
        tree = tuple(None if v is None else column(n, v) for n, v in zip(names, source, strict=False))
    else:
        tree = column(signature.names[0] if signature.names else "x", source)
    _check_rows(tree, signature)
    return tree, found


def _columns_of(frame: Any) -> dict[str, Any]:
    return {str(name): frame[name] for name in frame.columns}


def _picked(columns: Mapping[str, Any], signature: Signature) -> Any:
    """The columns of a table that the model names; the whole table where it names none."""
    if signature.takes_any and not signature.names:
        return dict(columns)
    named = [name for name in signature.names if name in columns]
    if named:
        missing = [name for name in signature.names if name in signature.required and name not in columns]
        if missing:
            raise PplebmError(
                f"the model needs {', '.join(map(repr, missing))}, which the table lacks; its columns are "
                f"{', '.join(columns)}."
            )
        return dict(columns) if signature.takes_any else {name: columns[name] for name in named}
    text = [name for name, values in columns.items() if _is_text(np.asarray(values))]
    if text:
        raise PplebmError(
            f"column '{text[0]}' holds text, and the model takes the whole table as one array; name the columns it "
            f"needs as arguments of the model: def model({', '.join(list(columns)[:3])}, ...)."
        )
    return np.stack([np.asarray(values) for values in columns.values()], 1)


def _check_names(source: Mapping[str, Any], signature: Signature) -> None:
    if signature.takes_any or not signature.names:
        return
    for name in source:
        if name not in signature.names:
            close = difflib.get_close_matches(str(name), signature.names, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it takes {', '.join(signature.names)}."
            raise PplebmError(f"the data name '{name}', which the model does not take; {hint}")


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "US" or (values.dtype.kind == "O" and any(isinstance(v, str) for v in values.ravel()))


def _numbers(name: str, values: Any, levels: tuple[str, ...] | None) -> tuple[Any, tuple[str, ...] | None]:
    """A column as an array of numbers of its own dtype, and its levels if it is one of text."""
    categories = getattr(getattr(values, "cat", None), "categories", None)  # of pandas
    if categories is not None:
        levels = levels or tuple(map(str, categories))
        values = np.asarray(values.astype(object))
    if hasattr(values, "detach") or type(values).__module__.startswith("jax"):
        return values, None  # an array of a backend stays as it is
    dtype = getattr(values, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(values, "to_numpy"):
        values = _nullable(name, values)  # pandas' own dtypes
    array = values if is_large(values) else np.asarray(values)
    if np.ma.is_masked(values):
        raise PplebmError(f"'{name}' is a masked array; give its mask as a column of its own, and fill the values.")
    if _is_text(array):
        return _codes(name, array, levels)
    if array.dtype == object:
        try:
            array = array.astype(float)
        except (TypeError, ValueError):
            array = np.asarray(array)
    if array.dtype.kind not in "biufc":
        raise PplebmError(
            f"'{name}' holds values of dtype {array.dtype}, which are no numbers; convert them, dates for instance to "
            f"days since a date."
        )
    return array, None


def _nullable(name: str, values: Any) -> np.ndarray:
    if str(values.dtype) in ("string", "str") or str(values.dtype).startswith("string"):
        return np.asarray(values.astype(object))
    if values.isna().any() and str(values.dtype).lower().startswith("bool"):
        raise PplebmError(f"'{name}' is boolean and has missing values; drop their rows, or give a mask for them.")
    if values.isna().any():
        return np.asarray(values.to_numpy(dtype=float, na_value=np.nan))
    return np.asarray(values.to_numpy(dtype=getattr(values.dtype, "numpy_dtype", None)))


def _codes(name: str, array: np.ndarray, levels: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    missing = [i for i, v in enumerate(array.ravel()) if v is None or v != v]
    if missing:
        raise PplebmError(
            f"column '{name}' of text has {len(missing)} missing values, the first in row {missing[0]}; drop these "
            f"rows, or make them a level of their own."
        )
    text = array.astype(str)
    levels = tuple(map(str, np.unique(text))) if levels is None else levels
    place = {level: i for i, level in enumerate(levels)}
    unknown = next((v for v in text.ravel() if v not in place), None)
    if unknown is not None:
        shown = ", ".join(levels[:6]) + (", ..." if len(levels) > 6 else "")
        raise PplebmError(f"column '{name}' holds '{unknown}', which is none of the levels it had before: {shown}.")
    return np.array([place[v] for v in text.ravel()], dtype=int).reshape(text.shape), levels


def _check_rows(tree: Any, signature: Signature) -> None:
    leaves = tree_leaves(tree)
    if not leaves:
        raise PplebmError("there are no data; give an array, a mapping of names to arrays, a data frame or a tuple.")
    names = names_of(tree, signature)
    for path, leaf in leaves:
        if len(getattr(leaf, "shape", ())) == 0:
            raise PplebmError(f"'{names[path]}' is a single number and has no rows; {ROWLESS_REMEDY}.")
    shapes = {names[path]: tuple(leaf.shape) for path, leaf in leaves}
    if len({shape[0] for shape in shapes.values()}) > 1:
        told = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
        raise PplebmError(f"the arrays of the data have different numbers of rows: {told}; {ROWLESS_REMEDY}.")
    if next(iter(shapes.values()))[0] == 0:
        raise PplebmError("the data have no rows.")
