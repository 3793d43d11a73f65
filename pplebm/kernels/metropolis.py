"""What kernels share that accept or reject a proposal, every row by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pplebm.kernels.batch import by_site, of_site, zeros
from pplebm.kernels.kernel import LogDensity, refuse_score
from pplebm.ppl.language import Array, Latents


class MetropolisState(NamedTuple):
    """What the next step needs."""

    z: Latents
    log_density: Array  # (B,) at z
    gradient: Latents  # at z
    step_size: Array  # (B,) s
    scale: Latents  # by site, (B, *event): what the step size is multiplied with, about a standard deviation
    step: Any
    n_divergent: Array  # (B,) proposals so far whose density or energy error was not finite or huge


class MetropolisInfo(NamedTuple):
    """What a person wants to see of one step; (B,) each."""

    log_density: Array  # at the state after the step
    accept_prob: Array
    is_accepted: Array
    is_divergent: Array
    energy: Array  # -log density plus the kinetic energy, at the state after the step


def begin(ppl: Any, z: Latents, log_density: LogDensity, step_size: Any, scale: Any, who: str) -> MetropolisState:
    """State at the start of a chain.

    Args:
        step_size: a number, or one per row.
        scale: a number, an array or one per site.

    Raises:
        PplebmError: for a target without a log density, or a scale that lacks a site.
    """
    refuse_score(log_density, who)
    value, gradient = ppl.value_and_grad(log_density, z)
    scales = {site: 0.0 * a + ppl.asarray(of_site(by_site(scale), site, "scale")) for site, a in z.items()}
    return MetropolisState(z, value, gradient, zeros(z) + step_size, scales, ppl.asarray(0), zeros(z))


def hashable(scale: Any) -> Any:
    """A scale as plain numbers by site, so that kernels can be compared."""
    return tuple(sorted((site, tuple(np.asarray(a, float).ravel().tolist())) for site, a in by_site(scale).items()))


def uniform_noise(z: Latents) -> dict[str, Array]:
    """A template of two normal numbers per row, from which `log_uniform` makes a uniform one."""
    return {"first": zeros(z), "second": zeros(z)}


def log_uniform(noise: dict[str, Array]) -> Array:
    """log U, U ~ Uniform(0, 1), (B,): half the sum of two squared normals is a standard exponential."""
    return -0.5 * (noise["first"] ** 2 + noise["second"] ** 2)


def decide(ppl: Any, noise: dict[str, Array], log_ratio: Array) -> tuple[Array, Array, Array]:
    """Which rows accept, their acceptance probabilities, and which had no finite ratio; (B,) each."""
    fine = ppl.isfinite(log_ratio)
    ratio = ppl.where(fine, log_ratio, 0.0 * noise["first"] - 1e9)
    probability = ppl.exp(ppl.where(ratio < 0, ratio, 0.0 * ratio))
    return fine & (log_uniform(noise) < ratio), probability, ~fine
