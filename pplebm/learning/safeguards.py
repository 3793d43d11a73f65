"""Signs that a tilt runs away while every number is still finite, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pplebm.learning.algorithm import Algorithm
from pplebm.learning.sources import Pool
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.importance import effective_size, weighted_mean

MAX_GAP = 10.0  # nats between E f(z⁺) and E f(z⁻): chains that reach the tilted prior hold it at one or two
MAX_DIVERGENT = 0.25  # share of chains with a non-finite step
MAX_SATURATED = 0.5  # share of tilt values at their bound, where no gradient passes
MAX_CHAIN_GAP = 3.0  # nats between E f at the ends of prior chains and at resampled base draws
GAP_ERRORS = 4.0  # standard errors of that difference, and
MIN_BASE_ESS = 50  # effective base draws, from which it is believed
N_CHAINS, N_BASE = 256, 4096  # that are compared
N_ROWS = 8  # of data, among which these are shared where every row has a prior of its own


def fault(metrics: Mapping[str, float]) -> str:
    """The sign of a tilt that runs away after an update, in words; empty if there is none.

    Where chains of the prior have weights, a gap is none: chains that begin anew weigh what the others had lost, and
    the gap is the model's own until the tilt has followed.

    >>> fault({"tilt_gap": 31.4})
    'the tilt gap is 31.4 nats'
    >>> fault({"tilt_gap": 1.2, "divergent_negative": 0.0})
    ''
    >>> fault({"tilt_gap": 13.5, "ess_negative": 0.22})
    ''
    """
    if "ess_negative" not in metrics and abs(metrics.get("tilt_gap", 0.0)) > MAX_GAP:
        return f"the tilt gap is {metrics['tilt_gap']:.1f} nats"
    for name, value in metrics.items():
        if name.startswith("divergent") and value > MAX_DIVERGENT:
            return f"{value:.0%} of the chains of {name.partition('_')[2] or 'the model'} had a non-finite step"
    if metrics.get("tilt_saturation", 0.0) > MAX_SATURATED:
        return f"{metrics['tilt_saturation']:.0%} of the tilt's values are at its bound"
    gap, error = abs(metrics.get("chain_gap", 0.0)), metrics.get("chain_gap_error", 0.0)
    if gap > max(MAX_CHAIN_GAP, GAP_ERRORS * error) and metrics.get("base_ess", 0.0) >= MIN_BASE_ESS:
        return f"prior chains and resampled base draws differ by {gap:.1f} nats in the mean of the tilt"
    return ""


def chain_gap(f_chain: np.ndarray, f_base: np.ndarray) -> dict[str, float]:
    r"""Whether ends of chains are draws of the tilted prior, as far as the tilt itself can tell.

    .. math:: \bar f(z^-) - \sum_i w_i f(z_i), \quad w_i \propto e^{f(z_i)}, \quad z_i \sim p_0

    Args:
        f_chain: the tilt at the ends of chains.
        f_base: the tilt at base draws, which resampling by weight turns into draws of the tilted prior.

    Returns:
        The difference in nats, its standard error, and the number of effective base draws, (Σw)²/Σw².

    >>> z = np.random.default_rng(0).normal(size=(2, 4000))
    >>> found = chain_gap(2.0 * (z[0] + 2.0), 2.0 * z[1])  # the tilt 2z moves N(0, 1) to N(2, 1)
    >>> abs(found["chain_gap"]) < 4 * found["chain_gap_error"] < 2
    True
    """
    base = weighted_mean(f_base, f_base)
    return {
        "chain_gap": float(f_chain.mean()) - base.mean,
        "chain_gap_error": float((f_chain.var() / len(f_chain) + base.error**2) ** 0.5),
        "base_ess": effective_size(f_base),
    }


def watch(algorithm: Algorithm) -> Callable[[Any, Any, Any], dict[str, float]]:
    """Make a function (key, state, data) that compares prior chains of an algorithm with resampled base draws.

    Chains that all data share and that live on are compared where they stand, others by fresh ones of their kind. Where
    the prior reads covariates it has a law of its own in every row: a few rows are compared one by one, and the mean of
    their differences is told.
    """
    program = algorithm.program.with_chains(compiled=False)
    ppl, centered, algorithm = program.ppl, algorithm.centered, algorithm.with_changes(program)
    pool = source if isinstance(source := algorithm.source("prior"), Pool) and not program.prior_reads else None

    def both(key: Any, params: Any, kept: Any, data: Any) -> Any:
        k_chain, k_base = ppl.split(key)
        chains, bases = _rows_for(program, data)
        ends = pool.ends(algorithm, kept, params, N_CHAINS) if pool else algorithm.negative(k_chain, params, chains).z
        base = centered.draw_base(k_base, bases, params)
        at = lambda rows: None if isinstance(rows, int) else rows
        return centered.log_tilt(params, ends, at(chains)), centered.log_tilt(params, base, at(bases))

    compiled = ppl.compiled(both)

    def gap(key: Any, state: Any, data: Any) -> dict[str, float]:
        few = take_rows(data, slice(0, N_ROWS)) if program.prior_reads else None
        n, kept = n_rows(few) if few is not None else 1, state.negative if pool else ()
        f_chain, f_base = (ppl.to_numpy(f).astype(float).reshape(-1, n) for f in compiled(key, state.params, kept, few))
        rows = [chain_gap(f_chain[:, i], f_base[:, i]) for i in range(n)]
        return {
            "chain_gap": float(np.mean([row["chain_gap"] for row in rows])),
            "chain_gap_error": float(np.sqrt(np.sum([row["chain_gap_error"] ** 2 for row in rows])) / n),
            "base_ess": float(np.sum([row["base_ess"] for row in rows])),
        }

    return gap


def _rows_for(program: Program, data: Any) -> tuple[Any, Any]:
    """Rows that chains and base draws are asked for: their numbers, or so many copies of the rows."""
    if data is None:
        return N_CHAINS, N_BASE
    n = n_rows(data)
    copies = lambda total: take_rows(data, program.ppl.asarray(np.tile(np.arange(n), total // n)))
    return copies(N_CHAINS), copies(N_BASE)
