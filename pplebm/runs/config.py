"""Settings that a person asks of `pplebm.fit`, as data: from its arguments to the manifest of the run, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pplebm.data import names as data_names
from pplebm.errors import PplebmError

COMPILE_FROM = 200  # updates; a shorter run would not earn back the seconds of compiling


class RunConfig(NamedTuple):
    """The settings of a run; `pplebm.fit` tells what each means."""

    model: Any
    data: Any = "digits"
    inference: str | Path = "short_run_mle"
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

    def checked(self) -> RunConfig:
        """The same, if every number lies in its range.

        Raises:
            PplebmError: if one does not.
        """
        if self.updates is not None and self.updates < 1:
            raise PplebmError(f"updates must be positive, got {self.updates}.")
        if not 0 <= self.ema < 1 or self.patience < 0:
            given = f"{self.ema} and {self.patience}"
            raise PplebmError(f"ema must lie in [0, 1) and patience must not be negative, got {given}.")
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


def settings_of(config: RunConfig, updates: int) -> Settings:
    """The settings of a run of so many updates."""
    is_path = isinstance(config.data, (str, Path)) and str(config.data) not in data_names()
    return Settings(
        int(config.seed), config.backend, config.is_compiled(updates), config.precision, config.devices, config.nodes,
        config.strategy, float(config.ema), int(config.patience), bool(config.tensorboard), _absolute(config.start),
        config.scaling, _absolute(config.data) if is_path else None, _absolute(config.data_dir),
        config.guide is not None,
    )  # fmt: skip


def _absolute(path: Any) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())
