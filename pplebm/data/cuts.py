"""Series cut into windows, and the way back from windows to points."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pplebm.data.dataset import Dataset
from pplebm.data.given import UNSCALED, with_fingerprint
from pplebm.data.raw import check_finite
from pplebm.data.scaling import Scaling, Scalings, range_of, standard_of
from pplebm.data.series import Series, read_series
from pplebm.errors import PplebmError


class Windows(NamedTuple):
    """Windows of one series, in model units.

    `x` is (windows, length, columns), float32, 0 where an entry is missing, and `observed_x` tells which are there;
    `starts` (windows,) are the points at which they begin, of the `n` points of `series`.
    """

    x: np.ndarray
    observed_x: np.ndarray
    starts: np.ndarray
    series: Series
    scaling: Scaling

    @property
    def n(self) -> int:
        """Points of the series."""
        return len(self.series.values)

    @property
    def data(self) -> dict[str, np.ndarray]:
        """Windows as data of `models/series_factors.py`."""
        return {"x": self.x, "observed_x": self.observed_x}

    @property
    def user_data(self) -> dict[str, np.ndarray]:
        """The same in the user's units; what is missing is filled with what is 0 in model units."""
        return {"x": self.scaling.to_user(self.x), "observed_x": self.observed_x}

    def to_points(self, values: Any) -> np.ndarray:
        """Average over the windows that hold a point, (n, ...); NaN values do not count.

        Args:
            values: one for every window, (windows,), or for every point of each, (windows, length, ...).

        Raises:
            PplebmError: for another shape.

        Example:
            >>> windows(np.arange(5.0), 3, 2).to_points([1.0, 3.0])
            array([1., 1., 2., 3., 3.])
        """
        a, shape = np.asarray(values, float), self.x.shape[:2]
        if a.shape[:1] != shape[:1] or (a.ndim > 1 and a.shape[:2] != shape):
            raise PplebmError(f"values of shape {a.shape} are not of {shape[0]} windows of {shape[1]} points each.")
        a = np.broadcast_to(a[:, None], shape) if a.ndim == 1 else a
        total, count = np.zeros((self.n, *a.shape[2:])), np.zeros((self.n, *a.shape[2:]))
        points = self.starts[:, None] + np.arange(shape[1])
        np.add.at(total, points, np.nan_to_num(a))
        np.add.at(count, points, np.isfinite(a))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def windows(
    source: Any,
    length: int,
    stride: int | None = None,
    *,
    scaling: str | Scaling = "standard",
    n_train: int | None = None,
    time: str | None = None,
    columns: Sequence[str] | None = None,
) -> Windows:
    """Cut a series into windows; the last one reaches its end, whatever the stride.

    Args:
        source, time, columns: as in `pplebm.data.read_series`.
        length: of a window, points.
        stride: points between the starts of windows; a quarter of the length if left out.
        scaling: "standard", by mean and standard deviation of every column; "unit", to [-1, 1]; "none"; or one that
            is known. Missing values are no part of it.
        n_train: points, the first ones, by which to scale; all by default.

    Raises:
        PplebmError: in one sentence, for a series that cannot be read or is too short, or numbers that are no counts.

    Example:
        >>> found = windows(np.array([0.0, 1.0, np.nan, 3.0, 4.0, 5.0, 6.0]), 4, 2, scaling="none")
        >>> found.starts.tolist(), found.x[0, :, 0].tolist(), found.observed_x[0, :, 0].tolist()
        ([0, 2, 3], [0.0, 1.0, 0.0, 3.0], [True, True, False, True])
    """
    series = read_series(source, time, columns)
    stride, n = default_stride(length) if stride is None else stride, len(series.values)
    check_lengths(series, length, stride)
    found = scaling if isinstance(scaling, Scaling) else scaling_of(scaling, series, n if n_train is None else n_train)
    starts = np.unique(np.append(np.arange(0, n - length + 1, stride), n - length))
    points = starts[:, None] + np.arange(length)
    there = np.isfinite(series.values)
    x = np.where(there, found.to_model(series.values), 0.0).astype(np.float32)
    check_finite(f"{series.name}, scaled to the model's float32 values,", x)
    return Windows(x[points], there[points], starts, series, found)


def check_lengths(series: Series, length: Any, stride: Any) -> None:
    """Refuse windows and strides that are no counts or do not fit a series."""
    for name, value in (("window", length), ("stride", stride)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < 1:
            raise PplebmError(f"{name} must be a whole number of points, 1 or more, got {value!r}.")
    n = len(series.values)
    if length > n:
        raise PplebmError(f"{series.name}: a window of {length} points is longer than the series of {n}; give less.")
    if stride > length:
        raise PplebmError(f"a stride of {stride} leaves out points between windows of {length}; give {length} or less.")


def default_stride(length: Any) -> Any:
    """A quarter of a window."""
    return max(1, int(length) // 4) if isinstance(length, numbers.Integral) else 1


def scaling_of(kind: str, series: Series, n_train: int) -> Scaling:
    """The scaling of a kind by the first points of a series."""
    values = series.values[:n_train]
    if kind not in ("standard", "auto", "unit", "none"):
        raise PplebmError(f"scaling '{kind}' is not known; choose one of auto, standard, unit, none.")
    empty = ~np.isfinite(values).any(0)
    if empty.any():
        name = series.columns[int(np.argmax(empty))]
        raise PplebmError(f"{series.name}: column '{name}' has no value in the first {len(values)} points; drop it.")
    if kind == "none":
        return UNSCALED
    if kind == "unit":
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return range_of(low, high) if low < high else UNSCALED
    return standard_of(values)


class Cut(NamedTuple):
    """How a series is cut, as a run remembers it."""

    window: int
    stride: int | None = None
    time: str | None = None
    columns: tuple[str, ...] | None = None

    def windows(self, source: Any, scaling: str | Scaling = "standard", n_train: int | None = None) -> Windows:
        """Windows of a series, cut so."""
        how = {"time": self.time, "columns": self.columns}
        return windows(source, self.window, self.stride, scaling=scaling, n_train=n_train, **how)  # type: ignore[arg-type]

    def dataset(self, source: Any, held_out_fraction: float, scaling: str | Scaling, is_masked: bool) -> Dataset:
        """Windows of the first part of a series to learn from and those of its end held out; none lies in both.

        Args:
            source: see `pplebm.data.read_series`; a Dataset stays as it is.
            held_out_fraction: of the points.
            scaling: see `windows`; by the first part.
            is_masked: whether the model takes `observed_x` beside `x`, for entries that are missing.

        Raises:
            PplebmError: as `windows`, if entries are missing and the model takes no mask, and if nothing varies in the
                first part.
        """
        if isinstance(source, Dataset):
            return source  # cut already
        series = read_series(source, self.time, self.columns)
        check_lengths(series, self.window, default_stride(self.window) if self.stride is None else self.stride)
        n_train = len(series.values) - round(len(series.values) * held_out_fraction)
        if held_out_fraction and min(n_train, len(series.values) - n_train) < self.window:
            raise PplebmError(
                f"{series.name}: {n_train} points to learn from and {len(series.values) - n_train} held out cannot "
                f"both hold a window of {self.window}; give a shorter window, or held_out_fraction=0."
            )
        cut = self._replace(time=None, columns=None)
        learned = series._replace(values=series.values[:n_train])
        first = cut.windows(learned, scaling)
        notes = series.notes + (_on_constant(learned, first.scaling) if isinstance(scaling, str) else ())
        parts = [first]
        if held_out_fraction:
            parts.append(cut.windows(series._replace(values=series.values[n_train:]), first.scaling))
        trees = [arrays(part.data, is_masked, series.name) for part in parts]
        held_out = trees[1] if held_out_fraction else _none_of(trees[0])
        found: Scaling | Scalings = first.scaling
        if is_masked:
            found = Scalings({} if first.scaling.kind == "none" else {"x": first.scaling})
        data = Dataset(series.name, trees[0], held_out, None, None, found, notes, "", columns=series.columns)
        return with_fingerprint(data)


def _on_constant(series: Series, scaling: Scaling) -> tuple[str, ...]:
    """What is to be said of columns that do not change where a model learns; refused if none does."""
    constant = [name for name, a in zip(series.columns, series.values.T, strict=True) if np.nanmin(a) == np.nanmax(a)]
    if len(constant) == len(series.columns):
        raise PplebmError(
            f"{series.name}: no column changes in the {len(series.values)} points to learn from, so there is nothing "
            f"to learn; give a longer part, or columns that do."
        )
    if not constant or scaling.kind != "standard":
        return ()
    more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
    return (f"constant where the model learns, so left unscaled: {', '.join(constant[:5])}{more}",)


def arrays(data: dict[str, np.ndarray], is_masked: bool, name: str) -> Any:
    """Windows as a model takes them: with their mask, or as one array, where nothing may be missing."""
    if is_masked:
        return data
    n_lost = int((~data["observed_x"]).sum())
    if n_lost:
        raise PplebmError(
            f"{name}: {n_lost} of {data['x'].size} entries of windows are missing, and the model takes no observed_x "
            f"to tell which; learn series_factors, or fill them."
        )
    return data["x"]


def _none_of(tree: Any) -> Any:
    return {name: a[:0] for name, a in tree.items()} if isinstance(tree, dict) else tree[:0]
