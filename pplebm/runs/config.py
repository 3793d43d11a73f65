"""Settings that a person asks of `pplebm.fit`, as data: from its arguments to the manifest of the run, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pplebm.data import SCALINGS, Cut, check_fraction
from pplebm.data import names as data_names
from pplebm.errors import PplebmError
from pplebm.gallery.pages import DEFAULT
from pplebm.ppl.language import BACKENDS

MAX_SEED, MAX_COUNT = 2**32 - 1, 2**31 - 1  # what random generators, and counters in compiled loops, take
WORDS: dict[str, tuple[Any, ...]] = {
    "backend": BACKENDS, "precision": ("full", "bf16"), "scaling": (None, *SCALINGS),
}  # fmt: skip
COMPILE_FROM = 200  # updates; a shorter run would not earn back the seconds of compiling


class RunConfig(NamedTuple):
    """The settings of a run; `pplebm.fit` tells what each means."""

    model: Any
    data: Any = "digits"
    inference: str | Path = DEFAULT
    seed: int = 0
    updates: int | None = None
    hyper: Mapping[str, Any] = {}
    data_dir: str | Path | None = None
    backend: str = "pyro"
    compiled: bool | None = None
    precision: str = "full"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    ema: float = 0.0
    patience: int = 0
    guide: Callable[..., Any] | None = None
    start: str | Path | None = None
    tensorboard: bool = False
    scaling: str | None = None
    held_out_fraction: float = 0.2
    window: int | None = None
    stride: int | None = None
    time: str | None = None
    columns: Sequence[str] | None = None

    @property
    def cut(self) -> Cut | None:
        """How a series is cut into windows; None for data that are rows."""
        return cut_of(self)

    def checked(self) -> RunConfig:
        """The same, if every number lies in its range.

        Raises:
            PplebmError: if one does not.
        """
        _check_count("seed", self.seed, 0, MAX_SEED)
        updates = 1 if self.updates is None else self.updates
        for name, count in (("devices", self.devices), ("nodes", self.nodes), ("updates", updates)):
            _check_count(name, count, 1, MAX_COUNT)
        for name, words in WORDS.items():
            if (word := getattr(self, name)) not in words:
                known = ", ".join(w for w in words if w)
                raise PplebmError(f"{name} '{str(word)[:40]}' is not known; choose one of {known}.")
        if not callable(self.model) and not isinstance(self.model, (str, Path)):
            raise PplebmError(f"a model is a name, a path or a callable, not a {type(self.model).__name__}.")
        if not isinstance(self.inference, (str, Path)):
            raise PplebmError(f"inference is a name or a path, not a {type(self.inference).__name__}.")
        numbers: list[tuple[str, Any]] = [("ema", self.ema), ("patience", self.patience)]
        for name, number in numbers:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise PplebmError(f"{name} must be a number, got {number!r}.")
        check_fraction(self.held_out_fraction)
        given = [name for name in ("stride", "time", "columns") if getattr(self, name) is not None]
        if given and self.window is None:
            raise PplebmError(f"{given[0]} is of a series that is cut into windows; give window= as well.")
        if self.held_out_fraction == 0 and self.patience > 0:
            raise PplebmError("patience looks at held-out rows, and held_out_fraction=0 holds out none; leave one out.")
        if not 0 <= self.ema < 1 or self.patience < 0:
            both = f"{self.ema} and {self.patience}"
            raise PplebmError(f"ema must lie in [0, 1) and patience must not be negative, got {both}.")
        return self

    def is_compiled(self, updates: int) -> bool:
        """Whether chains of the Pyro backend are compiled in a run of so many updates."""
        return updates >= COMPILE_FROM if self.compiled is None else self.compiled


class Settings(NamedTuple):
    """Settings that a manifest keeps, as plain values; it has model, algorithm and data elsewhere."""

    seed: int
    backend: str
    compiled: bool
    precision: str
    devices: int
    nodes: int
    strategy: str
    ema: float
    patience: int
    tensorboard: bool
    start: str | None  # absolute path
    scaling: str | None  # as asked for; the data's own entry has what it came to
    data_path: str | None  # absolute path of a file; None for a named set or an array
    data_dir: str | None
    has_own_guide: bool
    held_out_fraction: float = 0.2
    window: int | None = None  # of a series, points; None for data that are rows
    stride: int | None = None
    time: str | None = None  # as asked for
    columns: list[str] | None = None  # as asked for; the data's own entry has those that there are

    @property
    def cut(self) -> Cut | None:
        """How the series is cut into windows; None for data that are rows."""
        return cut_of(self)


def cut_of(config: RunConfig | Settings) -> Cut | None:
    """How a series is cut; None without a window."""
    if config.window is None:
        return None
    return Cut(config.window, config.stride, config.time, None if config.columns is None else tuple(config.columns))


def settings_of(config: RunConfig, updates: int) -> Settings:
    """The settings of a run of so many updates."""
    is_path = isinstance(config.data, (str, Path)) and str(config.data) not in data_names()
    return Settings(
        int(config.seed), config.backend, config.is_compiled(updates), config.precision, config.devices, config.nodes,
        config.strategy, float(config.ema), int(config.patience), bool(config.tensorboard), _absolute(config.start),
        config.scaling, _absolute(config.data) if is_path else None, _absolute(config.data_dir),
        config.guide is not None, float(config.held_out_fraction), config.window, config.stride, config.time,
        None if config.columns is None else list(config.columns),
    )  # fmt: skip


def _absolute(path: Any) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _check_count(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, bool) and isinstance(value, (int, np.integer)) and low <= value <= high:
        return
    try:
        shown = repr(value)[:40]
    except ValueError:  # more digits than Python writes
        shown = "a longer one"
    must = "be positive" if low else "not be negative"
    raise PplebmError(f"{name} must {must}, a whole number of at most {high}, got {shown}.")
