r"""What is wrong with chains, and what to do about it: signs of every cause in the chains of one posterior."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from pplebm.sampling.arrival import drifting, late, lost
from pplebm.sampling.convergence import effective_size
from pplebm.sampling.suspects import (
    CHANCE,
    GOOD_BFMI,
    GOOD_ESS,
    GOOD_R_HAT,
    LEAST,
    MIN_OWN_ESS,
    Advice,
    Chains,
    Sign,
)

MANY_DIVERGENT = 0.01  # share of the draws that is said in any case
APART = 1.05  # R-hat of chains in different modes
LONG_STAND = 0.1  # share of the draws; a chain that stands still for so long is stuck


def signs(chains: Chains, advice: Advice) -> list[Sign]:
    """Signs of every cause; of those that explain why chains disagree or are slow, the first in order."""
    found, is_alive = stuck(chains, advice)
    if not is_alive.any():
        return found
    left = chains if is_alive.all() else chains.only(is_alive)
    if is_alive.sum() == 1 < len(is_alive):
        return found
    for cause in (lost, late, drifting, apart, energy, slow):
        if signs_of := cause(left, advice):
            found += signs_of
            break
    return found + diverging(left, advice)


def stuck(chains: Chains, advice: Advice) -> tuple[list[Sign], np.ndarray]:
    """Chains that do not move, or are not finite; and which ones are neither."""
    x, n = chains.x, chains.x.shape[1]
    is_finite = np.isfinite(x).all((1, 2))
    has_moved = (x[:, 1:] != x[:, :-1]).any(2)
    share = has_moved.mean(1)
    rate, length = min(float(share.max()), 1 - 1e-9), _longest_stand(has_moved)
    by_chance = has_moved.size * (1.0 - rate) ** length
    is_stuck = is_finite & (
        (share < 0.02) | ((length >= max(LONG_STAND * n, LEAST)) & (by_chance < CHANCE)) if n >= LEAST else share == 0
    )
    found = []
    if not is_finite.all():
        sentence = (
            f"{chains.called(~is_finite)} left the finite numbers: take smaller steps, or start elsewhere (init=)."
        )
        found.append(Sign("stuck", np.inf, sentence, chains.place))
    if is_stuck.any():
        worst = int(np.where(is_stuck, share, np.inf).argmin())
        many = is_stuck.sum() > 1
        what = f"{int(has_moved[worst].sum()) + 1} distinct draws in {n}, {length[worst]} equal ones in a row"
        sentence = (
            f"{chains.called(is_stuck)} {'are' if many else 'is'} stuck ({'the worst has ' if many else ''}{what}): "
            f"take smaller steps by a longer warm-up (n_warmup above {advice.n_warmup}), or start elsewhere (init=)."
        )
        found.append(Sign("stuck", 1.0 - float(share[worst]), sentence, chains.place))
    return found, is_finite & ~is_stuck


def _longest_stand(has_moved: np.ndarray) -> np.ndarray:
    """Equal draws in a row, the most of each chain."""
    return np.array([np.diff(np.flatnonzero(np.concatenate([[1], row, [1]]))).max() for row in has_moved])


class Disagreement(NamedTuple):
    """How far chains differ, beyond what the autocorrelation of each by itself explains, by scalar."""

    p: np.ndarray  # (K,) of an F test, times the number of scalars
    own_ess: np.ndarray  # (K,) of a chain by itself, the median over chains
    means: np.ndarray  # (C, K)
    sd: np.ndarray  # (K,) within chains


def disagreement(x: np.ndarray) -> Disagreement:
    """Test means of chains, (C, N, K), against their own errors."""
    x = x.astype(float)
    c, n, k = x.shape
    own = effective_size(np.ascontiguousarray(x.transpose(2, 0, 1)).reshape(k * c, 1, n)).reshape(k, c).T
    own, sd = np.clip(own, 1.0, n), x.std(1, ddof=1)
    within = (sd**2 / own).mean(0) + 1e-300
    p = stats.f.sf(x.mean(1).var(0, ddof=1) / within, c - 1, np.maximum(own.sum(0) - c, 1.0)) * k
    return Disagreement(p, np.median(own, 0), x.mean(1), np.sqrt((sd**2).mean(0)))


def apart(chains: Chains, advice: Advice) -> list[Sign]:
    """Chains that mix well where they are, and are at different places of comparable log density."""
    if len(chains.x) < 2 or chains.x.shape[1] < LEAST or not (chains.r_hat > APART).any():
        return []
    found, i = disagreement(chains.x), int(np.nan_to_num(chains.r_hat).argmax())
    if found.p[i] >= CHANCE or found.own_ess[i] < MIN_OWN_ESS:
        return []
    ordered = np.sort(found.means[:, i])
    cut = int(np.diff(ordered).argmax())
    is_above = found.means[:, i] > ordered[cut]
    groups = sorted((is_above, ~is_above), key=lambda mask: int(mask.sum()))
    where = [float(found.means[mask, i].mean()) for mask in groups]
    log_density = chains.stats.get("log_density")
    beside = "" if log_density is None else " of log density {:.4g} beside {:.4g}".format(
        *(float(log_density[mask].mean()) for mask in groups))  # fmt: skip
    sentence = (
        f"{chains.names[i]} is {where[0]:.3g} in {chains.called(groups[0])} and {where[1]:.3g} in the others, "
        f"{abs(where[1] - where[0]) / found.sd[i]:.2g} sd apart (R-hat {chains.r_hat[i]:.3f} > {GOOD_R_HAT}), at places"
        f"{beside}: separate modes; {advice.temper}."
    )
    return [Sign("modes", float(chains.r_hat[i]), sentence, chains.place)]


def slow(chains: Chains, advice: Advice) -> list[Sign]:
    """Chains that walk slowly through one place, or are too few draws."""
    n_draws = chains.x.shape[0] * chains.x.shape[1]
    with np.errstate(invalid="ignore"):
        i, worst = int(np.nan_to_num(chains.ess, nan=np.inf).argmin()), int(np.nan_to_num(chains.r_hat).argmax())
    ess, r_hat = float(chains.ess[i]), float(chains.r_hat[worst])
    if not ess < GOOD_ESS and not r_hat > 1.0 + 10.0 * (GOOD_R_HAT - 1.0):
        return []
    steps = n_draws / max(ess, 1.0)
    also = f", R-hat of {chains.names[worst]} {r_hat:.3f} > {GOOD_R_HAT}" if r_hat > GOOD_R_HAT else ""
    short = f"{chains.names[i]} has {ess:.0f} effective draws of {n_draws} (< {GOOD_ESS:.0f}{also})"
    if steps < 10.0:
        wanted = int(np.ceil(1.5 * chains.x.shape[1] * GOOD_ESS / max(ess, 1.0)))
        return [Sign("draws", steps, f"{short}: too few; draw more, n_draws={wanted} or so.", chains.place)]
    accept = chains.stats.get("accept_prob")
    if accept is not None and accept.mean() < 0.2:
        sentence = (
            f"{short}, and {accept.mean():.1%} of the proposals are accepted: the steps are too large; warm up longer."
        )
        return [Sign("steps", steps, sentence, chains.place)]
    sentence = f"{short}, one in {steps:.0f} steps: {advice.longer.format(times=steps**0.5)}{advice.coordinates}."
    return [Sign("trajectories", steps, sentence, chains.place)]


def diverging(chains: Chains, advice: Advice) -> list[Sign]:
    """Divergences, if they are many or lie where the other draws do not."""
    is_divergent = chains.stats.get("is_divergent")
    if is_divergent is None or not is_divergent.any():
        return []
    share, n = float(is_divergent.mean()), int(is_divergent.sum())
    i, p, at = concentration(chains)
    told = f"{n} divergent steps{chains.place} ({share:.2%} of the draws)"
    if p < CHANCE:
        told += f" lie where {chains.names[i]} is {'large' if at > 0.5 else 'small'} (mean rank {at:.2f}, p = {p:.1g})"
        remedy = f"the chains may not get in there; take smaller steps{advice.coordinates}"
    elif share > MANY_DIVERGENT:
        told += f", more than {MANY_DIVERGENT:.0%}"
        remedy = f"take smaller steps, by a longer warm-up where they are adapted{advice.coordinates}"
    else:
        return []
    return [Sign("divergences", share, f"{told}: {remedy}.", chains.place)]


def concentration(chains: Chains) -> tuple[int, float, float]:
    """The scalar by whose ranks divergent draws differ most from the others.

    Divergences in a row count as one, and those of a slow scalar as fewer, because they are at one place.

    Returns:
        Its number, the chance of such a difference, times the number of scalars, and the mean rank in [0, 1].
    """
    mask = chains.stats["is_divergent"]
    begins = mask & ~np.concatenate([np.zeros((len(mask), 1), bool), mask[:, :-1]], 1)
    if begins.sum() < 5 or mask.all() or not np.isfinite(chains.x).all():
        return 0, 1.0, 0.5
    k = chains.x.shape[2]
    ranks = (stats.rankdata(chains.x.reshape(-1, k), axis=0) - 0.5) / mask.size
    at = ranks[begins.ravel()].mean(0)
    n = np.minimum(begins.sum(), np.maximum(np.nan_to_num(chains.ess, nan=1.0), 1.0))
    z = np.abs(at - 0.5) * np.sqrt(12.0 * n)
    i = int(z.argmax())
    return i, float(2.0 * stats.norm.sf(z[i]) * k), float(at[i])


def bfmi(energies: np.ndarray) -> np.ndarray:
    r"""Energy fraction :math:`\sum (E_t - E_{t-1})^2 / \sum (E_t - \bar E)^2`, of draws along axis 1."""
    spread = ((energies - energies.mean(1, keepdims=True)) ** 2).sum(1)
    return np.asarray((np.diff(energies, axis=1) ** 2).sum(1) / np.maximum(spread, 1e-30))


def energy(chains: Chains, advice: Advice) -> list[Sign]:
    """Momenta that change the energy too little to see all of it."""
    if "energy" not in chains.stats or chains.x.shape[1] < 100:
        return []
    least = float(bfmi(chains.stats["energy"].astype(float)).min())
    if not least < GOOD_BFMI:
        return []
    sentence = (
        f"the energy{chains.place} mixes slowly (BFMI {least:.2f} < {GOOD_BFMI}): heavy tails or a funnel"
        f"{advice.coordinates.replace(', or', ';') or '; declare the scales and what they scale by independent sites'}."
    )
    return [Sign("energy", -least, sentence, chains.place)]
