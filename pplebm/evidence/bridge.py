r"""Bridge sampling: a ratio of normalising constants from draws of both of two densities that overlap."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.special import logsumexp
from tqdm import tqdm

from pplebm.errors import PplebmError
from pplebm.evidence.chains import target_chains
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.path import Particles, Path
from pplebm.evidence.proposals import Proposal, fitted
from pplebm.ppl.language import Data, Params
from pplebm.program import Program
from pplebm.sampling.blocks import block_seed
from pplebm.sampling.convergence import effective_size

N_CHAINS, LEAST_DRAWS = 32, 10  # draws of each chain, for a law that is fitted to them
LEAST_OVERLAP = 20  # effective draws of either end that lie in the other
MOST_ERROR = 0.5  # relative, beyond which the error itself is not known
MOST_ROUNDS = 1000
Other = Literal["auto", "base", "normal"]


class Bridge(NamedTuple):
    """Log ratio of two constants, its relative error, and effective draws in the overlap."""

    log_ratio: float
    error: float
    overlap: float


def bridge(first: np.ndarray, second: np.ndarray) -> Bridge:
    r"""Log of the constant of a first density over that of a second one, by the optimal bridge between their draws.

    .. math::
        \hat r = \frac{\frac{1}{n_2} \sum_j l_{2j} / (s_1 l_{2j} + s_2 \hat r)}
                      {\frac{1}{n_1} \sum_i 1 / (s_1 l_{1i} + s_2 \hat r)}, \qquad l = \tilde p_1 / \tilde p_2

    with :math:`s_k` the shares of effective draws, :math:`l_1` at draws of the first and :math:`l_2` at those of the
    second density. The error is that of Frühwirth-Schnatter for the two means, the first with its effective size.

    Args:
        first: (draws, chains) log ratio of the unnormalised densities at draws of the first, by chains.
        second: (n,) the same at independent draws of the second.

    Source: Meng, Wong (Statistica Sinica 1996); Frühwirth-Schnatter (Econometrics Journal 2004), section 3.

    >>> rng = np.random.default_rng(0)  # N(1, 1) times 3, and N(0, 1)
    >>> log_ratio = lambda z: np.log(3.0) + z - 0.5
    >>> found = bridge(log_ratio(1.0 + rng.normal(size=(500, 4))), log_ratio(rng.normal(size=2000)))
    >>> bool(abs(found.log_ratio - np.log(3.0)) < 3 * found.error < 0.1)
    True
    """
    flat, n = first.reshape(-1), first.size
    n_1 = min(float(effective_size(first.T[None])[0]), n) if first.shape[0] > 3 else n
    n_2 = len(second)
    log_s = np.log([n_1 / (n_1 + n_2), n_2 / (n_1 + n_2)])
    log_r = 0.0 if not np.isfinite(flat).all() else float(np.median(flat))
    for _ in range(MOST_ROUNDS):
        up = second - np.logaddexp(log_s[0] + second, log_s[1] + log_r)
        down = -np.logaddexp(log_s[0] + flat, log_s[1] + log_r)
        new = float(logsumexp(up) - np.log(n_2) - logsumexp(down) + np.log(n))
        moved = abs(new - log_r) if np.isfinite(new) else np.inf
        log_r = new
        if moved < 1e-9 * max(1.0, abs(new)) or not np.isfinite(new):
            break
    if moved > 1e-3:
        return Bridge(float("nan"), float("inf"), 0.0)
    f_2 = np.exp(up)  # p1 / (s1 p1 + s2 p2) at draws of the second, normalised
    f_1 = 1.0 / (np.exp(log_s[0] + first - log_r) + np.exp(log_s[1]))  # p2 / (s1 p1 + s2 p2) at draws of the first
    size = min(float(effective_size(f_1.T[None])[0]), n) if first.shape[0] > 3 and np.ptp(f_1) > 0 else n
    error = (f_2.var() / f_2.mean() ** 2 / n_2 + f_1.var() / f_1.mean() ** 2 / size) ** 0.5
    overlap = min(f_2.sum() ** 2 / (f_2**2).sum(), f_1.sum() ** 2 / (f_1**2).sum() * size / n)
    return Bridge(log_r, float(error), float(overlap))


def bridge_sampling(
    program: Program,
    params: Params,
    data: Data | None,
    observed: bool,
    *,
    n_particles: int = 2000,
    tilted: bool = True,
    other: Other = "auto",
    seed: int = 0,
    bar: tqdm | None = None,
) -> Evidence:
    r"""Log normalising constant relative to the base, by bridge sampling between chains of the target and another end.

    The other end is the base, or a normal law fitted to the first half of the chains, whose second half is then one
    end of the bridge.

    Args:
        program, params, data, observed, tilted, seed, bar: as in `annealed_importance`.
        n_particles: draws of either end, by 32 chains; 10 of each chain at least.
        other: "base", "normal", or "auto": the base of priors, a normal law for posteriors, whose base is far wider.

    Source: Gronau et al. (Journal of Statistical Software 2020), for the normal end.
    """
    if other not in get_args(Other):
        raise PplebmError(f"other '{other}' is not known; choose one of {', '.join(get_args(Other))}.")
    other = ("normal" if observed else "base") if other == "auto" else other
    path = Path(program, params, data, observed, N_CHAINS, tilted)
    n_draws = max(LEAST_DRAWS, -(-n_particles // N_CHAINS))
    chains, why = target_chains(path, block_seed(seed, 0), n_draws * (2 if other == "normal" else 1), bar)
    ends = Path(program, params, data, observed, n_particles, tilted)
    if other == "base":
        first = np.array([at.potential for at in chains])
        second = ends.draw_base(path.ppl.key(block_seed(seed, 1))).potential
    else:
        proposal = fitted(np.concatenate([path.flat(at) for at in chains[:n_draws]]), np.inf)
        first = np.array([_ratio(path, at, proposal) for at in chains[n_draws:]])
        z = proposal.draw(np.random.default_rng(block_seed(seed, 1)), n_particles)
        second = _ratio(ends, ends.at_flat(z), proposal)
    known = np.array([not reason for reason in why])
    first, second = np.where(known, first, 0.0), np.where(known, second, 0.0)  # of those that are refused in any case
    found = [bridge(first[:, :, i], second[:, i]) for i in range(path.n_data)]
    value, error, overlap = np.array(found).T
    reasons = [_reason(one, other) for one in found]
    return Evidence.of("bridge sampling", value, error, overlap, np.nan, N_CHAINS - 1, reasons).doubted(why)


def _ratio(path: Path, at: Particles, proposal: Proposal) -> np.ndarray:
    """Log of the target over the proposal, (n, data)."""
    return np.asarray(at.log_base + at.potential - proposal.log_density(path.flat(at)))


def _reason(found: Bridge, other: str) -> str:
    ends = "the base" if other == "base" else "the normal law fitted to it"
    if not found.overlap >= LEAST_OVERLAP:
        return f"target and {ends} do not overlap: {found.overlap:.0f} effective draws of one lie in the other; anneal."
    return "" if found.error < MOST_ERROR else f"the bridge's error is {found.error:.1f}; take more draws, or anneal."
