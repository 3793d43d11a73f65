r"""Importance sampling by a proposal: the base, a Laplace approximation, the ends of a short run, or a guide."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from pplebm.errors import PplebmError
from pplebm.evidence.annealed import of_weights
from pplebm.evidence.annealing import log_mean
from pplebm.evidence.chains import target_chains
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.path import Path
from pplebm.evidence.proposals import Proposal, fitted
from pplebm.ppl.language import Data, Params
from pplebm.program import Program
from pplebm.sampling.blocks import block_seed
from pplebm.sampling.guide_draws import sample_guide

Kind = Literal["auto", "base", "laplace", "short run", "guide"]
FREEDOM = 8.0  # of Student proposals: tails heavier than those of most posteriors, little lost in 20 dimensions
ASCENT_STEPS, ASCENT_RATE = 400, 0.1  # of Adam, towards the mode
STEP = 0.01  # of differences of gradients, in noncentered coordinates, where the base has a width near 1
SHORT_CHAINS, SHORT_DRAWS = 32, 10  # of the short run whose moments are those of the proposal
DRAWS_PER_LATENT = 20  # at least, for a covariance


def importance_weights(
    program: Program,
    params: Params,
    data: Data | None,
    observed: bool,
    *,
    n_particles: int = 1024,
    tilted: bool = True,
    proposal: Kind = "auto",
    seed: int = 0,
    bar: tqdm | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    r"""Log weights of independent draws of a proposal, (n, data), whose mean is the constant relative to the base.

    .. math:: \log w = \log p_0(z) + U(z) - \log q(z), \qquad E\, w = Z

    Args:
        program, params, data, observed, tilted, seed, bar: as in `annealed_importance`.
        n_particles: of every datum.
        proposal: "base"; "laplace", a Student law at the mode, with the inverse of the negative Hessian there; "short
            run", one with the moments of short chains that begin where an annealed run ends; "guide", the program's
            own; "auto", the base for priors and a short run for posteriors: a law at one mode misses the others, and
            k-hat does not always see that.

    Returns:
        The weights, and by datum why there is no proposal, "" where there is.

    Raises:
        PplebmError: for an unknown proposal, a guide that is not there, or one for another target than the posterior.
    """
    if proposal not in get_args(Kind):
        raise PplebmError(f"proposal '{proposal}' is not known; choose one of {', '.join(get_args(Kind))}.")
    proposal = ("short run" if observed else "base") if proposal == "auto" else proposal
    path = Path(program, params, data, observed, n_particles, tilted)
    fine = ("",) * path.n_data
    if proposal == "base":
        return path.draw_base(path.ppl.key(seed)).potential, fine
    if proposal == "guide":
        if not observed or (program.tilts and not tilted):
            raise PplebmError("a guide is a proposal for the posteriors of its own program; choose another proposal.")
        drawn = sample_guide(program, data, n_draws=n_particles, seed=seed, params=params)
        return drawn.log_weights[0], fine
    if proposal == "short run":
        short = Path(program, params, data, observed, SHORT_CHAINS, tilted)
        n_draws = max(SHORT_DRAWS, -(-DRAWS_PER_LATENT * program.width // SHORT_CHAINS))
        draws, fine = target_chains(short, block_seed(seed, 0), n_draws, bar)
        law = fitted(np.concatenate([short.flat(at) for at in draws]), FREEDOM)
    else:
        law, fine = laplace(program, params, data, observed, tilted, block_seed(seed, 0))
    z = law.draw(np.random.default_rng(block_seed(seed, 1)), n_particles)
    at = path.at_flat(z)
    return at.log_base + at.potential - law.log_density(z), fine


def importance_sampling(
    program: Program, params: Params, data: Data | None, observed: bool, **settings: object
) -> Evidence:
    """Log normalising constant relative to the base, by importance sampling from a proposal.

    Args:
        program, params, data, observed, settings: as in `importance_weights`.
    """
    log_weight, why = importance_weights(program, params, data, observed, **settings)  # type: ignore[arg-type]
    found = of_weights("importance sampling", np.where([bool(reason) for reason in why], 0.0, log_weight))
    return found.doubted(why)


def lower_bound(log_weight: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Importance-weighted bound by datum and its standard error, nats.

    .. math:: E\, \log \frac1k \sum_{i=1}^k w_i \le \log Z, \qquad \text{increasing in } k

    Args:
        log_weight: (n, data), of `importance_weights`.
        k: weights of a group; the mean is over n / k groups.

    Source: Burda, Grosse, Salakhutdinov (ICLR 2016).

    >>> w = np.random.default_rng(0).normal(size=(4000, 1)) - 0.5  # E w = 1
    >>> [lower_bound(w, k)[0].round(1).tolist() for k in (1, 5)]
    [[-0.5], [-0.1]]
    """
    n_groups = len(log_weight) // k
    if k < 1 or n_groups < 2:
        raise PplebmError(f"{len(log_weight)} weights make no two groups of {k}; give a smaller k, or more weights.")
    by_group = log_mean(log_weight[: n_groups * k].reshape(n_groups, k, -1), 1)
    return by_group.mean(0), by_group.std(0, ddof=1) / n_groups**0.5


def laplace(
    program: Program, params: Params, data: Data | None, observed: bool, tilted: bool, seed: int
) -> tuple[Proposal, tuple[str, ...]]:
    """Student law at the mode of every target, and why there is none; the Hessian is that of differences of gradients.

    Args:
        program, params, data, observed, tilted: as in `annealed_importance`.
        seed: of the start, a draw of the base.
    """
    one = Path(program, params, data, observed, 1, tilted)
    mode = _ascended(one, one.flat(one.draw_base(one.ppl.key(seed))))[0]  # (data, d)
    width = mode.shape[1]
    both = Path(program, params, data, observed, 2 * width, tilted)
    shifts = np.concatenate([STEP * np.eye(width), -STEP * np.eye(width)])
    at = both.at_flat(mode + shifts[:, None])
    slope = at.base_gradient + at.potential_gradient
    hessian = np.moveaxis(slope[:width] - slope[width:], 0, 1) / (2.0 * STEP)
    precision = -0.5 * (hessian + np.swapaxes(hessian, 1, 2))
    good = np.isfinite(precision).all((1, 2))
    values, vectors = np.linalg.eigh(np.where(good[:, None, None], precision, np.eye(width)))
    good &= values[:, 0] > 1e-6 * values[:, -1]
    covariance = (vectors / np.where(good[:, None], values, 1.0)[:, None]) @ np.swapaxes(vectors, 1, 2)
    why = "the Hessian at the mode is not negative definite; choose the proposal 'short run', or anneal."
    return Proposal(mode, np.linalg.cholesky(covariance), FREEDOM), tuple("" if ok else why for ok in good)


def _ascended(path: Path, z: np.ndarray) -> np.ndarray:
    """Latents after Adam uphill, its rate falling to nothing."""
    first, second, best, top = 0.0 * z, 0.0 * z, z, np.full(z.shape[:2], -np.inf)
    for t in range(1, ASCENT_STEPS + 1):
        at = path.at_flat(z)
        value, slope = at.log_base + at.potential, np.nan_to_num(at.base_gradient + at.potential_gradient)
        better = value > top
        best, top = np.where(better[:, :, None], z, best), np.where(better, value, top)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        rate = ASCENT_RATE * (1.0 - t / (ASCENT_STEPS + 1.0))
        z = z + rate * first / (1.0 - 0.9**t) / ((second / (1.0 - 0.99**t)) ** 0.5 + 1e-8)
    return best
