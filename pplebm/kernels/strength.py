r"""A kernel of fixed length in a density whose tilts count by a strength of every row's own."""

from __future__ import annotations

from typing import Any, NamedTuple

from pplebm.kernels.annealed import annealed
from pplebm.kernels.batch import zeros
from pplebm.kernels.kernel import Kernel, LogDensity, Target, density_of
from pplebm.ppl.language import PPL, Array, Key, Latents, Tree


class StrengthState(NamedTuple):
    """State of chains between steps, and how much the tilts count in the density each is in."""

    inner: Any
    tilt: Array  # (B,) strength of the tilts

    @property
    def z(self) -> Latents:
        """Latents."""
        z: Latents = self.inner.z
        return z

    @property
    def n_divergent(self) -> Array:
        """Divergent steps so far, per row."""
        return self.inner.n_divergent


def with_strength(inner: Kernel) -> Kernel:
    r"""Make a kernel that runs `inner` in :math:`p_0(z)\, e^{\beta f(z)}`, the strength kept in its state.

    The strengths of a new state are 1; `at_strength` makes a state of others. A kernel of trajectories is `annealed`.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> from pplebm.kernels.hmc import hmc
        >>> def log_density(z, tilt_strength=1.0):  # N(0, 1) tilted to N(0, 1/4)
        ...     return -0.5 * z["z"] ** 2 * (1.0 + 3.0 * tilt_strength)
        >>> kernel = with_strength(hmc())
        >>> state = at_strength(ppl, kernel, {"z": torch.zeros(1000)}, log_density, torch.zeros(1000))
        >>> for key in range(4):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.8 < state.z["z"].var() < 1.2
        tensor(True)
    """
    if inner.trajectory is not None:
        return annealed(inner)

    def init(ppl: PPL, z: Latents, log_density: Target) -> StrengthState:
        return StrengthState(inner.init(ppl, z, log_density), zeros(z) + 1.0)

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        return inner.noise(ppl, key, z)

    def move(ppl: PPL, noise: Tree, state: StrengthState, log_density: Target) -> tuple[StrengthState, Any]:
        new, info = inner.move(ppl, noise, state.inner, _times(log_density, state.tilt))
        return state._replace(inner=new), info

    return Kernel(("with strength", inner.settings), init, noise, move)


def at_strength(ppl: PPL, kernel: Kernel, z: Latents, log_density: Target, strength: Array) -> Any:
    """State of a kernel of `with_strength` at latents, in the density of a strength, (B,)."""
    return kernel.init(ppl, z, _times(log_density, strength))._replace(tilt=strength)


def _times(log_density: Target, strength: Array) -> LogDensity:
    whole = density_of(log_density, "a kernel of the tilted prior")
    return lambda z: whole(z, tilt_strength=strength)
