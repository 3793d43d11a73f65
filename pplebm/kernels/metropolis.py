"""The half of kernels that accept or reject a proposal, every row by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pplebm.kernels.batch import by_site, choose, of_site, zeros
from pplebm.kernels.kernel import Target, density_of
from pplebm.ppl.language import PPL, Array, Latents

Scale = Array | Mapping[str, Array]  # a number, an array or one of these by site
S = TypeVar("S", bound=Any)  # a state with the fields of MetropolisState that accepting changes
Frozen = tuple[tuple[str, tuple[int, ...], tuple[float, ...]], ...]  # site, shape, numbers


class MetropolisState(NamedTuple):
    """State of a chain between steps."""

    z: Latents
    log_density: Array  # (B,) at z
    gradient: Latents  # at z
    step_size: Array  # (B,) s
    scale: Latents  # by site, (B, *event): what the step size is multiplied with, about a standard deviation
    step: Array
    n_divergent: Array  # (B,) proposals so far whose density or energy error was not finite or huge


class MetropolisInfo(NamedTuple):
    """Figures of one step, (B,) each."""

    log_density: Array  # at the state after the step
    accept_prob: Array
    is_accepted: Array
    is_divergent: Array
    energy: Array  # -log density plus the kinetic energy, at the state after the step
    num_steps: Array  # gradients it took
    step_size: Array


class Proposal(NamedTuple):
    """Where a row may go, and what is known there."""

    z: Latents
    log_density: Array
    gradient: Latents


def init_state(
    ppl: PPL, z: Latents, log_density: Target, step_size: float, scale: Frozen, kernel: str
) -> MetropolisState:
    """State at the start of a chain.

    Args:
        scale: of `frozen`.
        kernel: its name, for errors.

    Raises:
        PplebmError: for a target without a log density, or a scale that lacks a site.
    """
    value, gradient = ppl.value_and_grad(density_of(log_density, kernel), z)
    given = {site: np.reshape(numbers, shape) for site, shape, numbers in scale}
    scales = {site: 0.0 * a + ppl.asarray(of_site(given, site, "scale")) for site, a in z.items()}
    return MetropolisState(z, value, gradient, zeros(z) + step_size, scales, ppl.asarray(0), zeros(z))


def frozen(scale: Scale) -> Frozen:
    """A scale as plain numbers by site, which can be compared.

    >>> frozen({"z": [1, 2]})
    (('z', (2,), (1.0, 2.0)),)
    """
    arrays = {site: np.asarray(a, float) for site, a in by_site(scale).items()}
    return tuple(sorted((site, a.shape, tuple(a.ravel().tolist())) for site, a in arrays.items()))


def uniform_noise(z: Latents) -> dict[str, Array]:
    """A template of two normal numbers per row, from which `log_uniform` makes a uniform one."""
    return {"first": zeros(z), "second": zeros(z)}


def log_uniform(noise: dict[str, Array]) -> Array:
    """log U, U ~ Uniform(0, 1), (B,): half the sum of two squared normals is a standard exponential."""
    return -0.5 * (noise["first"] ** 2 + noise["second"] ** 2)


def decide(ppl: PPL, noise: dict[str, Array], log_ratio: Array) -> tuple[Array, Array, Array]:
    """Which rows accept, their acceptance probabilities, and which had no finite ratio; (B,) each."""
    is_finite = ppl.isfinite(log_ratio)
    ratio = ppl.where(is_finite, log_ratio, 0.0 * noise["first"] - 1e9)
    probability = ppl.exp(ppl.where(ratio < 0, ratio, 0.0 * ratio))
    return is_finite & (log_uniform(noise) < ratio), probability, ~is_finite


def accept(
    ppl: PPL,
    noise: dict[str, Array],
    state: S,
    proposal: Proposal,
    log_ratio: Array,
    energies: tuple[Array, Array],
    max_loss: float = math.inf,
    n_steps: int = 1,
) -> tuple[S, MetropolisInfo]:
    """The state after every row has accepted its proposal or stayed, and what there is to see of that.

    Args:
        noise: of `uniform_noise`.
        log_ratio: (B,) logarithm of what the acceptance probability is the minimum of, and 1.
        energies: (B,) before the proposal and after it.
        max_loss: nats; a proposal with a lower log ratio than minus that has diverged.
        n_steps: gradients that the proposal took.
    """
    is_accepted, probability, is_divergent = decide(ppl, noise, log_ratio)
    if max_loss < math.inf:
        is_divergent = is_divergent | (log_ratio < -max_loss)
    new = state._replace(
        z=choose(ppl, is_accepted, proposal.z, state.z),
        log_density=ppl.where(is_accepted, proposal.log_density, state.log_density),
        gradient=choose(ppl, is_accepted, proposal.gradient, state.gradient),
        step=state.step + 1,
        n_divergent=state.n_divergent + is_divergent,
    )
    energy = ppl.where(is_accepted, energies[1], energies[0])
    taken = zeros(new.z) + n_steps
    return new, MetropolisInfo(
        new.log_density, probability, is_accepted, is_divergent, energy, taken, state.step_size
    )  # fmt: skip
