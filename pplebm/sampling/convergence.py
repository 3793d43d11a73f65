r"""Figures of convergence, of many scalars at once: R-hat, effective sample sizes, errors of means."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft, special

from pplebm.errors import PplebmError

NUMBERS_AT_ONCE = 400_000  # draws of scalars that are transformed at once, such that they stay in the cache


class Figures(NamedTuple):
    """Figures by scalar, (K,) each."""

    mean: np.ndarray
    sd: np.ndarray
    mcse_mean: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    r_hat: np.ndarray  # nan for a single chain


def figures(draws: np.ndarray) -> Figures:
    r"""Figures of K scalars, each of them what ArviZ gives for it alone, in a tenth of the time.

    R-hat is rank-normalised and split, of the scalar and of its distance to the median; the effective sample sizes are
    those of the bulk, of ranks, and of the tails, the smaller one of the 5 % and 95 % quantiles.

    Args:
        draws: (chains, draws, K), at least 4 draws of each chain.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (Bayesian Analysis 2021), sections 3 and 4.

    Example:
        >>> found = figures(np.random.default_rng(0).normal(size=(4, 1000, 3)))
        >>> found.r_hat.round(2).tolist(), bool((found.ess_bulk > 3000).all())
        ([1.0, 1.0, 1.0], True)
    """
    size = max(1, NUMBERS_AT_ONCE // (draws.shape[0] * draws.shape[1]))
    with np.errstate(all="ignore"):  # a chain that never moved has no figures
        parts = [_figures(draws[:, :, at : at + size]) for at in range(0, draws.shape[2], size)]
    return Figures(*(np.concatenate(of_all) for of_all in zip(*parts, strict=True)))


def _figures(draws: np.ndarray) -> Figures:
    x = np.ascontiguousarray(np.moveaxis(draws, 2, 0), dtype=float)  # (K, chains, draws)
    halves, flat = split(x), x.reshape(len(x), -1)
    low, high = np.quantile(flat, (0.05, 0.95), 1)[:, :, None, None]
    ranks = normal_ranks(halves)
    folded = normal_ranks(np.abs(halves - np.median(halves, (1, 2), keepdims=True)))
    sd = flat.std(1, ddof=1)
    tail = np.minimum(*(effective_size(split((x <= quantile).astype(float))) for quantile in (low, high)))
    r_hat = np.maximum(_r_hat(ranks), _r_hat(folded)) if x.shape[1] > 1 else np.full(len(x), np.nan)
    lost = ~np.isfinite(flat).all(1)
    by_scalar = (sd / effective_size(halves) ** 0.5, effective_size(ranks), tail, r_hat)
    return Figures(flat.mean(1), sd, *(np.where(lost, np.nan, a) for a in by_scalar))


def split(x: np.ndarray) -> np.ndarray:
    """Both halves of every chain as chains, (K, 2 chains, draws / 2); a draw in the middle is left out."""
    half = x.shape[2] // 2
    return np.concatenate([x[:, :, :half], x[:, :, -half:]], 1)


def normal_ranks(x: np.ndarray) -> np.ndarray:
    """Ranks of all draws of a scalar, as quantiles of a standard normal; equal draws share their mean rank."""
    flat = x.reshape(len(x), -1)
    n, order = flat.shape[1], flat.argsort(1)
    ordered, place = np.take_along_axis(flat, order, 1), np.arange(flat.shape[1])
    is_new = np.ones((len(x), n + 1), bool)
    is_new[:, 1:-1] = ordered[:, 1:] != ordered[:, :-1]
    twice = 2 * place + np.zeros_like(order)
    if not is_new.all():  # places of the first and of the last of equal draws
        first = np.maximum.accumulate(np.where(is_new[:, :-1], place, 0), 1)
        last = np.minimum.accumulate(np.where(is_new[:, 1:], place, n)[:, ::-1], 1)[:, ::-1]
        twice = first + last
    quantiles = special.ndtri((0.5 * np.arange(2 * n - 1) + 0.625) / (n + 0.25))
    found = np.empty_like(flat)
    np.put_along_axis(found, order, quantiles[twice], 1)
    return found.reshape(x.shape)


def _r_hat(x: np.ndarray) -> np.ndarray:
    n = x.shape[2]
    between, within = n * x.mean(2).var(1, ddof=1), x.var(2, ddof=1).mean(1)
    return np.asarray(np.sqrt((between / within + n - 1.0) / n))


def effective_size(x: np.ndarray) -> np.ndarray:
    r"""Effective sample size by scalar, of chains that are neither ranked nor split.

    .. math:: \mathrm{ESS} = \frac{C N}{-1 + 2 \sum_k P_k}, \quad P_k = \rho_{2k} + \rho_{2k+1}

    with :math:`\rho_t` the autocorrelation with the variance between chains counted in, and the sum over Geyer's
    initial monotone sequence of positive :math:`P_k`. A constant has all of its draws.

    Args:
        x: (K, chains, draws).

    Source: Geyer (Statistical Science 1992), section 3.3; Vehtari et al. (2021), equations 10 to 13.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(1, 4, 1000))
        >>> walk = np.cumsum(noise, 2)
        >>> bool(effective_size(noise)[0] > 3000), bool(effective_size(walk)[0] < 20)
        (True, True)
    """
    _, c, n = x.shape
    covariance = _autocovariance(x).T
    variance = covariance[0] * n / (n - 1.0)
    total = covariance[0] + (x.mean(2).var(1, ddof=1) if c > 1 else 0.0)
    with np.errstate(invalid="ignore"):  # of a constant
        rho = 1.0 - (variance - covariance) / total
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, -1)
    sums = pairs.sum(1)
    # As ArviZ does: the sequence ends at the first pair that is not positive, or before the last draws, and of the pair
    # it ends with the even half counts if it is positive, or if the pair is.
    n_pairs = max(0, (n - 3) // 2)
    is_end = sums[: n_pairs + 1] <= 0
    is_end[n_pairs] = True
    last = is_end.argmax(0)
    is_kept = np.arange(len(sums))[:, None] < last
    kept = np.where(is_kept, np.minimum.accumulate(np.where(is_kept, sums, np.inf), 0), 0.0)
    even = np.take_along_axis(pairs[:, 0], last[None], 0)[0]
    even = np.where(np.take_along_axis(sums, last[None], 0)[0] >= 0, even, np.maximum(even, 0.0))
    tau = -1.0 + 2.0 * kept.sum(0) + even
    found = c * n / np.maximum(tau, 1.0 / np.log10(c * n))
    return np.where(np.ptp(x, (1, 2)) < np.finfo(float).resolution, float(c * n), found)


def _autocovariance(x: np.ndarray) -> np.ndarray:
    """(K, draws): the mean over chains."""
    n = x.shape[2]
    size = fft.next_fast_len(2 * n, real=True)
    spectrum = fft.rfft(x - x.mean(2, keepdims=True), size, 2)
    power = (spectrum.real**2 + spectrum.imag**2).mean(1)
    return np.asarray(fft.irfft(power, size, 1)[:, :n] / n)


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
