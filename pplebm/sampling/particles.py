r"""Weighted particles side by side: how many are in effect, which are drawn anew, how far a density may move.

Arrays are (n, rows), particle by particle of rows that know nothing of each other; log weights up to a constant.
"""

from __future__ import annotations

import math

import numpy as np

from pplebm.kernels.metropolis import log_uniform, uniform_noise
from pplebm.ppl.language import PPL, Array, Key

N_HALVED = 30  # halvings of an interval by which a step is found


def effective(ppl: PPL, log_weight: Array) -> Array:
    r"""Effective share of the particles of every row, (rows,): :math:`(\sum w)^2 / (n \sum w^2)`.

    >>> import torch, pplebm.backends.pyro as ppl
    >>> effective(ppl, torch.tensor([[0.0, 0.0], [0.0, -99.0]])).tolist()
    [1.0, 0.5]
    """
    total = ppl.logsumexp(log_weight, 0)
    return ppl.exp(2.0 * total - ppl.logsumexp(2.0 * log_weight, 0)) / len(log_weight)


def resampled(ppl: PPL, key: Key, log_weight: Array, share: float) -> tuple[Array, Array]:
    """Particles of the rows of which less than a share is in effect drawn anew, by systematic resampling.

    Returns:
        Which particle of its row stands in every place, and log weights, 0 where drawn anew; (n, rows) each.

    >>> import torch, pplebm.backends.pyro as ppl
    >>> index, log_weight = resampled(ppl, 0, torch.tensor([[0.0], [-99.0], [0.0], [-99.0]]), 0.9)
    >>> index.T.tolist(), log_weight.abs().T.tolist()
    ([[0, 0, 2, 2]], [[0.0, 0.0, 0.0, 0.0]])
    """
    n = len(log_weight)
    own = ppl.asarray(np.arange(n))[:, None]
    edges = ppl.exp(log_weight - ppl.logsumexp(log_weight, 0)).cumsum(0)
    noise = ppl.normal_like(key, uniform_noise({"": log_weight[0]}))
    places = (own + ppl.exp(log_uniform(noise))) / n * edges[-1]
    chosen = (edges[:, None] < places[None]).sum(0)
    few = effective(ppl, log_weight) < share
    return ppl.where(few, chosen, own), ppl.where(few, 0.0 * log_weight, log_weight)


def step_of_strength(ppl: PPL, f: Array, log_weight: Array, left: Array, kept: float) -> Array:
    r"""How far the strength of every row may grow, (rows,), so that a share of its weighted particles stays in effect.

    .. math:: \frac{(\sum_i W_i v_i)^2}{\sum_i W_i v_i^2} \ge \text{kept}, \qquad v_i = e^{s f_i}

    Args:
        f: what the strength multiplies, finite.
        left: (rows,) the longest step.
        kept: the share.

    >>> import torch, pplebm.backends.pyro as ppl
    >>> f = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))  # log v ~ N(0, s²): the share is e^-s²
    >>> round(step_of_strength(ppl, f, 0.0 * f, torch.ones(1), 0.9).item(), 2)
    0.32
    """
    log_weight = log_weight - ppl.logsumexp(log_weight, 0)

    def enough(step: Array) -> Array:
        share = 2.0 * ppl.logsumexp(log_weight + step * f, 0) - ppl.logsumexp(log_weight + 2.0 * step * f, 0)
        return share >= math.log(kept)

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = 0.5 * (low + high)
        is_enough = enough(middle)
        return (ppl.where(is_enough, middle, low), ppl.where(is_enough, high, middle)), None

    (low, _), _ = ppl.iterate(halve, (0.0 * left, left), N_HALVED)
    return ppl.where(enough(left), left, low)
