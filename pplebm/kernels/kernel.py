"""Kernels: settings, random numbers, and a move that is a pure function of both."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import zeros
from pplebm.ppl.language import PPL, Array, Key, Latents, Tree

LogDensity = Callable[..., Array]  # latents -> (B,); those of programs also take strengths, a number per row
State = Any  # a NamedTuple, `z` and `n_divergent` among its fields
Info = Any  # a NamedTuple of figures of a step, `log_density` and `is_divergent` among them


class Score(NamedTuple):
    r"""A target that is known by its gradient :math:`\nabla_z \log p(z)` alone, such as a score network.

    Unadjusted kernels take it in the place of a log density; what they report as log density is then 0.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> from pplebm.kernels.langevin import langevin
        >>> kernel, score = langevin(0.5, temperature=0.), Score(lambda z: {"z": -z["z"]})
        >>> kernel(ppl, 0, kernel.init(ppl, {"z": torch.tensor([4.])}, score), score)[0].z["z"].tolist()
        [3.5]
    """

    gradient: Callable[[Latents], Latents]


Target = LogDensity | Score


class Tuning(NamedTuple):
    """Start and aim of adaptation."""

    step_size: float
    target_accept: float


@dataclass(frozen=True)
class Kernel:
    """A Markov transition `state, info = kernel(ppl, key, state, log_density)`, the same on every backend.

    It is kept in parts, so that a loop may draw its random numbers ahead, and compile its move. Kernels of equal
    settings are equal, and share what is compiled for them.

    Example:
        >>> from pplebm.kernels.hmc import hmc
        >>> hmc(n_leapfrog=8) == hmc(), hmc(n_leapfrog=8) == hmc(n_leapfrog=9)
        (True, False)
    """

    settings: Hashable
    init: Callable[[PPL, Latents, Target], State] = field(compare=False)  # backend, latents, log density
    noise: Callable[[PPL, Key, Latents], Tree] = field(compare=False)  # backend, key, latents -> that of one step
    move: Callable[[PPL, Tree, State, Target], tuple[State, Info]] = field(compare=False)
    tuning: Tuning | None = field(default=None, compare=False)  # of kernels whose step size and metric can be adapted
    replicas: int = field(default=1, compare=False)  # rows of a state for one chain, the last of them its draw
    trajectory: Any = field(default=None, compare=False)  # the parts of a move whose length varies

    def __call__(self, ppl: PPL, key: Key, state: State, log_density: Target) -> tuple[State, Info]:
        """One step."""
        return self.move(ppl, self.noise(ppl, key, state.z), state, log_density)


def normal_noise(ppl: PPL, key: Key, z: Latents) -> Latents:
    """One standard normal number for every latent."""
    noise: Latents = ppl.normal_like(key, z)
    return noise


def value_and_gradient(ppl: PPL, target: Target, z: Latents) -> tuple[Array, Latents]:
    """Log density, (B,), and its gradient by site; of a `Score` the gradient, and 0."""
    if isinstance(target, Score):
        return zeros(z), target.gradient(z)
    return ppl.value_and_grad(target, z)


def density_of(target: Target, kernel: str) -> LogDensity:
    """The log density of a target.

    Raises:
        PplebmError: naming the kernel, for a `Score`, which has none.
    """
    if isinstance(target, Score):
        raise PplebmError(f"{kernel} needs the log density itself, and a Score has none; use langevin.")
    return target
