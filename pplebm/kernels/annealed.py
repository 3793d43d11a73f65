r"""Trajectories in a density between base and target: tilts and likelihood at a strength of every row's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import zeros
from pplebm.kernels.kernel import Kernel, LogDensity, Target, density_of
from pplebm.kernels.trajectory import Leap, Trajectory, TrajectoryInfo, TrajectoryState, assembled
from pplebm.ppl.language import PPL, Array, Key, Latents, Tree


class AnnealedState(NamedTuple):
    """State of chains between steps, and the density each is in."""

    inner: TrajectoryState
    tilt: Array  # (B,) strength of the tilts
    likelihood: Array  # (B,) strength of the likelihood

    @property
    def z(self) -> Latents:
        """Latents."""
        return self.inner.z

    @property
    def n_divergent(self) -> Array:
        """Divergent steps so far, per row."""
        return self.inner.n_divergent


class AnnealedLeap(NamedTuple):
    """A trajectory under way, and the density it is in."""

    inner: Leap
    tilt: Array
    likelihood: Array

    @property
    def z(self) -> Latents:
        """Latents."""
        return self.inner.z

    @property
    def left(self) -> Array:
        """Leapfrog steps that are left, per row."""
        return self.inner.left


def annealed(inner: Kernel) -> Kernel:
    r"""Make a kernel that runs `inner` in the density of every row's strengths, kept in its state.

    .. math:: \pi(z) \propto p_0(z)\, e^{\beta_f f(z)}\, p(x \mid z)^{\beta_x}

    and without the likelihood for chains of the prior. The strengths of a new state are 1.

    Args:
        inner: made by `adaptive_hmc` or `mams`.

    Raises:
        PplebmError: for another inner kernel.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> from pplebm.kernels.adaptive_hmc import adaptive_hmc
        >>> kernel = annealed(adaptive_hmc(0.4))
        >>> def log_density(z, tilt_strength=1.0, likelihood_strength=1.0):  # N(0, 1) tilted to N(0, 1/4)
        ...     return -0.5 * z["z"] ** 2 * (1.0 + 3.0 * tilt_strength)
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)._replace(tilt=torch.zeros(1000))
        >>> for key in range(4):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.8 < state.z["z"].var() < 1.2
        tensor(True)
    """
    if inner.trajectory is None:
        raise PplebmError(f"the inner kernel must be adaptive_hmc or mams, got {inner.settings}.")
    parts: Trajectory = inner.trajectory

    def init(ppl: PPL, z: Latents, log_density: Target) -> AnnealedState:
        one = zeros(z) + 1.0
        return AnnealedState(inner.init(ppl, z, density_of(log_density, "annealed")), one, one)

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        return inner.noise(ppl, key, z)

    def begin(ppl: PPL, noise: Tree, state: AnnealedState) -> AnnealedLeap:
        return AnnealedLeap(parts.begin(ppl, noise, state.inner), state.tilt, state.likelihood)

    def leap(ppl: PPL, at: AnnealedLeap, log_density: Target) -> AnnealedLeap:
        return at._replace(inner=parts.leap(ppl, at.inner, at_strength(log_density, at.tilt, at.likelihood)))

    def end(ppl: PPL, noise: Tree, state: AnnealedState, at: AnnealedLeap) -> tuple[AnnealedState, TrajectoryInfo]:
        new, info = parts.end(ppl, noise, state.inner, at.inner)
        return state._replace(inner=new), info

    changed = Trajectory(f"annealed {parts.dynamics}", begin, leap, end)
    return assembled(("annealed", inner.settings), init, noise, changed, None)


def at_strength(log_density: Target, tilt: Array, likelihood: Array) -> LogDensity:
    """The log density with its tilts and its likelihood times a number per row."""
    whole: Callable[..., Any] = density_of(log_density, "annealed")
    return lambda z: whole(z, tilt_strength=tilt, likelihood_strength=likelihood)
