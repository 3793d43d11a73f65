"""Trees of latents by row: one row is one chain of one datum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pplebm.errors import PplebmError
from pplebm.ppl.language import PPL, Array, Latents

Schedule = float | Sequence[float]
Numbers = float | tuple[float, ...] | Array  # a schedule as plain numbers, which can be compared; or a traced number
T = TypeVar("T")
MAX_DISTANCE = 1e6  # latents further from the origin than this have diverged, whatever the density says


def zeros(z: Latents) -> Array:
    """One zero per row, (B,)."""
    first = next(iter(z.values()))
    return (first.reshape(len(first), -1) * 0.0).sum(1)


def dot(a: Latents, b: Latents) -> Array:
    """Inner product of each row over all sites, (B,)."""
    parts = [(a[site] * b[site]).reshape(len(a[site]), -1).sum(1) for site in a]
    return sum(parts[1:], parts[0])


def squares(tree: Latents) -> Array:
    """Squared length of each row over all sites, (B,)."""
    return dot(tree, tree)


def spread(per_row: Array, like: Array) -> Array:
    """(B,) to (B, 1, ..., 1) as `like` needs it."""
    return per_row.reshape(-1, *[1] * (like.ndim - 1))


def choose(ppl: PPL, wanted: Array, new: Latents, old: Latents) -> Latents:
    """Rows of `new` where wanted, of `old` elsewhere."""
    return {site: ppl.where(spread(wanted, a), a, old[site]) for site, a in new.items()}


def within_limit(ppl: PPL, log_density: Array, *trees: Latents) -> Array:
    """Rows whose log density is finite, and which are in no tree further from the origin than `MAX_DISTANCE`, (B,)."""
    found = ppl.isfinite(log_density)
    for tree in trees:
        found = found & (squares(tree) < MAX_DISTANCE**2)  # false for nan as well
    return found


def is_traced(value: Any) -> bool:
    """Whether a number is known only as a compiled function runs, as an argument of one is; nobody can check it."""
    if getattr(value, "shape", None) != ():
        return False
    try:
        float(value)
    except TypeError:  # what JAX raises of such a number
        return True
    return False


def log(ppl: PPL, a: Array) -> Array:
    """Logarithm of positive numbers; of arrays as that of 1 x 1 determinants, for which backends have a name."""
    return math.log(a) if isinstance(a, float) else ppl.log_abs_det(a[..., None, None])


def schedule(numbers: Schedule, name: str) -> Numbers:
    """A number, or one number per step, as plain numbers; a traced number as it is.

    Raises:
        PplebmError: naming it, if it is none of them.
    """
    if isinstance(numbers, (int, float)):
        return float(numbers)
    if is_traced(numbers):
        return numbers
    try:
        found = tuple(float(s) for s in numbers)
    except (TypeError, ValueError):
        found = ()
    if not found:
        raise PplebmError(f"{name} must be a number or a sequence of numbers, one per step; got {numbers!r}.")
    return found


def at_step(ppl: PPL, numbers: Numbers, step: Array) -> Array:
    """Entry `step` of a schedule (the last one beyond its end); a plain number is a constant schedule."""
    return ppl.take(ppl.asarray(numbers), step) if isinstance(numbers, tuple) else numbers


def lowest(numbers: Numbers) -> float:
    """The smallest number of a schedule; of a traced one infinity, which passes every check."""
    if isinstance(numbers, tuple):
        return min(numbers)
    return numbers if isinstance(numbers, float) else math.inf


def by_site(value: T | Mapping[str, T]) -> dict[str, T]:
    """Values by site; one for all sites stands under ""."""
    return dict(value) if isinstance(value, Mapping) else {"": value}


def of_site(given: Mapping[str, T], site: str, name: str) -> T:
    """The entry for a site.

    Raises:
        PplebmError: if there is none.
    """
    if site not in given and "" not in given:
        raise PplebmError(f"{name} lacks site '{site}'; it is given for {', '.join(given)}.")
    return given[site] if site in given else given[""]


def positive(name: str, value: float, zero: bool = False) -> float:
    """The number, if it is positive (or zero, where that is allowed); a traced number as it is.

    Raises:
        PplebmError: naming it, if it is not.
    """
    if is_traced(value):
        return value
    if not isinstance(value, (int, float)) or not (value > 0 or (zero and value == 0)):
        raise PplebmError(f"{name} must be {'at least 0' if zero else 'positive'}, got {value!r}.")
    return float(value)
