r"""Likelihood-ratio tests of nested models on the same data, from their evidence and its Monte Carlo errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from pplebm.errors import PplebmError
from pplebm.estimation.derivatives import Chosen, derivatives
from pplebm.evidence.estimate import Evidence
from pplebm.ppl.language import Params
from pplebm.program import Program

N_DRAWS = 2000  # of the base, which show whether the data could determine the tilt where there is none
LEAST = 1e-4  # of the variance of a gradient that is its own
FLAT = 1e-4  # nats by which a tilt may vary and still count as none
VALID_ONE = "pplebm.bootstrap_ratio simulates the distribution of the statistic instead"


class LikelihoodRatio(NamedTuple):
    """Twice the gain in log likelihood, its chi-square p-value, and how far Monte Carlo error moves both."""

    statistic: float
    error: float  # Monte Carlo standard error of the statistic
    df: int
    p_value: float
    p_low: float  # at the statistic and 1.96 errors more
    p_high: float  # at the statistic and 1.96 errors less
    assumes: str  # in words

    def __str__(self) -> str:
        return (
            f"likelihood ratio {self.statistic:.4g} ± {self.error:.2g} on {self.df} df, p = {self.p_value:.3g} "
            f"({self.p_low:.3g} to {self.p_high:.3g} within Monte Carlo error). {self.assumes}"
        )


def statistic_of(larger: Evidence, smaller: Evidence) -> tuple[float, float]:
    r"""Twice the difference of log likelihoods, and its Monte Carlo standard error; estimates are independent.

    Raises:
        PplebmError: for other numbers of data, or entries that cannot be trusted.
    """
    if len(larger) != len(smaller):
        raise PplebmError(f"models are compared on the same data; got evidence of {len(larger)} and {len(smaller)}.")
    for name, found in (("larger", larger), ("smaller", smaller)):
        lost = np.flatnonzero(~(np.isfinite(found.value) & np.isfinite(found.error)))
        if len(lost):
            raise PplebmError(
                f"log p(x) under the {name} model cannot be trusted at {len(lost)} of {len(found)} data, datum "
                f"{lost[0]} the first of them, and a likelihood is that of all; estimate it by another method."
            )
    statistic = 2.0 * float((larger.value - smaller.value).sum())
    return statistic, 2.0 * len(larger) * float(np.hypot(larger.mean_error, smaller.mean_error))


def likelihood_ratio(
    larger: Evidence,
    smaller: Evidence,
    *,
    df: int,
    program: Program | None = None,
    null: Params | None = None,
) -> LikelihoodRatio:
    r"""Test a smaller model within a larger one, both at their maximum-likelihood estimates for the same data.

    .. math:: T = 2 \sum_i \bigl(\log p_{larger}(x_i) - \log p_{smaller}(x_i)\bigr), \qquad p = P(\chi^2_{df} \ge T)

    Chi-square holds where df free numbers make the smaller model the larger one, are not at an end of their range
    there, and are determined by data under the smaller model. A tilt f = b h(z; c) is none such at b = 0, where c
    changes nothing; nor is a network, whose hidden weights change nothing while its output is zero. With `program` and
    `null` that is looked at: gradients of the tilt by its parameters must vary each in its own way over the base.

    Args:
        larger, smaller: of `pplebm.log_evidence` at the same data in the same order, those that both learned from.
        df: free numbers that the larger model has more.
        program: the larger model.
        null: parameters at which it is the smaller model, a model without tilt; the largest likelihood among these.

    Raises:
        PplebmError: for data that differ; for a larger model that is worse beyond Monte Carlo error, since then
            learning has not arrived; for a tilt whose parameters data cannot determine under the smaller model.

    Source: Wilks (Annals of Mathematical Statistics 1938); Davies (Biometrika 1977) for what goes wrong.

    Example:
        >>> from pplebm.evidence.estimate import Evidence
        >>> tilted, twin = Evidence.of("ais", [-1.0, -2.0], [0.01, 0.01]), Evidence.of("ais", [-2.0, -3.0], [0.0, 0.0])
        >>> found = likelihood_ratio(tilted, twin, df=1)
        >>> found.statistic, round(found.error, 3), round(found.p_value, 3)
        (4.0, 0.028, 0.046)
    """
    if not isinstance(df, int) or df < 1:
        raise PplebmError(
            f"df must be an integer from 1 on, the free numbers that the larger model has more; got {df!r}."
        )
    statistic, error = statistic_of(larger, smaller)
    if statistic < -3.0 * error:
        raise PplebmError(
            f"the larger model has a smaller likelihood, T = {statistic:.4g} ± {error:.2g}, which it cannot have at "
            f"its maximum: its learning has not arrived, or the models are not nested; pplebm.estimates tells which."
        )
    assumes = (
        f"It is assumed that {df} free numbers make the larger model of the smaller one, in the interior of their range"
    )
    if program is None:
        assumes += f", and that data determine them under the smaller model; where they do not, {VALID_ONE}."
    else:
        if null is None:
            raise PplebmError("null= is missing: parameters at which the larger program is the smaller model.")
        determined(program, null)
        assumes += "; the tilt's parameters are determined under the smaller model, which was looked at."
    ends = np.maximum(statistic + 1.96 * error * np.array([0.0, 1.0, -1.0]), 0.0)
    p, low, high = (float(v) for v in stats.chi2.sf(ends, df))
    return LikelihoodRatio(statistic, error, df, p, low, high, assumes)


def determined(program: Program, null: Params, seed: int = 0) -> None:
    r"""Raise unless data could determine every parameter of the tilts at a null without tilt.

    The information that latents themselves would have is :math:`\mathrm{Var}_{p_0}[\nabla_\theta f]`; what they have
    none of, data have none of.

    Args:
        program: tilted.
        null: parameters at which the tilt is constant.
        seed: of the draws of the base.

    Raises:
        PplebmError: naming the parameters, or for a null with a tilt.
    """
    if not program.tilts or not program.tilt_params:
        return
    names = [name for name in null if name in program.tilt_params]
    chosen, ppl, is_whole = Chosen(program, null, names), program.ppl, program.has_global_latents
    data = program.example if program.prior_reads or is_whole else None
    by_row = data is not None and not is_whole  # the tilt reads covariates, and every row has a constant of its own
    values, gradients = [], []
    for key in ppl.split(ppl.key(seed), N_DRAWS // 10) if by_row else [ppl.key(seed)]:
        z = program.draw_base(key, data if by_row else N_DRAWS, null, data if is_whole else None)
        values.append(np.asarray(ppl.to_numpy(program.log_tilt(null, z, data)), float))
        gradients.append(derivatives(chosen, z, data, np.zeros(len(values[-1])), observed=False)[0])
    f, slopes, axis = np.stack(values), np.stack(gradients), 0 if by_row else 1  # of draws
    if (range_of := np.ptp(f, axis=axis).max()) > FLAT:
        raise PplebmError(
            f"the tilt '{program.tilts[0].name}' varies by {range_of:.2g} nats at null=, so that the smaller model has "
            f"a tilt itself; leave program= and null= out, and see to it that data determine what the larger one adds."
        )
    away = slopes - slopes.mean(axis, keepdims=True)
    variance = np.einsum("kip,kiq->pq", away, away) / f.size
    scale = np.sqrt(np.diag(variance))
    dead = scale <= 1e-6 * max(1.0, scale.max())
    scaled = variance / np.outer(np.where(dead, 1.0, scale), np.where(dead, 1.0, scale))
    weights, vectors = np.linalg.eigh(scaled)
    if not dead.any() and weights[0] > LEAST:
        return
    culprits = np.flatnonzero(dead) if dead.any() else np.argsort(-np.abs(vectors[:, 0]))[:3]
    told = ", ".join(f"'{chosen.labels[k]}'" for k in culprits[:3])
    raise PplebmError(
        f"under the smaller model no data determine {told} of the tilt (a network's weights, or places of what has "
        f"height zero), so that the likelihood ratio has no chi-square distribution; {VALID_ONE}."
    )
