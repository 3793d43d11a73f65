"""Trees of latents by row: one row is one chain of one datum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Latents

Schedule = float | Sequence[float]
LIMIT = 1e6  # latents further from the origin than this have diverged, whatever the density says


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


def choose(ppl: Any, wanted: Array, new: Latents, old: Latents) -> Latents:
    """Rows of `new` where wanted, of `old` elsewhere."""
    return {site: ppl.where(spread(wanted, a), a, old[site]) for site, a in new.items()}


def schedule(ppl: Any, numbers: Any, what: str) -> Any:
    """A number, or one number per step as an array.

    Raises:
        PplebmError: naming `what`, if it is neither.
    """
    if isinstance(numbers, (int, float)):
        return float(numbers)
    try:
        found = [float(s) for s in numbers]
    except (TypeError, ValueError):
        found = []
    if not found:
        raise PplebmError(f"{what} must be a number or a sequence of numbers, one per step; got {numbers!r}.")
    return ppl.asarray(found)


def by_site(value: Any) -> dict[str, Any]:
    """What is given by site, or under "" for all sites."""
    return dict(value) if isinstance(value, Mapping) else {"": value}


def of_site(given: dict[str, Any], site: str, what: str) -> Any:
    """The entry for a site.

    Raises:
        PplebmError: if there is none.
    """
    if site not in given and "" not in given:
        raise PplebmError(f"{what} lacks site '{site}'; it is given for {', '.join(given)}.")
    return given.get(site, given.get(""))


def plain(numbers: Any) -> tuple[float, ...]:
    """A schedule as plain numbers, to be compared."""
    return (numbers,) if isinstance(numbers, float) else tuple(float(s) for s in numbers)


def lowest(numbers: Any) -> float:
    """The smallest number of a schedule."""
    return numbers if isinstance(numbers, float) else float(min(numbers))


def positive(name: str, value: float, zero: bool = False) -> float:
    """The number, if it is positive (or zero, where that is allowed).

    Raises:
        PplebmError: naming it, if it is not.
    """
    if not isinstance(value, (int, float)) or not (value > 0 or (zero and value == 0)):
        raise PplebmError(f"{name} must be {'at least 0' if zero else 'positive'}, got {value!r}.")
    return float(value)
