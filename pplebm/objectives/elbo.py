r"""The evidence lower bound of a tilted model, and its importance-weighted kin."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.guides.coupling import Flow, latents_of, transport
from pplebm.guides.guide import Guide
from pplebm.objectives.contrast import ContrastAux, two_phases
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program


class ElboAux(NamedTuple):
    """By-products of one evaluation, scalars."""

    bound: Array  # mean of the bound before -log Z: the bound on log p(x) is this minus log Z
    phases: ContrastAux


def elbo(
    program: Program,
    guide: Guide,
    params: Params,
    x: Data,
    noise: Latents,
    negative: Latents | None = None,
    tilt_penalty: float = 0.0,
    tilt_to_guide: bool = True,
) -> tuple[Array, ElboAux]:
    r"""A scalar whose gradient is minus that of the ELBO of the tilted model, for every parameter.

    .. math::
        \log p(x) \ge E_{q}[\log \tilde p(x, z) - \log q(z \mid x)] - \log Z, \qquad
        \nabla_\theta \log Z = E_{z \sim \tilde p / Z}[\nabla_\theta \log \tilde p(z)]

    The guide's parameters learn through the draws, :math:`z = T(\epsilon, x)`; log Z is constant in them. Every
    parameter of the prior has the negative phase; without it f would grow without bound, which is what plain
    variational inference on a factor does.

    Args:
        program: the tilted program.
        guide: of the same program.
        params: of both.
        x: data, with a row for every draw.
        noise: `guide.noise(key, len(x))`.
        negative: draws of the tilted prior in centered coordinates, treated as constants, one given the covariates of
            every row where the prior reads any; not needed without a tilt.
        tilt_penalty: λ of `pplebm.objectives.contrast`.
        tilt_to_guide: let the tilt pull at the guide, as in the ELBO. False keeps its gradient from the guide, which
            then fits the untilted posterior: biased, and steadier where the tilt is still wrong.

    Raises:
        PplebmError: for a tilted program without negative draws.

    Source: Cui, Wu, Han (CVPR 2023), the variational learning scheme.

    Example:
        >>> import torch, pplebm
        >>> from pplebm.guides.amortized import amortized
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> guide, x = amortized(program), torch.ones(5, 3)
        >>> params = program.params | guide.params
        >>> negative = program.draw_base(1, 5)  # a stand-in: chains of the tilted prior belong here
        >>> loss, aux = elbo(program, guide, params, x, guide.noise(0, 5), negative)
        >>> loss.ndim, bool(aux.bound < 0)
        (0, True)
    """
    program = program.with_coordinates("centered")
    log_q, terms = _weighed(program, guide, params, x, noise, negative, tilt_to_guide)
    log_weights = program.total(terms) - log_q
    loss, phases = two_phases(program, params, -log_weights.mean(), terms, negative, tilt_penalty, x=x)
    return loss, ElboAux(log_weights.mean(), phases)


def untilted_elbo(program: Program, guide: Guide, params: Params, x: Data, noise: Latents) -> tuple[Array, Array]:
    r"""Minus the ELBO of the untilted twin, and the ELBO.

    .. math:: E_q[\log p(x \mid z) + \log p_0(z) - \log q(z \mid x)]

    Tilts get no gradient. Arguments as in `elbo`.
    """
    program = program.with_coordinates("centered")
    z, log_q = guide.at(params, noise, x)
    bound = (
        program.total(program.log_terms(params, z, x), (*program.latents, *program.observed, *program.factors)) - log_q
    ).mean()
    return -bound, bound


def iwae(
    program: Program,
    guide: Guide,
    params: Params,
    x: Data,
    noise: Latents,
    n_particles: int,
    negative: Latents | None = None,
    tilt_penalty: float = 0.0,
) -> tuple[Array, ElboAux]:
    r"""The same for the importance-weighted bound, which rises to log p(x) with the number of particles.

    .. math:: \log p(x) \ge E\Big[\log \tfrac1K \sum_{k=1}^K \tilde p(x, z_k) / q(z_k \mid x)\Big] - \log Z

    Args:
        noise: `guide.noise(key, n_particles * len(x))`.
        n_particles: K.

    Others as in `elbo`.

    Raises:
        PplebmError: if the noise is not of K draws per datum, or negative draws are missing.

    Source: Burda, Grosse, Salakhutdinov (ICLR 2016), equation 8.
    """
    program, ppl, n = program.with_coordinates("centered"), program.ppl, n_rows(x)
    rows = len(next(iter(noise.values())))
    if rows != n_particles * n:
        raise PplebmError(f"iwae needs noise of {n_particles} x {n} draws, got {rows}: guide.noise(key, K * len(x)).")
    repeated = take_rows(x, ppl.asarray(np.tile(np.arange(n), n_particles)))
    log_q, terms = _weighed(program, guide, params, repeated, noise, negative, True)
    log_weights = (program.total(terms) - log_q).reshape(n_particles, n)
    bound = ppl.logsumexp(log_weights, 0).mean() - math.log(n_particles)
    loss, phases = two_phases(program, params, -bound, terms, negative, tilt_penalty, x=x)
    return loss, ElboAux(bound, phases)


def flow_elbo(
    program: Program, params: Params, flows: Flow, x: Data, u: Array, n_particles: int
) -> tuple[Array, Array]:
    r"""Minus the ELBOs of flows of their own, one for each datum, added up; and their mean, before -log Z.

    .. math:: E_u\Big[\log \tilde p(x_i, T_i(u)) + \log \Big|\frac{\partial T_i}{\partial u}\Big|\Big]
              + \tfrac d2 (1 + \log 2\pi), \qquad u \sim N(0, I)

    Args:
        program: its own coordinates are those of the flows.
        params: of the program, given.
        flows: of `pplebm.guides.coupling.coupling`, a row for every datum.
        x: data.
        u: noise, (n_particles * B, d), one draw of every datum after the other.
        n_particles: draws of every datum.

    Source: Dasgupta et al. (2023, arXiv:2310.04690), section 3.
    """
    program.refuse_given("a flow")
    n, ppl = n_rows(x), program.ppl
    copies = ppl.asarray(np.tile(np.arange(n), n_particles))
    z, log_det = transport(ppl, {name: a[copies] for name, a in flows.items()}, u)
    bound = program.log_joint(params, latents_of(program, z), take_rows(x, copies)) + log_det
    return -bound.sum() / n_particles, bound.mean() + 0.5 * program.width * (1.0 + math.log(2.0 * math.pi))


def _weighed(
    program: Program,
    guide: Guide,
    params: Params,
    x: Data,
    noise: Latents,
    negative: Latents | None,
    tilt_to_guide: bool,
) -> tuple[Array, dict[str, Array]]:
    """log q at draws of the guide, and the log densities of the model by site there."""
    if program.tilts and negative is None:
        raise PplebmError(
            "a tilted prior has an unknown constant, whose gradient needs draws of it: give negative= draws of a prior "
            "chain, as pplebm.sampling.chains.short_run makes them."
        )
    z, log_q = guide.at(params, noise, x)
    terms = program.log_terms(params, z, x)
    if not tilt_to_guide:
        held = program.log_terms(params, program.ppl.stop_gradient(z), x, observed=False)
        terms = terms | {site.name: held[site.name] for site in program.tilts}
    return log_q, terms
