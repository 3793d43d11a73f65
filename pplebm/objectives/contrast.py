r"""The two-phase gradient of maximum likelihood for a prior with an unknown constant."""

from __future__ import annotations

from typing import NamedTuple

from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.program import Program

Weights = tuple[Array | None, Array | None]


class ContrastAux(NamedTuple):
    """By-products of one evaluation, scalars."""

    log_likelihood: Array  # mean of log p(x|z⁺)
    tilt_positive: Array  # mean of f(z⁺)
    tilt_negative: Array  # mean of f(z⁻)
    tilt_penalty: Array  # value of the penalty, in the loss
    tilt_saturation: Array  # share of tilt values of either phase beyond 95 % of their bound


def contrast(
    program: Program,
    params: Params,
    x: Data,
    positive: Latents,
    negative: Latents | None,
    tilt_penalty: float = 0.0,
    weights: Weights = (None, None),
) -> tuple[Array, ContrastAux]:
    r"""A scalar whose gradient is minus the maximum-likelihood gradient at fixed samples of both phases.

    .. math::
        \nabla_\theta \log p(x) = E_{z \mid x}[\nabla_\theta \log \tilde p(x, z)]
                                - E_{z}[\nabla_\theta \log \tilde p(z)]

    for every parameter, those of the inter-layer conditionals included: all of them enter Z. Parameters of the
    likelihood do not, and get no negative phase by construction. Without a tilt Z = 1 and the negative phase,
    zero in expectation, is skipped. The penalty :math:`\lambda\,(E f(z^+)^2 + E f(z^-)^2)` keeps the tilt's free
    constant and its range in bounds.

    Args:
        program: the tilted program.
        params: where the gradient is wanted.
        x: data, a row for every latent.
        positive: latents given x, (B, *event) each, treated as constants.
        negative: latents of the tilted prior, any number; where it reads covariates, one drawn given those of every
            row of x, so that every row has its own Z. Not used without a tilt.
        tilt_penalty: λ >= 0, per squared nat.
        weights: of positive and negative latents, (B,) each and adding up to 1, where they do not count alike.

    Source: Cui, Wu, Han (CVPR 2023), the learning gradients of all blocks; Pang et al. (NeurIPS 2020).
    """
    terms = program.log_terms(params, positive, x)
    loss = -mean(program.total(terms), weights[0])
    return two_phases(program, params, loss, terms, negative, tilt_penalty, x=x, weights=weights)


def two_phases(
    program: Program,
    params: Params,
    positive_loss: Array,
    terms: dict[str, Array],
    negative: Latents | None,
    tilt_penalty: float = 0.0,
    weight: float = 1.0,
    x: Data | None = None,
    weights: Weights = (None, None),
) -> tuple[Array, ContrastAux]:
    r"""Add the negative phase and the penalty to the loss of any positive phase; see `contrast`.

    Args:
        positive_loss: a scalar.
        terms: log densities by site at the positive latents.
        negative: latents of the tilted prior, treated as constants; not used without a tilt.
        tilt_penalty: λ.
        x: data whose covariates the negative latents were drawn given, where the prior reads any.
        weight: how often :math:`\log \tilde p(z)` stands in the positive loss, with a minus sign.
        weights: of positive and negative latents, as in `contrast`.
    """
    f_positive = program.total(terms, program.tilts)
    of_positive = mean(f_positive, weights[0])
    log_likelihood = mean(program.total(terms, (*program.observed, *program.factors)), weights[0])
    if not program.tilts or negative is None:
        none = 0.0 * log_likelihood
        return positive_loss, ContrastAux(log_likelihood, of_positive, of_positive, none, none)
    prior_terms = program.log_terms(params, negative, x if program.prior_reads else None, observed=False)
    f_negative = program.total(prior_terms, program.tilts)
    loss = positive_loss + weight * mean(program.total(prior_terms), weights[1])
    penalty = tilt_penalty * (mean(f_positive**2, weights[0]) + mean(f_negative**2, weights[1]))
    saturation = _saturation(program, terms, prior_terms, like=penalty)
    return loss + penalty, ContrastAux(log_likelihood, of_positive, mean(f_negative, weights[1]), penalty, saturation)


def mean(a: Array, weight: Array | None) -> Array:
    """Mean over rows, or the sum by weights that add up to 1."""
    return a.mean() if weight is None else (weight * a).sum()


def _saturation(program: Program, positive: dict[str, Array], negative: dict[str, Array], like: Array) -> Array:
    """A saturated tilt passes no gradient: the share of values that are."""
    shares = [
        (abs(terms[name]) > 0.95 * bound).sum() / len(terms[name])
        for name, bound in program.tilt_bounds.items()
        for terms in (positive, negative)
    ]
    return 0.0 * like + sum(shares) / max(1, len(shares))
