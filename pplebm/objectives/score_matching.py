r"""Gradients of log densities, learned by denoising: neither chains nor log Z."""

from __future__ import annotations

from collections.abc import Callable

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.program import Program

REAL = ("real", "real_vector")  # supports that noise does not leave


def dsm(score: Callable[[Latents, Array], Latents], z: Latents, noise: Latents, sigma: Array) -> Array:
    r"""Denoising score matching: its minimum is the score of the latents with noise of size σ added.

    .. math:: E \big\| \sigma\, s(z + \sigma \epsilon, \sigma) + \epsilon \big\|^2

    Args:
        score: of latents and σ, to a tree like the latents.
        z: draws of the law to be learned, (B, *event) by site.
        noise: ε, standard normal, like z.
        sigma: σ > 0 of each row, (B,).

    Source: Vincent (Neural Computation 2011), equation 9, with the weight σ² of Song, Ermon (NeurIPS 2019).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> z, noise = ({"z": a} for a in torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0)))
        >>> sigma, exact = torch.full((1000,), 0.5), lambda z, s: {"z": -z["z"] / (1 + s[:, None] ** 2)}
        >>> dsm(exact, z, noise, sigma) < dsm(lambda z, s: {"z": -z["z"]}, z, noise, sigma)
        tensor(True)
    """
    size = {k: sigma.reshape(-1, *[1] * (a.ndim - 1)) for k, a in z.items()}
    found = score({k: a + size[k] * noise[k] for k, a in z.items()}, sigma)
    parts = [((size[k] * found[k] + e) ** 2).reshape(len(e), -1).sum(1).mean() for k, e in noise.items()]
    return sum(parts[1:], parts[0])


def denoising(
    program: Program,
    params: Params,
    z: Latents,
    noise: Latents,
    sigma: float,
    x: Data | None = None,
    tilt_strength: float | None = None,
) -> Array:
    r"""Denoising score matching of a program whose data are the values of all its sites, at noise ε and -ε.

    .. math:: \tfrac12\, E_x E_\epsilon \big\| \tau\, \nabla \log \tilde p(x + \tau \epsilon) + \epsilon \big\|^2

    Its minimum is the density of x + τε: that of the data, convolved with N(0, τ² I). Z is not needed, nor any draw of
    the model. The weight τ² keeps the scale of the loss, that of the noise, the same whatever τ is. Of ε and -ε
    together the terms in :math:`\tau\, \epsilon \cdot \nabla \log \tilde p(x)` cancel, all of whose mean is 0.

    Args:
        program: of tilts that stand on observed sites; see `pplebm.Program.given`.
        params: where the gradient is wanted.
        z: the data, as `program.given_latents` has them, (B, *event) by site.
        noise: ε, standard normal, like z.
        sigma: τ > 0, in units of the data.
        x: data whose covariates the density is of, where it reads any; each row then has its own Z.
        tilt_strength: factor of the tilts; 0 for the loss of the base.

    Raises:
        PplebmError: for a program with latents, or a site whose support is bounded.

    Source: Vincent (Neural Computation 2011), section 4.2.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("data_ebm", shape=(2,), base_scale=1.25**0.5))
        >>> ppl, still = program.ppl, {name: 0.0 * p for name, p in program.params.items()}  # f = 0: the base
        >>> z, noise = (ppl.normal_like(key, {"x": torch.zeros(100_000, 2)}) for key in (0, 1))
        >>> loss = denoising(program, still, z, noise, 0.5)  # the base is the law of x + τε: ½ d (1 - τ² / 1.25)
        >>> round(loss.item(), 2)
        0.8
    """
    refuse_latents(program, "denoising score matching")
    program, ppl, first = program.with_coordinates("centered"), program.ppl, next(iter(z.values()))
    log_density = program.log_density(params, x if program.prior_reads else None, observed=False)
    at = lambda moved: log_density(moved, tilt_strength)
    score = lambda moved, sigma: ppl.value_and_grad(at, moved, differentiable=True)[1]
    size = 0.0 * first.reshape(len(first), -1)[:, 0] + sigma
    there, back = (dsm(score, z, {k: sign * e for k, e in noise.items()}, size) for sign in (1.0, -1.0))
    return 0.25 * (there + back)


def refuse_latents(program: Program, method: str) -> None:
    """Raise unless data are the values of all sites of a program, real numbers that noise does not leave."""
    if not program.given:
        latents = ", ".join(site.name for site in program.latents)
        raise PplebmError(
            f"{method} learns a density of the data themselves and takes no program with latents ({latents}): let the "
            f"tilt stand on an observed site, as the page data_ebm does, or learn by another page, such as mle."
        )
    for site in program.latents:
        if site.support not in REAL:
            raise PplebmError(
                f"{method} adds noise to the data, which leaves the support of site '{site.name}' ({site.distribution} "
                f"on {site.support}); declare real numbers, such as the logarithm of positive ones."
            )
