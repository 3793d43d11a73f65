r"""Microcanonical dynamics with an accept step: the speed never changes, and the force only turns it."""

from __future__ import annotations

from typing import get_args

from pplebm.errors import PplebmError
from pplebm.kernels.adaptive_hmc import MetricKind
from pplebm.kernels.batch import log, positive
from pplebm.kernels.kernel import Kernel
from pplebm.kernels.trajectory import Dynamics, trajectories
from pplebm.ppl.language import PPL, Array

TARGET_ACCEPT = 0.8  # of the harmonic mean; an arithmetic mean of about 0.9, as the authors have it


def mams(step_size: float = 0.5, target_accept: float = TARGET_ACCEPT, metric: MetricKind = "auto") -> Kernel:
    r"""Make a Metropolis-adjusted microcanonical kernel, which learns step size, metric and length as `adaptive_hmc`.

    .. math::
        \dot u = v, \qquad \dot v = \frac{d}{d - 1}\,(I - \hat v \hat v^T)\, g, \qquad
        \log \alpha = \min\Big(0, \log \frac{p(z')}{p(z)} - (d - 1) \sum \log(\cosh\delta + c \sinh\delta)\Big)

    with u the latents and g the gradient in coordinates of the metric, :math:`\|v\| = \sqrt d` and
    :math:`\hat v = v / \|v\|`; the sum goes over the turns of a trajectory, each by
    :math:`\delta = s \sqrt d \|g\| / (d - 1)`, at the cosine c between velocity and force. The speed is the same
    wherever the chain is, so that steep places throw it less far than Hamiltonian dynamics do. The target is exact. It
    needs two latents or more.

    Args:
        step_size: s > 0 in units of the metric, where adaptation starts, or what is used without it.
        target_accept: harmonic mean of the acceptance over chains that s is adapted to, in (0, 1).
        metric: as in `adaptive_hmc`.

    Raises:
        PplebmError: for settings outside their range, or a single latent.

    Source: Robnik, Cohn-Gordon, Seljak (2025, arXiv:2503.01707), section 3; the turn: Steeg, Galstyan (NeurIPS 2021).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = mams(0.4), lambda z: -0.5 * (z["z"] ** 2).sum(1)
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000, 3)}, log_density)
        >>> for key in range(6):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.8 < state.z["z"].var() < 1.2
        tensor(True)
    """
    positive("step_size", step_size)
    if not isinstance(target_accept, (int, float)) or not 0 < target_accept < 1:
        raise PplebmError(f"target_accept must lie in (0, 1), got {target_accept!r}.")
    if metric not in get_args(MetricKind):
        raise PplebmError(f"metric '{metric}' is not known; choose one of {', '.join(get_args(MetricKind))}.")
    dynamics = Dynamics(_velocity, _turn, lambda v: 0.0 * v[:, 0])
    return trajectories("mams", dynamics, step_size, target_accept, metric, least_width=2)


def _velocity(ppl: PPL, normal: Array) -> Array:
    """A direction at random, as long as the root of the number of latents."""
    return normal * (normal.shape[1] ** 0.5 / ((normal**2).sum(1, keepdims=True) ** 0.5 + 1e-30))


def _turn(ppl: PPL, velocity: Array, force: Array, size: Array) -> tuple[Array, Array]:
    r"""Velocity turned towards the force for a time, and :math:`(d - 1) \log(\cosh\delta + c \sinh\delta)`."""
    width = velocity.shape[1]
    strength = ((force**2).sum(1) + 1e-30) ** 0.5
    toward, unit = force / strength[:, None], velocity / width**0.5
    delta = size * width**0.5 * strength / (width - 1)
    cosine = (toward * unit).sum(1)
    reach = ppl.where(delta < 0, -delta, delta)  # hyperbolic functions times exp(-reach), which cannot overflow
    up, down = 0.5 * ppl.exp(delta - reach), 0.5 * ppl.exp(-delta - reach)
    stretch = (1.0 + cosine) * up + (1.0 - cosine) * down + 1e-30
    along = (up - down) + cosine * (up + down - ppl.exp(-reach))
    turned = (unit * ppl.exp(-reach)[:, None] + along[:, None] * toward) / stretch[:, None]
    length = (turned**2).sum(1, keepdims=True) ** 0.5
    return turned * width**0.5 / (length + 1e-30), (width - 1) * (log(ppl, stretch) + reach)
