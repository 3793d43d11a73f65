"""Hyperparameters of a page: NamedTuples with defaults, overridden by keyword or by text."""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
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

    A field may be declared as one of `Count`, `Whole`, `Positive`, `NonNegative` and `Share`, as a `Literal` of words
    such as `Schedule`, or as a NamedTuple of fields again. What lies outside is refused. A field of an inner
    NamedTuple is named `prior.n_steps`, or `n_steps_prior`; `n_steps` alone changes it wherever it stands.

    Raises:
        PplebmError: for a name that is not a field, or a value of the wrong type or out of its range.

    Example:
        >>> class Hyper(typing.NamedTuple):
        ...     sigma: Positive = 0.3
        ...     dims: tuple[Count, ...] = (16, 8)
        >>> override(Hyper(), {"sigma": "0.5", "dims": "4,2"}, "page")
        Hyper(sigma=0.5, dims=(4, 2))
        >>> import pplebm
        >>> override(pplebm.load("short_run_mle").Hyper(), {"n_steps_prior": "60"}, "page").prior.n_steps
        60
        >>> override(Hyper(), {"sigma": -1}, "page")
        Traceback (most recent call last):
        pplebm.errors.PplebmError: hyperparameter 'sigma' of page must be greater than 0, got -1.0.
    """
    values = defaults
    for name, value in _leaves(defaults, changes):
        paths = paths_of(defaults, name)
        if not paths:
            raise PplebmError(f"{owner} has no hyperparameter '{name}'; {_meant(name, flat(defaults))}")
        for path in paths:
            values = _replaced(values, path, value, f"hyperparameter '{name}' of {owner}")
    return values


def _leaves(defaults: Any, changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Changes by name, those of an inner NamedTuple that is given whole one by one."""
    for name, value in changes.items():
        if hasattr(getattr(defaults, name, None), "_fields") and isinstance(value, (Mapping, tuple)):
            fields = value if isinstance(value, Mapping) else getattr(value, "_asdict", dict)()
            yield from ((f"{name}.{field}", v) for field, v in fields.items())
        else:
            yield name, value


def flat(hyper: Any) -> dict[str, Any]:
    """All fields by name, those of inner NamedTuples as "prior.n_steps".

    >>> import pplebm
    >>> [name for name in flat(pplebm.load("short_run_mle").Hyper()) if name.startswith("prior")][:2]
    ['prior.n_steps', 'prior.step_size']
    """
    found: dict[str, Any] = {}
    for name, value in hyper._asdict().items():
        inner = flat(value) if hasattr(value, "_fields") else None
        found |= {name: value} if inner is None else {f"{name}.{field}": v for field, v in inner.items()}
    return found


def paths_of(hyper: Any, name: str) -> list[tuple[str, ...]]:
    """The fields that a name stands for: "prior.n_steps", "n_steps_prior", or "n_steps" wherever it stands."""
    paths = [tuple(path.split(".")) for path in flat(hyper)]
    exact = [path for path in paths if name in (".".join(path), "_".join(reversed(path)))]
    return exact or [path for path in paths if name == path[-1]]


def split_between(changes: Mapping[str, Any], owners: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each change to the owner that has a field of that name; "model.sigma" names the owner.

    Raises:
        PplebmError: if no owner, or more than one, has the field.
    """
    shares: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        owner, field = (first, rest) if rest and first in owners else ("", name)
        homes = [o for o, h in owners.items() if h is not None and (not owner or o == owner) and paths_of(h, field)]
        if len(homes) > 1:
            raise PplebmError(f"'{name}' is a hyperparameter of {' and '.join(homes)}; write {homes[0]}.{name}=...")
        if not homes:
            fields = [f for h in owners.values() if h is not None for f in flat(h)]
            raise PplebmError(f"no hyperparameter '{name}'; {_meant(field, fields)}")
        shares[homes[0]][field] = value
    return shares


def _meant(name: str, fields: Iterable[str]) -> str:
    """Guess at what was meant by a name that is none of the fields, as a sentence."""
    words = {word: field for field in fields for word in (field.rpartition(".")[2], _turned(field), field)}
    close = difflib.get_close_matches(name, words, 1)
    return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(fields) or 'none'}."


def _turned(path: str) -> str:
    return "_".join(reversed(path.split(".")))


def _replaced(hyper: Any, path: tuple[str, ...], value: Any, what: str) -> Any:
    """The NamedTuple with the field at a path changed."""
    name, *rest = path
    if rest:
        return hyper._replace(**{name: _replaced(getattr(hyper, name), tuple(rest), value, what)})
    hint = typing.get_type_hints(type(hyper), include_extras=True)[name]
    return hyper._replace(**{name: _convert(value, hint, what)})


def _convert(value: Any, hint: Any, what: str) -> Any:
    """A value as a field's annotation wants it."""
    is_tuple = typing.get_origin(hint) is tuple
    kinds = [_kind(h) for h in (_members(typing.get_args(hint)[0]) if is_tuple else _members(hint))]
    if isinstance(value, str) and (is_tuple or not any(type_ is str for type_, _ in kinds)):
        with contextlib.suppress(ValueError, SyntaxError):  # what stays text is told by the check below
            value = ast.literal_eval({"true": "True", "false": "False"}.get(value.strip(), value))
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
