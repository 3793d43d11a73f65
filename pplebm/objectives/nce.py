r"""Tilts learned as density ratios, without chains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pplebm.errors import PplebmError
from pplebm.objectives.contrast import mean
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.program import Program


def nce(program: Program, params: Params, positive: Latents, base: Latents, x: Data | None = None) -> Array:
    r"""Logistic loss whose minimum is the tilt f = log q(z) - log p₀(z): it tells positive draws from base draws.

    .. math:: E_{q}[\log(1 + e^{-f(z)})] + E_{p_0}[\log(1 + e^{f(z)})]

    At the minimum log Z = 0. Only the parameters of the tilts learn; both samples are constants.

    Args:
        positive: draws of the guide or of posterior chains over the data, centered.
        base: draws of the program without its tilts, centered.
        x: data whose covariates both were drawn given, where the prior reads any.

    Raises:
        PplebmError: for a program without tilt.

    Source: Gutmann, Hyvärinen (JMLR 2012), equation 8, with the base as noise.
    """
    _needs_tilt(program)
    program, ppl = program.with_coordinates("centered"), program.ppl
    f_positive, f_base = (program.log_tilt(params, z, x) for z in (positive, base))
    return ppl.softplus(-f_positive).mean() + ppl.softplus(f_base).mean()


def refining_nce(
    program: Program,
    params: Params,
    earlier: Params,
    positive: Latents,
    negative: Latents,
    x: Data | None = None,
    weight: Array | None = None,
    log_z: Array | float = 0.0,
    base: Latents | None = None,
    strength: Array | float = 1.0,
) -> tuple[Array, Array]:
    r"""Logistic loss of what a tilt still lacks: it tells positive draws from those of the tilt at an earlier stage.

    .. math:: E_q[\log(1 + e^{-r(z)})] + E_m[\log(1 + e^{r(z)})], \quad r = f - \log\frac{m}{p_0}, \quad
              m = \tfrac12 p_e + \tfrac12 p_0, \quad p_e = p_0\, e^{f_e} / Z_e

    At the minimum f is log q(z) - log p₀(z), whatever the earlier tilt was. Base draws are half of the others, since
    nothing else holds the tilt where neither q nor p_e has draws. Without them m = p_e. Only the parameters of the
    tilts learn.

    Args:
        earlier: parameters of the tilts alone at the end of the earlier stage, by name.
        positive: draws of the guide or of posterior chains over the data, centered.
        negative: draws of the prior with the earlier tilt, centered.
        x: data whose covariates all were drawn given, where the prior reads any.
        weight: of the negative draws, adding up to 1, where they do not count alike.
        log_z: log Z_e, nats. Without base draws an error of it is one of f, constant in z.
        base: draws of the program without its tilts, centered; None: there are none.
        strength: factor of log m - log p₀; 0 where the earlier stage is the base.

    Returns:
        The loss, and :math:`E_{p_e} e^{f - f_e} = Z / Z_e` by the negative draws.

    Raises:
        PplebmError: for a program without tilt.

    Source: Xiao, Han (NeurIPS 2022, arXiv:2209.08739); Gutmann, Hyvärinen (JMLR 2012), equation 8; Hesterberg
    (Technometrics 1995) for the mixture with the base.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("latent_ebm", shape=(2,), latent_dim=1))
        >>> earlier = {name: program.params[name] for name in program.tilt_params}
        >>> z = program.draw_base(0, 100)
        >>> loss, z_ratio = refining_nce(program, program.params, earlier, z, z)
        >>> round(loss.item(), 4), z_ratio.item()  # a flat ratio: 2 log 2
        (1.3863, 1.0)
    """
    _needs_tilt(program)
    program, ppl, x = program.with_coordinates("centered"), program.ppl, x if program.prior_reads else None
    before = params | dict(ppl.stop_gradient(earlier))

    def lacking(z: Latents) -> tuple[Array, Array]:
        f, f_e = program.log_tilt(params, z, x), program.log_tilt(before, z, x)
        log_m = f_e - log_z if base is None else ppl.softplus(f_e - log_z) - math.log(2.0)
        return f - strength * log_m, f - f_e

    (r_positive, _), (r_negative, gained) = lacking(positive), lacking(negative)
    others = mean(ppl.softplus(r_negative), weight)
    if base is not None:
        others = 0.5 * others + 0.5 * ppl.softplus(lacking(base)[0]).mean()
    return ppl.softplus(-r_positive).mean() + others, mean(ppl.exp(gained), weight)


def telescoped(
    program: Program, params: Params, positive: Latents, base: Latents, mixing: Sequence[float], x: Data | None = None
) -> Array:
    r"""The same through intermediate laws: the k-th tilt tells waymark k-1 from waymark k.

    .. math:: z_k = \sqrt{1 - a_k^2}\, z_q + a_k z_0, \quad 0 = a_0 < a_1 < \dots < a_K = 1, \qquad
              \log \frac{q(z)}{p_0(z)} = \sum_k f_k(z)

    Neighbouring waymarks overlap where q and the base do not, and there one classifier learns nothing. The program
    declares K tilts, whose sum is the tilt of its prior.

    Args:
        positive, base, x: as in `nce`, of the same number of rows.
        mixing: a₁ < ... < a_K = 1, one for every tilt in program order.

    Raises:
        PplebmError: if the numbers do not rise to 1, or are not as many as the tilts.

    Source: Rhodes, Xu, Gutmann (NeurIPS 2020, arXiv:2006.12204), section 3; Yu et al. (2024, arXiv:2405.16730).
    """
    _needs_tilt(program)
    rising = all(a < b for a, b in zip((0.0, *mixing), mixing, strict=False))
    if len(mixing) != len(program.tilts) or not rising or mixing[-1] != 1:
        raise PplebmError(
            f"the program has {len(program.tilts)} tilts, one per waymark; mixing must be as many numbers that rise "
            f"to 1, got {list(mixing)}."
        )
    program, ppl = program.with_coordinates("centered"), program.ppl
    marks = [positive]
    for a in mixing:
        marks.append({k: (1.0 - a**2) ** 0.5 * z + a * base[k] for k, z in positive.items()})
    loss: Any = 0.0
    for tilt, near, far in zip(program.tilts, marks, marks[1:], strict=False):
        f_near, f_far = (program.log_terms(params, z, x, observed=False)[tilt.name] for z in (near, far))
        loss = loss + ppl.softplus(-f_near).mean() + ppl.softplus(f_far).mean()
    return loss


def _needs_tilt(program: Program) -> None:
    if not program.tilts:
        raise PplebmError("the program has no tilt to learn; declare one with tilt('f', ...).")
