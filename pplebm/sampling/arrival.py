r"""Signs of chains that have not arrived: at a place without weight, or under way when the draws began."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from pplebm.sampling.convergence import effective_size
from pplebm.sampling.suspects import CHANCE, GOOD_R_HAT, LEAST, MIN_OWN_ESS, Advice, Chains, Sign

LOST = 7.0  # nats; a place so much below the best one has a thousandth of its weight, widths being equal
RISE = 4.0  # spreads of the log density, of chains that were still under way


class Levels(NamedTuple):
    """The log density of chains by quarters of their draws."""

    behind: np.ndarray  # (C, 4) nats below the last quarter of the best chain
    best: float
    spread: float  # of the best chain in its last quarter
    error: np.ndarray  # (C,) of a difference of two quarters' means
    own_ess: np.ndarray  # (C,) of the second half of a chain by itself


def levels(chains: Chains) -> Levels | None:
    """Where the chains stand; nothing can be said of fewer than 80 draws each."""
    log_density = chains.stats.get("log_density")
    if log_density is None or log_density.shape[1] < 4 * LEAST or not np.isfinite(log_density).all():
        return None
    log_density, n = log_density.astype(float), log_density.shape[1] // 4
    quarters = log_density[:, : 4 * n].reshape(-1, 4, n)
    means, last = quarters.mean(2), quarters[:, 3]
    best, spread = int(means[:, 3].argmax()), last.std(1)
    error = spread / np.maximum(effective_size(last[:, None]), 1.0) ** 0.5
    level, own = float(means[best, 3]), effective_size(log_density[:, None, 2 * n :])
    return Levels(level - means, level, float(spread[best]), np.hypot(error, error[best]), own)


def lost(chains: Chains, advice: Advice) -> list[Sign]:
    """Chains that have settled at a place without weight."""
    at = levels(chains)
    if at is None:
        return []
    n_latents = chains.x.shape[2] - 1
    # A walk that is slow in all of its coordinates strays by a few spreads of a normal law of as many.
    least = LOST + np.where(at.own_ess < MIN_OWN_ESS, 10.0 * (n_latents / 2.0) ** 0.5, 0.0)
    is_low = at.behind[:, 3] > np.maximum(least, 5.0 * at.error)
    if not is_low.any():
        return []
    if under_way := late(chains, advice):
        return under_way
    gap = float(at.behind[is_low, 3].max())
    sentence = (
        f"{chains.called(is_low)} settled at a log density {gap:.3g} nats below the best chain's {at.best:.4g} (more "
        f"than {LOST:.0f}): a bad start; give starts at better places, init= latents of a short ascent "
        f"(pplebm.sampling.chains.warm_start) or draws of the best chain."
    )
    return [Sign("start", gap, sentence, chains.place)]


def late(chains: Chains, advice: Advice) -> list[Sign]:
    """Chains whose log density still rose when the draws began."""
    at = levels(chains)
    if at is None:
        return []
    rise = at.behind[:, 0] - np.minimum(at.behind[:, 3], at.behind[:, 2])
    is_late = rise > np.maximum(RISE * at.spread, 5.0 * at.error) + 1.0
    if not is_late.any():
        return []
    sentence = (
        f"the log density of {chains.called(is_late)} rose by {rise[is_late].max():.3g} nats over the draws (its "
        f"spread is {at.spread:.2g}): the chains were still under way; warm up longer, n_warmup="
        f"{2 * (advice.n_warmup + chains.x.shape[1])} or so."
    )
    return [Sign("warm-up", float(rise.max()), sentence, chains.place)]


def drifting(chains: Chains, advice: Advice) -> list[Sign]:
    """A scalar that moves in one direction in all chains, by a t test of the halves' means."""
    n_chains, n, k = chains.x.shape
    if n_chains < 3 or n < 4 * LEAST:
        return []
    first, second = chains.x[:, : n // 2].astype(float), chains.x[:, n // 2 :].astype(float)
    shift, sd = second.mean(1) - first.mean(1), second.std(1).mean(0) + 1e-300
    error = shift.std(0, ddof=1) / n_chains**0.5 + 1e-300
    p = 2.0 * stats.t.sf(np.abs(shift.mean(0)) / error, n_chains - 1) * k
    is_drift = (p < CHANCE) & (np.abs(shift.mean(0)) > 0.5 * sd) & ~(chains.r_hat < GOOD_R_HAT)
    if not is_drift.any():
        return []
    size = np.where(is_drift, np.abs(shift.mean(0)) / sd, 0.0)
    i = int(size.argmax())
    sentence = (
        f"{chains.names[i]} drifts: in all chains the second half of the draws is {size[i]:.2g} sd away from the "
        f"first, in one direction (R-hat {chains.r_hat[i]:.3f} > {GOOD_R_HAT}): warm up longer, n_warmup="
        f"{2 * (advice.n_warmup + n)} or so."
    )
    return [Sign("warm-up", float(size[i]), sentence, chains.place)]
