r"""Hamiltonian Monte Carlo of learned length in a learned metric: what `pplebm.sample` does unless told otherwise."""

from __future__ import annotations

from typing import Literal, get_args

from pplebm.errors import PplebmError
from pplebm.kernels.batch import positive
from pplebm.kernels.kernel import Kernel
from pplebm.kernels.trajectory import Dynamics, trajectories
from pplebm.ppl.language import PPL, Array

TARGET_ACCEPT = 0.651  # of the harmonic mean; Hoffman, Radul, Sountsov (2021), section 4
MetricKind = Literal["auto", "dense", "low rank", "diagonal"]


def adaptive_hmc(step_size: float = 0.5, target_accept: float = TARGET_ACCEPT, metric: MetricKind = "auto") -> Kernel:
    r"""Make a Hamiltonian Monte Carlo kernel that learns its step size, its metric and its length during warm-up.

    .. math::
        z \leftarrow z + s A p, \quad p \leftarrow p + s A^T \nabla \log p(z), \quad p \sim N(0, I), \qquad
        L_t = \lceil h_t T / s \rceil

    in leapfrog order, with :math:`h_t` the Halton sequence in (0, 1) and T the length of the longest trajectory.
    In `pplebm.sample`, T is learned by the ChEES criterion in the metric's coordinates, the same for all rows; A by
    the Fisher divergence, and s by dual averaging of the harmonic mean acceptance, one for the chains of a datum
    together. Without warm-up, A = I and trajectories have up to 16 steps.

    Args:
        step_size: s > 0 in units of the metric, where adaptation starts, or what is used without it.
        target_accept: harmonic mean of the acceptance over chains that s is adapted to, in (0, 1).
        metric: "dense", "low rank", "diagonal"; "auto" is dense up to 64 latents, of low rank beyond, and diagonal
            where the rows of all chains and data would need too much memory.

    Raises:
        PplebmError: for settings outside their range.

    Source: Hoffman, Radul, Sountsov (AISTATS 2021); the metric: Seyboldt, Carlson, Carpenter (2026, arXiv:2603.18845).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = adaptive_hmc(0.4), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)
        >>> for key in range(4):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.8 < state.z["z"].var() < 1.2, info.num_steps[0]
        (tensor(True), tensor(13.))
    """
    positive("step_size", step_size)
    if not isinstance(target_accept, (int, float)) or not 0 < target_accept < 1:
        raise PplebmError(f"target_accept must lie in (0, 1), got {target_accept!r}.")
    if metric not in get_args(MetricKind):
        raise PplebmError(f"metric '{metric}' is not known; choose one of {', '.join(get_args(MetricKind))}.")
    dynamics = Dynamics(lambda ppl, normal: normal, _kick, lambda p: 0.5 * (p**2).sum(1))
    return trajectories("adaptive_hmc", dynamics, float(step_size), float(target_accept), metric)


def _kick(ppl: PPL, momentum: Array, force: Array, size: Array) -> tuple[Array, Array]:
    """Momentum along the force; its kinetic energy tells what is won."""
    return momentum + size[:, None] * force, 0.0 * size
