"""Hyperparameters of a page: NamedTuples with defaults, overridden by keyword or by text."""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pplebm.errors import PplebmError


class Range(NamedTuple):
    """Numbers that a hyperparameter may take, ends included unless `above`."""

    low: float
    high: float = math.inf
    above: bool = False  # whether it must be greater than low

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"between {self.low:g} and {self.high:g}"
        return f"greater than {self.low:g}" if self.above else f"{self.low:g} or more"

    def holds(self, value: Any) -> bool:
        """Whether a number lies in it."""
        return self.low <= value <= self.high and not (self.above and value == self.low)


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0.0, above=True)]
NonNegative = Annotated[float, Range(0.0)]
Share = Annotated[float, Range(0.0, 1.0)]
Schedule = Literal["linear", "exponential", "constant"]  # of learning rates towards the end


def override(defaults: Any, changes: Mapping[str, Any], owner: str) -> Any:
    """The NamedTuple with some fields changed, text converted to each field's type.

    A field may be declared as one of `Count`, `Whole`, `Positive`, `NonNegative` and `Share`, or as a `Literal` of
    words such as `Schedule`; what lies outside is refused.

    Raises:
        PplebmError: for a name that is not a field, or a value of the wrong type or out of its range.

    Example:
        >>> class Hyper(typing.NamedTuple):
        ...     sigma: Positive = 0.3
        ...     dims: tuple[Count, ...] = (16, 8)
        >>> override(Hyper(), {"sigma": "0.5", "dims": "4,2"}, "page")
        Hyper(sigma=0.5, dims=(4, 2))
        >>> override(Hyper(), {"sigma": -1}, "page")
        Traceback (most recent call last):
        pplebm.errors.PplebmError: hyperparameter 'sigma' of page must be greater than 0, got -1.0.
    """
    hints = typing.get_type_hints(type(defaults), include_extras=True)
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
    """A value as a field's annotation wants it."""
    is_tuple = typing.get_origin(hint) is tuple
    kinds = [_kind(h) for h in (_members(typing.get_args(hint)[0]) if is_tuple else _members(hint))]
    if isinstance(value, str) and (is_tuple or not any(type_ is str for type_, _ in kinds)):
        with contextlib.suppress(ValueError, SyntaxError):  # what stays text is told by the check below
            value = ast.literal_eval(value)
    if is_tuple:
        value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        return tuple(_checked(v, kinds, what, "a tuple, each item ") for v in value)
    return _checked(value, kinds, what)


def _members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the one annotation."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _kind(hint: Any) -> tuple[type, Range | tuple[str, ...] | None]:
    """Type of an annotation, and its range or words, if any."""
    if typing.get_origin(hint) is typing.Literal:
        return str, typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        type_, *more = typing.get_args(hint)
        return type_, next((m for m in more if isinstance(m, Range)), None)
    return hint, None


def _checked(value: Any, kinds: list[tuple[type, Any]], what: str, prefix: str = "") -> Any:
    if type(value) is int and not any(type_ is int for type_, _ in kinds) and any(type_ is float for type_, _ in kinds):
        value = float(value)
    for type_, allowed in kinds:
        if type(value) is not type_:
            continue
        if isinstance(allowed, Range):
            if not allowed.holds(value):
                raise PplebmError(f"{what} must be {allowed}, got {value!r}.")
        elif allowed is not None and value not in allowed:
            raise PplebmError(f"{what} must be one of {', '.join(allowed)}, got {value!r}.")
        return value
    names = " or ".join("None" if type_ is type(None) else type_.__name__ for type_, _ in kinds)
    raise PplebmError(f"{what} must be {prefix}{names}, got {value!r}.")
