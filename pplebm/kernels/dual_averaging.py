r"""Dual averaging of step sizes, one for all chains of a datum, or one for each chain while they find their way."""

from __future__ import annotations

import math
from typing import NamedTuple

from pplebm.ppl.language import PPL, Array

SHRINKAGE, DECAY, DELAY = 0.05, 0.75, 10.0  # γ, κ, t0 as Hoffman and Gelman chose them
FIRST_FACTOR = 10.0  # times the start is what the step size is pulled to, theirs as well
LEAST_ACCEPT = 1e-3  # of a chain in the harmonic mean: of four chains, one that never moves brings it to 0.004

Shape = tuple[int, int, int]  # replicas, chains, data; rows in this order


class Averages(NamedTuple):
    """Dual averaging of the log step size, per row."""

    log_step: Array
    log_step_mean: Array
    error: Array  # running mean of target minus acceptance
    center: Array  # what the log step size is pulled to
    t: Array


def restarted(log_step: Array, factor: float = FIRST_FACTOR) -> Averages:
    """Averages that begin at a log step size, and are pulled to that of `factor` times the step."""
    zero = 0.0 * log_step
    return Averages(log_step, log_step, zero, log_step + math.log(factor), zero)


def followed(a: Averages, accept_prob: Array, target: float) -> Averages:
    r"""The averages after one step.

    .. math::
        \bar h_t = \Big(1 - \tfrac{1}{t + t_0}\Big) \bar h_{t-1} + \tfrac{1}{t + t_0} (\delta - \alpha_t), \quad
        \log s_{t+1} = \mu - \tfrac{\sqrt t}{\gamma} \bar h_t

    and :math:`\log \bar s` is the average of log s with weights :math:`t^{-\kappa}`.

    Source: Hoffman, Gelman (JMLR 2014), section 3.2.
    """
    t = a.t + 1.0
    error = (1.0 - 1.0 / (t + DELAY)) * a.error + (target - accept_prob) / (t + DELAY)
    log_step = a.center - t**0.5 / SHRINKAGE * error
    weight = t**-DECAY
    return Averages(log_step, weight * log_step + (1.0 - weight) * a.log_step_mean, error, a.center, t)


def over_chains(ppl: PPL, accept_prob: Array, weight: Array, shape: Shape) -> Array:
    """Harmonic mean of the acceptance over the chains of a datum, for every row: it sees the chain that never moves.

    Args:
        accept_prob: (B,).
        weight: (B,) 0 for chains that are not to count.
        shape: replicas, chains and data.

    Source: Hoffman, Radul, Sountsov (AISTATS 2021), section 4.
    """
    least = 0.0 * accept_prob + LEAST_ACCEPT
    inverse = (weight / ppl.where(accept_prob > LEAST_ACCEPT, accept_prob, least)).reshape(shape)
    count = weight.reshape(shape).sum(1)[:, None]
    return (count / (inverse.sum(1)[:, None] + 1e-9) + 0.0 * inverse).reshape(-1)


def shared(ppl: PPL, per_row: Array, weight: Array, shape: Shape) -> Array:
    """The mean over the chains of a datum that count, for every row; their median where none does."""
    grid, w = per_row.reshape(shape), weight.reshape(shape)
    count = w.sum(1)[:, None]
    mean = (w * grid).sum(1)[:, None] / ppl.where(count > 0.5, count, 1.0 + 0.0 * count)
    return (ppl.where(count > 0.5, mean, ppl.median(grid, 1)[:, None]) + 0.0 * grid).reshape(-1)


def middle(ppl: PPL, per_row: Array, shape: Shape) -> Array:
    """The median over the chains of a datum, for every row."""
    grid = per_row.reshape(shape)
    return (ppl.median(grid, 1)[:, None] + 0.0 * grid).reshape(-1)
