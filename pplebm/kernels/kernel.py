"""What every kernel is: random numbers first, then a move that is a pure function of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import zeros
from pplebm.ppl.language import Array, Latents, Tree

LogDensity = Callable[..., Array]  # latents -> (B,); those of programs also take tilt_strength=, a number per row


class Tuning(NamedTuple):
    """What adaptation starts from and aims at."""

    step_size: float
    target_accept: float


class Kernel(NamedTuple):
    """A Markov transition `state, info = kernel(key, state, log_density)`.

    It is kept in parts, so that a loop may draw its random numbers ahead, and compile its move.
    """

    settings: Hashable  # two kernels of equal settings are the same kernel
    init: Callable[[Latents, LogDensity], Any]  # latents, log density -> state at the start of a chain
    noise: Callable[[Any, Latents], Tree]  # key, latents -> the random numbers of one step
    move: Callable[[Tree, Any, LogDensity], tuple[Any, Any]]  # noise, state, log density -> state, info
    tuning: Tuning | None = None  # of kernels whose step size and metric can be adapted
    replicas: int = 1  # rows of a state that belong to one chain, the last of them its draw

    def __call__(self, key: Any, state: Any, log_density: LogDensity) -> tuple[Any, Any]:
        """One step."""
        return self.move(self.noise(key, state.z), state, log_density)


class Score(NamedTuple):
    r"""A target that is known by its gradient :math:`\nabla_z \log p(z)` alone, such as a score network.

    Unadjusted kernels take it in the place of a log density; what they report as log density is then 0.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> from pplebm.kernels.langevin import langevin
        >>> kernel, score = langevin(ppl, 0.5, temperature=0.), Score(lambda z: {"z": -z["z"]})
        >>> kernel(0, kernel.init({"z": torch.tensor([4.])}, score), score)[0].z["z"].tolist()
        [3.5]
    """

    gradient: Callable[[Latents], Latents]


def value_and_gradient(ppl: Any, target: Any, z: Latents) -> tuple[Array, Latents]:
    """Log density, (B,), and its gradient by site; of a `Score` the gradient, and 0."""
    if isinstance(target, Score):
        return zeros(z), target.gradient(z)
    return ppl.value_and_grad(target, z)


def refuse_score(target: Any, who: str) -> None:
    """Raise for a target without a log density, which an accept decision needs."""
    if isinstance(target, Score):
        raise PplebmError(f"{who} accepts and rejects by the log density, and a Score has none; use langevin.")
