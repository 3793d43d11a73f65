"""Runs of a model, as a backend makes them: what `pplebm.backends.traced` builds densities and draws of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from pplebm.backends.visit import At, Visit
from pplebm.ppl.language import Array, Data, Latents, Params, Reads, Structure


class ModelRuns(ABC):
    """A model, and what a backend adds to run it.

    How its models are run (`run`), how its distributions are seen (`to_value`, `density`, ...), how functions are
    mapped over chains (`by_chain`) and compiled (`graph`, `evaluator`), and what NumPy calls otherwise.
    """

    ppl_name: str
    first_key: Any
    structure: Structure
    reads: Reads
    params: Params
    tilt_params: frozenset[str] = frozenset()
    prior_params: frozenset[str] = frozenset()
    reached_params: frozenset[str] = frozenset()
    unregistered: list[tuple[int, ...]] = []
    supports: dict[str, Any] = {}  # of latents

    def __init__(self, model: Callable[..., Any], data: Data, others: Callable[[], list[Data]] | None) -> None:
        self.model, self.example = model, data
        self.others = others  # as many rows from elsewhere, more than once; None if the data are whole
        self._evaluators: dict[Any, Callable[..., Any]] = {}

    @abstractmethod
    def run(self, params: Params, data: Data, at: At, key: Any = None) -> Visit:
        """Run the model at latents of data, or of one chain of a joint program."""

    @abstractmethod
    def by_chain(self, function: Callable[..., Any], *trees: Any) -> Any:
        """Apply to all rows: at once where rows are data, else chain by chain."""

    @abstractmethod
    def with_keys(self, function: Callable[..., Any], z: Latents, key: Any) -> Any:
        """Apply a function of latents and a key, with randomness of its own in every chain of a joint program."""

    @abstractmethod
    def graph(self, kind: Any, eager: Callable[..., Any], params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Evaluate `eager(params, z, data)`, fast from the second time on."""

    @abstractmethod
    def evaluator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A pure function of trees as it is best called a few times: compiled as a whole, or as it is."""

    @abstractmethod
    def shapes(self, function: Callable[..., dict[str, Array]], *trees: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the results of a function."""

    @abstractmethod
    def dependencies(self, function: Callable[[Data], dict[str, Array]], data: Data) -> dict[str, set[str]] | None:
        """By result, paths of the data that the operations which made it took in; None if they cannot be followed."""

    @abstractmethod
    def to_value(self, msg: Any, u: Array, coordinates: str) -> tuple[Array, Array]:
        """Value of a latent at coordinates, and its log density there."""

    @abstractmethod
    def to_coordinates(self, msg: Any, coordinates: str) -> Array:
        """The inverse: coordinates of a latent's value."""

    @abstractmethod
    def density_at(self, msg: Any, u: Array) -> Array:
        """Log density of a latent that has its value already, which coordinates u led to."""

    @abstractmethod
    def density(self, msg: Any) -> Array:
        """Log density of a statement's value, scales and masks included."""

    @abstractmethod
    def plain_density(self, msg: Any) -> Array:
        """The same without them."""

    @abstractmethod
    def mean(self, msg: Any) -> Array:
        """Mean of a statement's distribution."""

    @abstractmethod
    def inside(self, msg: Any) -> Array:
        """Whether values lie in their support."""

    @abstractmethod
    def masks_of(self, msg: Any) -> Array | None:
        """Where a statement counts, if masks say so."""

    @abstractmethod
    def counted(self, msg: Any) -> Array | None:
        """Which numbers of a statement's value count, if masks say so; of the shape of the value."""

    @abstractmethod
    def unobserve(self, msg: Any) -> None:
        """Let an observed statement draw."""

    @abstractmethod
    def moved_axis(self, a: Array, source: int, target: int) -> Array:
        """An axis moved to another place."""

    @abstractmethod
    def stacked(self, arrays: list[Array]) -> Array:
        """Arrays along a new first axis."""

    @abstractmethod
    def splits(self, key: Any, n: int) -> Any:
        """n keys of one."""

    @abstractmethod
    def averaged(self, function: Callable[[Any], dict[str, Array]], keys: Any) -> dict[str, Array]:
        """Mean of a function of a key over many keys."""

    @abstractmethod
    def index(self, rows: Any) -> Array:
        """Numbers of rows."""

    @abstractmethod
    def off_gradient(self) -> Any:
        """A context without derivatives."""

    @abstractmethod
    def numpy(self, a: Array) -> np.ndarray:
        """As an array of NumPy."""

    @abstractmethod
    def like(self, a: np.ndarray, of: Array) -> Array:
        """Back, with the dtype of another one."""

    def evaluate(self, kind: Any, function: Callable[..., Any], *trees: Any) -> Any:
        """Result of a pure function, whose evaluator is kept for further calls of its kind."""
        if kind not in self._evaluators:
            self._evaluators[kind] = self.evaluator(function)
        return self._evaluators[kind](*trees)
