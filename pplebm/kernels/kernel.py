"""What every kernel is: random numbers first, then a move that is a pure function of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from pplebm.ppl import Array, Latents, Tree

LogDensity = Callable[[Latents], Array]


class Kernel(NamedTuple):
    """A Markov transition `state, info = kernel(key, state, log_density)`.

    It is kept in parts, so that a loop may draw its random numbers ahead, and compile its move.
    """

    settings: Hashable  # two kernels of equal settings are the same kernel
    init: Callable[[Latents], Any]  # latents -> state at the start of a chain
    noise: Callable[[Any, Latents], Tree]  # key, latents -> the random numbers of one step
    move: Callable[[Tree, Any, LogDensity], tuple[Any, Any]]  # noise, state, log density -> state, info

    def __call__(self, key: Any, state: Any, log_density: LogDensity) -> tuple[Any, Any]:
        """One step."""
        return self.move(self.noise(key, state.z), state, log_density)
