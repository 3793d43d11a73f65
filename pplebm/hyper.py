"""Hyperparameters of a page: NamedTuples with defaults, overridden by keyword or by text."""

from __future__ import annotations

import ast
import contextlib
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from pplebm.errors import PplebmError


def override(defaults: Any, changes: Mapping[str, Any], owner: str) -> Any:
    """Return the NamedTuple with some fields changed, text converted to each field's type.

    Raises:
        PplebmError: for a name that is not a field, or a value of the wrong type.

    Example:
        >>> class Hyper(typing.NamedTuple):
        ...     sigma: float = 0.3
        ...     dims: tuple[int, ...] = (16, 8)
        >>> override(Hyper(), {"sigma": "0.5", "dims": "4,2"}, "page")
        Hyper(sigma=0.5, dims=(4, 2))
    """
    hints = typing.get_type_hints(type(defaults))
    values = {}
    for name, value in changes.items():
        if name not in defaults._fields:
            close = difflib.get_close_matches(name, defaults._fields, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(defaults._fields)}."
            raise PplebmError(f"{owner} has no hyperparameter '{name}'; {hint}")
        values[name] = _convert(value, hints[name], f"hyperparameter '{name}' of {owner}")
    return defaults._replace(**values)


def split_between(changes: Mapping[str, Any], owners: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each change to the owner that has a field of that name; "model.sigma" names the owner.

    Raises:
        PplebmError: if no owner, or more than one, has the field.
    """
    shares: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
    for name, value in changes.items():
        prefix, _, field = name.rpartition(".")
        homes = [prefix] if prefix else [o for o, h in owners.items() if h is not None and field in h._fields]
        if len(homes) > 1:
            raise PplebmError(f"'{name}' is a hyperparameter of {' and '.join(homes)}; write {homes[0]}.{name}=...")
        if not homes or homes[0] not in owners or owners[homes[0]] is None:
            fields = [f for h in owners.values() if h is not None for f in h._fields]
            close = difflib.get_close_matches(field, fields, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(fields) or 'none'}."
            raise PplebmError(f"no hyperparameter '{name}'; {hint}")
        shares[homes[0]][field] = value
    return shares


def _convert(value: Any, hint: Any, what: str) -> Any:
    if isinstance(value, str) and hint is not str:
        with contextlib.suppress(ValueError, SyntaxError):  # what stays text is told by the check below
            value = ast.literal_eval(value)
    if type(value) is int and float in (hint, *typing.get_args(hint)) and typing.get_origin(hint) is not tuple:
        value = float(value)
    if typing.get_origin(hint) is tuple:
        value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        inner = typing.get_args(hint)[0]
        fine = all(type(v) is inner for v in value)
    else:
        fine = type(value) in ((hint, *typing.get_args(hint)))
    if not fine:
        expected = getattr(hint, "__name__", None) if not typing.get_args(hint) else str(hint)
        raise PplebmError(f"{what} must be {expected or hint}, got {value!r}.")
    return value
