r"""Convergence of chains, and the worth of their draws: R-hat, effective sample sizes, energy, divergences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.sampling.draws import Draws
from pplebm.sampling.to_arviz import import_arviz

GOOD_R_HAT, GOOD_ESS, GOOD_BFMI = 1.01, 400.0, 0.3  # Vehtari et al. (2021); Betancourt (2016)


class Row(NamedTuple):
    """One scalar of the latents."""

    name: str  # site[index]
    mean: float
    sd: float
    mcse_mean: float
    ess_bulk: float
    ess_tail: float
    r_hat: float


class Diagnosis(NamedTuple):
    """Findings about a run of `pplebm.sample`."""

    rows: list[Row]
    nested_r_hat: float | None  # the largest over all scalars, of 8 chains or more
    n_divergent: int
    acceptance: float | None
    bfmi: float | None  # the smallest over chains
    verdict: list[str]  # sentences; empty if nothing is wrong


def nested_r_hat(draws: np.ndarray, n_super: int) -> float:
    r"""Nested R-hat of many short chains, grouped into superchains.

    .. math:: \hat{\mathfrak n} = \sqrt{1 + \hat B / \hat W}

    with :math:`\hat B` the variance of the means of superchains and :math:`\hat W` the mean of their variances, each
    the variance between its chains plus the mean variance within them. It is near 1 for converged chains however
    short they are, if there are many.

    Args:
        draws: of one scalar, (chains, draws), neighbours of one superchain side by side.
        n_super: superchains, at least 2, that divide the chains evenly.

    Raises:
        PplebmError: if they do not.

    Source: Margossian et al. (Bayesian Analysis 2024, arXiv:2110.13017), definition 2.1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> round(nested_r_hat(rng.normal(size=(128, 5)), 8), 2)
        1.0
    """
    n_chains, n_draws = draws.shape
    if n_super < 2 or n_chains % n_super or n_chains == n_super:
        raise PplebmError(f"{n_chains} chains cannot be grouped into {n_super} superchains of equal size, two or more.")
    grouped = draws.reshape(n_super, n_chains // n_super, n_draws)
    within = grouped.var(2, ddof=1).mean(1) if n_draws > 1 else np.zeros(n_super)
    total = grouped.mean(2).var(1, ddof=1) + within
    return float(np.sqrt(1.0 + grouped.mean((1, 2)).var(ddof=1) / total.mean()))


def diagnose(draws: Draws, sites: list[str] | None = None) -> Diagnosis:
    """Diagnose draws, scalar by scalar.

    R-hat is rank-normalised and split, the effective sample sizes are those of bulk and tails (ArviZ).

    Args:
        draws: of `pplebm.sample`, at least 4 of each chain.
        sites: names of the latent sites to look at; all by default.

    Raises:
        PplebmError: for fewer draws, or a site that is not there.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (Bayesian Analysis 2021).

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> found = diagnose(pplebm.sample(program, n_chains=8, n_draws=1000, n_warmup=500))
        >>> found.verdict, found.rows[0].name, found.rows[0].r_hat < 1.01
        ([], 'z2[0]', True)
    """
    if draws.n_draws < 4:
        raise PplebmError(f"diagnostics need at least 4 draws of each chain; there are {draws.n_draws}.")
    rows, nested = [], []
    for site in sites or list(draws.latents):
        values = draws[site]
        flat = values.reshape(*values.shape[:2], -1)
        for i, index in enumerate(np.ndindex(values.shape[2:])):
            label = f"{site}[{','.join(map(str, index))}]" if index else site
            rows.append(_row(label, flat[:, :, i]))
            if values.shape[0] >= 8 and _groups(values.shape[0]):
                nested.append(nested_r_hat(flat[:, :, i], _groups(values.shape[0])))
    accept = draws.stats.get("accept_prob")
    found = Diagnosis(
        rows,
        max(nested, default=None),
        draws.n_divergent,
        None if accept is None else float(accept.mean()),
        _bfmi(draws),
        [],
    )
    return found._replace(verdict=_verdict(found, draws))


def _row(name: str, x: np.ndarray) -> Row:
    arviz = import_arviz()
    with np.errstate(all="ignore"):  # a chain that never moved has no figures
        return Row(
            name,
            float(x.mean()),
            float(x.std(ddof=1)),
            float(arviz.mcse(x, method="mean")),
            float(arviz.ess(x, method="bulk")),
            float(arviz.ess(x, method="tail", prob=(0.05, 0.95))),
            float(arviz.rhat(x, method="rank")) if len(x) > 1 else float("nan"),
        )


def _groups(n_chains: int) -> int:
    """Superchains of as many chains as there are superchains, about; 0 if the chains cannot be grouped."""
    fitting = [n for n in range(2, n_chains // 2 + 1) if n_chains % n == 0]
    return min(fitting, key=lambda n: abs(n - n_chains**0.5), default=0)


def _bfmi(draws: Draws) -> float | None:
    r"""Energy fraction :math:`\sum (E_t - E_{t-1})^2 / \sum (E_t - \bar E)^2`, the smallest over chains and data."""
    energy = draws.stats.get("energy")
    if energy is None or draws.n_draws < 2:
        return None
    spread = ((energy - energy.mean(1, keepdims=True)) ** 2).sum(1)
    return float(((np.diff(energy, axis=1) ** 2).sum(1) / np.maximum(spread, 1e-30)).min())


def _verdict(found: Diagnosis, draws: Draws) -> list[str]:
    sentences = []
    worst = max(found.rows, key=lambda r: r.r_hat if np.isfinite(r.r_hat) else -1.0)
    least = min(found.rows, key=lambda r: min(r.ess_bulk, r.ess_tail))
    if worst.r_hat > GOOD_R_HAT:
        sentences.append(f"R-hat of {worst.name} is {worst.r_hat:.3f} (> {GOOD_R_HAT}): chains disagree; run longer.")
    if min(least.ess_bulk, least.ess_tail) < GOOD_ESS:
        sentences.append(
            f"{least.name} has {min(least.ess_bulk, least.ess_tail):.0f} effective draws (< {GOOD_ESS:.0f})."
        )
    if found.n_divergent:
        sentences.append(
            f"{found.n_divergent} divergent steps: lower the step size, or move in noncentered coordinates."
        )
    if found.bfmi is not None and found.bfmi < GOOD_BFMI and draws.n_draws >= 100:
        sentences.append(f"the energy mixes slowly (BFMI {found.bfmi:.2f} < {GOOD_BFMI}): heavy tails or a funnel.")
    return sentences
