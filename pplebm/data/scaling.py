"""Scalings, by which user values become model values and back."""

import math
from typing import Any, NamedTuple

import numpy as np

from pplebm.data.mapped import Mapped, extremes, mean_of
from pplebm.errors import PplebmError
from pplebm.ppl.trees import tree_fill, tree_leaves

KINDS = ("none", "range", "standard")


class Scaling(NamedTuple):
    """The map by which user values became model values: `model = (user - shift) / scale`.

    `kind` is "none", "range" (to [-1, 1]) or "standard" (per column); `shift` and `scale` are floats, or one float per
    column of the last axis.

    >>> s = Scaling("range", 8.0, 8.0)
    >>> s.to_model([0, 16])
    array([-1.,  1.], dtype=float32)
    >>> s.to_user(s.to_model([0, 16]))
    array([ 0., 16.])
    """

    kind: str
    shift: float | tuple[float, ...]
    scale: float | tuple[float, ...]

    def to_model(self, x: Any) -> Any:
        """User values (..., *event) to model values of the same shape, float32.

        Where there is nothing to scale values stay what they are, dtype included. Raises PplebmError when the last axis
        is not one entry per column.
        """
        if isinstance(x, Mapped):
            return x.scaled(self)
        x = np.asarray(x)
        if self.kind == "none":
            return x
        self._check_columns(x)
        # bytes are exact in float32, and 50000 colour images in float64 would take over a gigabyte
        small = x.dtype in (np.uint8, np.bool_) and isinstance(self.shift, float)
        out = x.astype(np.float32 if small else np.float64)
        with np.errstate(over="ignore"):  # values too large for float32 become inf, which the loaders report
            out -= np.asarray(self.shift, out.dtype)
            out /= np.asarray(self.scale, out.dtype)
            return out.astype(np.float32, copy=False)

    def to_user(self, x: Any) -> np.ndarray:
        """Model values (..., *event) to user values of the same shape, float64 so that a large shift costs no digits.

        Where nothing was scaled they stay what they are. Raises PplebmError when the last axis is not one entry per
        column.
        """
        x = np.asarray(x)
        if self.kind == "none":
            return x
        self._check_columns(x)
        return np.asarray(x.astype(np.float64) * np.asarray(self.scale) + np.asarray(self.shift))

    def log_jacobian(self, event_shape: tuple[int, ...]) -> float:
        r"""Gain of a log density in the user's units: :math:`\log|d(model)/d(user)|` of one datum, nats.

        >>> round(Scaling("standard", (0.0, 0.0), (2.0, 5.0)).log_jacobian((2,)), 4) == round(-float(np.log(10)), 4)
        True
        """
        scale = np.broadcast_to(np.asarray(self.scale, float), event_shape or (1,))
        return -float(np.log(scale).sum())

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes and `from_json` reads back exactly.

        >>> Scaling("standard", (0.5, 2.0), (1.0, 3.0)).to_json()
        {'kind': 'standard', 'shift': [0.5, 2.0], 'scale': [1.0, 3.0]}
        """
        return {"kind": self.kind, "shift": _listed(self.shift), "scale": _listed(self.scale)}

    @classmethod
    def from_json(cls, fields: Any) -> "Scaling":
        """The Scaling that `to_json` wrote; raises PplebmError when `fields` is not one.

        >>> Scaling.from_json({"kind": "none", "shift": 0.0, "scale": 1.0})
        Scaling(kind='none', shift=0.0, scale=1.0)
        """
        try:
            read = cls(fields["kind"], _unlisted(fields["shift"]), _unlisted(fields["scale"]))
            numbers = [*np.ravel(read.shift), *np.ravel(read.scale)]
            sound = np.shape(read.shift) == np.shape(read.scale) and all(math.isfinite(v) for v in numbers)
            sound = sound and read.kind in KINDS and min(np.ravel(read.scale), default=1.0) > 0
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise PplebmError(
                f"a stored scaling needs a kind among {', '.join(KINDS)}, and finite shift and positive scale of one "
                f"length, but this one reads {fields!r}; restore the manifest from the run that wrote it"
            )
        return read

    def _check_columns(self, x: np.ndarray) -> None:
        if isinstance(self.shift, tuple) and x.shape[-1:] != (len(self.shift),):
            raise PplebmError(
                f"values of shape {x.shape} do not fit a scaling of {len(self.shift)} columns; "
                f"pass an array whose last axis has length {len(self.shift)}"
            )


class Scalings(NamedTuple):
    """Scalings of data of several arrays, by path; arrays without one stay as they are.

    >>> s = Scalings({"y": Scaling("standard", 3.0, 2.0)})
    >>> s.to_model({"y": np.array([3.0, 5.0]), "group": np.array([0, 1])})
    {'y': array([0., 1.], dtype=float32), 'group': array([0, 1])}
    """

    parts: dict[str, Scaling]

    @property
    def kind(self) -> str:
        """Kind of the scalings; "none" without any."""
        return next((s.kind for s in self.parts.values()), "none")

    def to_model(self, data: Any) -> Any:
        """User values to model values, array by array."""
        leaves = {p: self.parts[p].to_model(a) if p in self.parts else np.asarray(a) for p, a in tree_leaves(data)}
        return tree_fill(data, leaves)

    def to_user(self, data: Any) -> Any:
        """Model values to user values, array by array."""
        leaves = {p: self.parts[p].to_user(a) if p in self.parts else np.asarray(a) for p, a in tree_leaves(data)}
        return tree_fill(data, leaves)

    def of(self, path: str | None) -> Scaling:
        """Scaling of one array; none for others."""
        return self.parts.get(path or "", Scaling("none", 0.0, 1.0))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes and `scaling_from_json` reads back."""
        return {"parts": {path: s.to_json() for path, s in self.parts.items()}}


def scaling_from_json(fields: Any) -> "Scaling | Scalings":
    """The scaling of one array or of several that `to_json` wrote.

    >>> scaling_from_json(Scalings({"y": Scaling("range", 8.0, 8.0)}).to_json())
    Scalings(parts={'y': Scaling(kind='range', shift=8.0, scale=8.0)})
    """
    if isinstance(fields, dict) and "parts" in fields:
        return Scalings({path: Scaling.from_json(part) for path, part in fields["parts"].items()})
    return Scaling.from_json(fields)


def _listed(v: float | tuple[float, ...]) -> float | list[float]:
    return list(v) if isinstance(v, tuple) else v


def _unlisted(v: Any) -> float | tuple[float, ...]:
    return tuple(float(e) for e in v) if isinstance(v, (list, tuple)) else float(v)


def standard_of_all(a: Any) -> Scaling:
    """The Scaling that gives all numbers together mean 0 and standard deviation 1, NaN left out; equal ones stay."""
    mean = float(mean_of(a, None))
    sd = math.sqrt(float(mean_of(a, None, lambda x: (x - mean) ** 2)))
    return Scaling("standard", mean, sd if sd > 0 else 1.0)


def range_of(low: float, high: float) -> Scaling:
    """The Scaling that takes [low, high] to [-1, 1], with low < high."""
    shift = low / 2 + high / 2  # halved first: high - low may overflow
    return Scaling("range", shift, max(high - shift, shift - low))  # max: rounding never leaves [-1, 1]


def standard_of(table: Any) -> Scaling:
    """The Scaling that gives every column of `table` (N, C) mean 0 and standard deviation 1; constant columns stay.

    NaN are left out.
    """
    low, high = (np.asarray(a, np.float64) for a in extremes(table))
    constant = ~(low < high)  # not std == 0: rounding in the mean leaves a tiny, meaningless spread
    with np.errstate(over="ignore", invalid="ignore"):
        shift = np.where(constant, np.nan_to_num(low), mean_of(table))
        top = np.where(constant, 1.0, np.maximum(high - shift, shift - low))
        # divided before squaring, which would over- or underflow for very large or small units
        scale = np.where(constant, 1.0, top * np.sqrt(mean_of(table, function=lambda x: ((x - shift) / top) ** 2)))
    return Scaling("standard", tuple(shift.tolist()), tuple(scale.tolist()))
