r"""Normalising constants relative to the base by annealed importance sampling and sequential Monte Carlo."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from pplebm.evidence.annealing import importance_sampled, log_mean, refined, sequential
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.path import Path
from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import take_rows
from pplebm.program import Program
from pplebm.sampling.blocks import block_seed
from pplebm.sampling.importance import GOOD_K_HAT, pareto_k_hat

LOG_WEIGHT_VARIANCE = 0.35  # nats squared, of annealed particles that move perfectly; real ones about double it
GROUPS = 8  # of particles whose spread is the error of sequential Monte Carlo
MOST_SPREAD = 1.0  # relative, of the constants of groups: beyond it their mean and its error are not to be trusted
PILOT_PARTICLES = 32
ZERO = -1e5  # the log of a weight that is none, beside the largest one
AGAIN = 4  # times the particles and the steps, where the weights were too heavy


def annealed_importance(
    program: Program,
    params: Params,
    data: Data | None,
    observed: bool,
    *,
    n_particles: int = 64,
    tilted: bool = True,
    seed: int = 0,
    bar: tqdm | None = None,
) -> Evidence:
    r"""Log normalising constant relative to the base, by annealed importance sampling with adapted trajectories.

    .. math:: \log \hat Z = \log \frac1n \sum_i w_i, \qquad \hat\sigma = \frac{\mathrm{sd}(w)}{\sqrt n\, \bar w}

    A pilot of 32 particles, by sequential Monte Carlo, chooses strengths, step sizes and metrics of every datum. They
    are cut finer, until the log weights would have a variance of a third, and fixed: the mean weight has no bias then.
    Data whose weights are too heavy for their number are run again with four times as many particles and steps, the
    only part of it that looks at weights.

    Args:
        program, params: any.
        data: one target for every row; None for a prior that reads none.
        observed: whether the targets are posteriors, or tilted priors.
        n_particles: of every datum.
        tilted: whether the tilts are part of the targets.
        seed: of all random numbers.
        bar: of progress.

    Source: Neal (Statistics and Computing 2001).
    """
    path = lambda data, n: Path(program, params, data, observed, n, tilted)
    run = lambda data, n, variance, seed: _annealed(path(data, PILOT_PARTICLES), path(data, n), variance, seed, bar)
    found = run(data, n_particles, LOG_WEIGHT_VARIANCE, seed)
    again = np.flatnonzero(~found.is_trusted)
    if not len(again):
        return found
    rows = data if data is None or program.has_global_latents else take_rows(data, program.ppl.asarray(again))
    return found.replaced(again, run(rows, AGAIN * n_particles, LOG_WEIGHT_VARIANCE / AGAIN, block_seed(seed, 2)))


def _annealed(first: Path, path: Path, variance: float, seed: int, bar: tqdm | None) -> Evidence:
    """An estimate by the particles of a path, at settings that those of a first one find."""
    pilot = sequential(first, block_seed(seed, 0), bar=bar)
    log_weight, _ = importance_sampled(path, block_seed(seed, 1), refined(pilot.schedule, variance), bar)
    return of_weights("annealed importance sampling", log_weight).doubted(pilot.reasons)


def of_weights(method: str, log_weight: np.ndarray) -> Evidence:
    """The mean weight of every datum with its error, judged by k-hat.

    Args:
        method: its name.
        log_weight: (n, data) of independent particles.
    """
    n, top = len(log_weight), log_weight.max(0)
    there = np.isfinite(top)
    shifted = np.where(there, log_weight - np.where(there, top, 0.0), 0.0)
    lost = shifted == -np.inf  # weights that are zero have no part in the tail
    relative = np.exp(shifted)
    error = relative.std(0, ddof=1) / relative.mean(0) / n**0.5
    k_hat = np.array([pareto_k_hat(column) for column in np.where(lost, ZERO, shifted).T])
    reasons = ["" if k <= GOOD_K_HAT else _heavy(k, n) for k in k_hat]
    reasons = [reason if ok else "no particle has any weight." for reason, ok in zip(reasons, there, strict=True)]
    value = log_mean(shifted, 0) + np.where(there, top, 0.0)
    return Evidence.of(method, value, error, relative.sum(0) ** 2 / (relative**2).sum(0), k_hat, n - 1, reasons)


def sequential_monte_carlo(
    program: Program,
    params: Params,
    data: Data | None,
    observed: bool,
    *,
    n_particles: int = 256,
    tilted: bool = True,
    seed: int = 0,
    bar: tqdm | None = None,
) -> Evidence:
    r"""Log normalising constant relative to the base, by sequential Monte Carlo with adaptive strengths.

    Eight groups of particles share strengths and the settings of the kernel, and are drawn anew each for itself; their
    spread is the error, with seven degrees of freedom. Since the strengths are chosen by the particles themselves, the
    estimate has a bias of the order 1 / n.

    Args:
        program, params, data, observed, tilted, seed, bar: as in `annealed_importance`.
        n_particles: of every datum, a multiple of eight.
    """
    per_group = -(-n_particles // GROUPS)
    path = Path(program, params, data, observed, GROUPS * per_group, tilted)
    pilot = sequential(path, block_seed(seed, 0), GROUPS, bar=bar)
    log_constants = pilot.log_constants
    relative = np.exp(log_constants - log_constants.max(0))
    spread = relative.std(0, ddof=1) / relative.mean(0)
    error = spread / GROUPS**0.5
    reasons = ["" if s <= MOST_SPREAD else _spread(s, per_group) for s in spread]
    ess = np.minimum(GROUPS * per_group, 1.0 / np.maximum(error, 1e-12) ** 2)
    value = log_mean(log_constants, 0)
    found = Evidence.of("sequential Monte Carlo", value, error, ess, np.nan, GROUPS - 1, reasons)
    return found.doubted(pilot.reasons)


def _heavy(k_hat: float, n: int) -> str:
    return (
        f"k-hat of {n} weights is {k_hat:.2f}, above {GOOD_K_HAT}: a few of them are the estimate; take more particles."
    )


def _spread(spread: float, n: int) -> str:
    return f"{GROUPS} groups of {n} particles differ by {spread:.1f} of their mean; take more particles."
