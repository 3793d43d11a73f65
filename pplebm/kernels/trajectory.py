r"""Trajectories that are accepted or rejected as a whole, of learned length and in a learned metric."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.batch import choose
from pplebm.kernels.kernel import Kernel, Target, Tuning, value_and_gradient
from pplebm.kernels.metric import Metric, flat, pull, stretch, unflat
from pplebm.kernels.metropolis import Proposal, accept, init_state, uniform_noise
from pplebm.ppl.language import PPL, Array, Key, Latents, Tree

MAX_STEPS = 512  # of a trajectory
LONGER_THAN_MOST = 4.0  # times the steps of the middle row are the most of any
FIRST_STEPS = 16  # of the longest trajectory before a length is learned
MAX_ENERGY_ERROR = 1000.0  # nats; a trajectory that loses more has diverged
DENSE_WIDTH, LOW_RANK = 64, 16  # latents up to which the metric is dense; directions of a wider one
MAX_NUMBERS = 30_000_000  # in the directions of all rows together, beyond which the metric is diagonal
HALTON = sum(((np.arange(4096) // 2**b) % 2) * 2.0 ** -(b + 1) for b in range(12)) + 2.0**-13


class TrajectoryState(NamedTuple):
    """State of a chain between trajectories."""

    z: Latents
    log_density: Array  # (B,) at z
    gradient: Latents  # at z
    step_size: Array  # (B,) in units of the metric
    metric: Metric
    length: Array  # (B,) of the longest trajectory, in units of the metric; 0 before one is known
    step: Array
    n_divergent: Array  # (B,)


class Leap(NamedTuple):
    """A trajectory under way: where it is, and how many steps each row has left."""

    z: Latents
    log_density: Array
    gradient: Latents
    momentum: Array  # (B, d) in units of the metric, half a step ahead
    gain: Array  # (B,) kinetic energy won so far, where the momentum does not tell
    size: Array  # (B,)
    left: Array  # (B,)
    metric: Metric


class Dynamics(NamedTuple):
    """How momentum is drawn and changed, and its energy; momenta are (B, d) in units of the metric."""

    draw: Callable[[PPL, Array], Array]  # standard normal numbers -> momentum
    kick: Callable[[PPL, Array, Array, Array], tuple[Array, Array]]  # momentum, force, size -> momentum, energy won
    kinetic: Callable[[Array], Array]


def trajectories(
    name: str, dynamics: Dynamics, step_size: float, target_accept: float, metric: str, least_width: int = 1
) -> Kernel:
    """Assemble a kernel of leapfrog steps in some dynamics.

    Args:
        name: of the kernel.
        dynamics: of the momentum.
        step_size: in units of the metric, where adaptation starts, or what is used without it.
        target_accept: harmonic mean of the acceptance over the chains of a datum that adaptation aims at.
        metric: "dense", "low rank", "diagonal", or "auto" for the first of these that is no burden.
        least_width: latents of a datum below which the dynamics cannot be.
    """

    def init(ppl: PPL, z: Latents, log_density: Target) -> TrajectoryState:
        width = sum(int(np.prod(a.shape[1:])) for a in z.values())
        if width < least_width:
            raise PplebmError(f"{name} needs {least_width} latents or more, and there is {width}; use adaptive_hmc.")
        at = init_state(ppl, z, log_density, step_size, (("", (), (1.0,)),), name)
        unit = _unit(ppl, z, rank_of(metric, width, len(at.step_size)))
        length = 0.0 * at.step_size
        return TrajectoryState(
            at.z, at.log_density, at.gradient, at.step_size, unit, length, at.step, at.n_divergent
        )  # fmt: skip

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        return ppl.normal_like(key, {"accept": uniform_noise(z), "momentum": flat(ppl, z)})

    def begin(ppl: PPL, noise: Tree, state: TrajectoryState) -> Leap:
        momentum = dynamics.draw(ppl, noise["momentum"])
        force = pull(state.metric, flat(ppl, state.gradient))
        ahead, gain = dynamics.kick(ppl, momentum, force, 0.5 * state.step_size)
        left = n_steps(ppl, state)
        return Leap(state.z, state.log_density, state.gradient, ahead, gain, state.step_size, left, state.metric)

    def leap(ppl: PPL, at: Leap, log_density: Target) -> Leap:
        shift = at.size[:, None] * stretch(at.metric, at.momentum)
        z = {site: a + d for (site, a), d in zip(at.z.items(), unflat(shift, at.z).values(), strict=True)}
        value, gradient = value_and_gradient(ppl, log_density, z)
        momentum, gain = dynamics.kick(ppl, at.momentum, pull(at.metric, flat(ppl, gradient)), at.size)
        goes = at.left > 0.5
        return at._replace(
            z=choose(ppl, goes, z, at.z),
            log_density=ppl.where(goes, value, at.log_density),
            gradient=choose(ppl, goes, gradient, at.gradient),
            momentum=ppl.where(goes[:, None], momentum, at.momentum),
            gain=ppl.where(goes, at.gain + gain, at.gain),
            left=at.left - 1.0,
        )

    def end(ppl: PPL, noise: Tree, state: TrajectoryState, at: Leap) -> tuple[TrajectoryState, TrajectoryInfo]:
        back, gain = dynamics.kick(ppl, at.momentum, pull(at.metric, flat(ppl, at.gradient)), -0.5 * at.size)
        kinetic = dynamics.kinetic(dynamics.draw(ppl, noise["momentum"]))
        before, after = kinetic - state.log_density, dynamics.kinetic(back) - at.log_density
        ratio = before - after - (at.gain + gain)
        proposal = Proposal(at.z, at.log_density, at.gradient)
        new, info = accept(ppl, noise["accept"], state, proposal, ratio, (before, after), MAX_ENERGY_ERROR)
        steps = info._replace(num_steps=n_steps(ppl, state), step_size=state.step_size)
        return new, TrajectoryInfo(*steps, proposal=at.z, velocity=back)

    settings = (name, step_size, target_accept, metric)
    tuning = Tuning(step_size, target_accept)
    return assembled(settings, init, noise, Trajectory(name, begin, leap, end), tuning)


class TrajectoryInfo(NamedTuple):
    """Figures of one trajectory, (B,) each, those of `MetropolisInfo` first, and its end for adaptation."""

    log_density: Array
    accept_prob: Array
    is_accepted: Array
    is_divergent: Array
    energy: Array
    num_steps: Array
    step_size: Array
    proposal: Latents
    velocity: Array  # (B, d) at the end, in units of the metric


class Trajectory(NamedTuple):
    """The parts of a move, so that a backend may make a graph of one leapfrog step whatever their number."""

    dynamics: str  # name of the dynamics: leapfrog steps of the same name are the same
    begin: Callable[[PPL, Tree, Any], Any]  # a TrajectoryState, or what holds one, to a Leap, or what holds one
    leap: Callable[[PPL, Any, Target], Any]
    end: Callable[[PPL, Tree, Any, Any], tuple[Any, Any]]


def assembled(
    settings: Hashable,
    init: Callable[..., Any],
    noise: Callable[[PPL, Key, Latents], Tree],
    parts: Trajectory,
    tuning: Tuning | None,
) -> Kernel:
    """A kernel whose move is made of the parts of a trajectory."""

    def move(ppl: PPL, noise: Tree, state: Any, log_density: Target) -> tuple[Any, Any]:
        start = parts.begin(ppl, noise, state)
        step = lambda at, _: (parts.leap(ppl, at, log_density), None)
        at, _ = ppl.iterate(step, start, start.left.max())
        return parts.end(ppl, noise, state, at)

    return Kernel(settings, init, noise, move, tuning, trajectory=parts)


def n_steps(ppl: PPL, state: TrajectoryState) -> Array:
    r"""Leapfrog steps of the next trajectory of every row, (B,): :math:`\lceil h T / s \rceil`, h a Halton number.

    All rows wait for the longest: none has more than four times as many steps as the middle one.
    """
    h = halton(ppl, state.step)
    wanted = ppl.where(state.length > 0.0, h * state.length / state.step_size, h * FIRST_STEPS + 0.0 * state.step_size)
    steps = clipped(ppl, -((-wanted) // 1.0), 1.0, float(MAX_STEPS))
    most = LONGER_THAN_MOST * ppl.median(steps, 0)
    return ppl.where(steps < most, steps, most)


def halton(ppl: PPL, step: Array) -> Array:
    r"""Number `step` of the Halton sequence in base 2, repeated after 4096, moved off 0 by half its least part.

    >>> import torch, pplebm.backends.pyro as ppl
    >>> [round(float(halton(ppl, torch.tensor(i))), 2) for i in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    """
    return ppl.take(ppl.asarray(HALTON), step % len(HALTON))


def clipped(ppl: PPL, a: Array, low: float, high: float) -> Array:
    """Numbers moved into an interval."""
    a = ppl.where(a < high, a, high)
    return ppl.where(a > low, a, low)  # what is not a number becomes the least


def rank_of(metric: str, width: int, rows: int) -> int:
    """Directions of a metric for so many latents and rows."""
    if metric == "diagonal" or width == 1:
        return 0
    rank = width if metric == "dense" or (metric == "auto" and width <= DENSE_WIDTH) else min(LOW_RANK, width)
    return 0 if metric == "auto" and rows * width * rank > MAX_NUMBERS else rank


def _unit(ppl: PPL, z: Latents, rank: int) -> Metric:
    ones = 1.0 + 0.0 * flat(ppl, z)
    columns = ppl.asarray(np.eye(ones.shape[1], rank))
    return Metric(ones, 0.0 * ones[:, :, None] + columns, 1.0 + 0.0 * ones[:, :rank])
