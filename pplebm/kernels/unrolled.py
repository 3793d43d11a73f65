r"""A short Langevin run that is differentiated through, to learn its step sizes."""

from __future__ import annotations

from collections.abc import Mapping

from pplebm.kernels.batch import by_site, of_site
from pplebm.kernels.kernel import LogDensity
from pplebm.ppl.language import PPL, Array, Key, Latents


def unrolled(
    ppl: PPL, key: Key, z: Latents, log_density: LogDensity, n_steps: int, step_size: Array | Mapping[str, Array]
) -> Latents:
    r"""Run `n_steps` of unadjusted Langevin and keep the graph, so that the end is a function of the step sizes.

    .. math:: z_{k+1} = z_k + \tfrac12 s_k^2 \nabla \log p(z_k) + s_k\, \xi_k

    For a Gaussian target of precision λ and mean m the end has mean :math:`m (1 - \rho^K)` and variance
    :math:`\rho^{2K} + s^2 (1 - \rho^{2K}) / (1 - \rho^2)`, :math:`\rho = 1 - s^2 \lambda / 2`, from N(0, 1).

    Args:
        ppl: the backend.
        key: of the noise.
        z: where the chains start, (B, *event) by site.
        log_density: whatever it depends on is differentiated through as well, second derivatives included.
        n_steps: K; memory grows with it, unlike that of kernels.
        step_size: s > 0, an array with or without gradient: a number, one number per step, or a dict of these by
            site. Positive numbers are learned as exp of free ones.

    Source: Nijkamp et al. (ECCV 2020, arXiv:1912.01909), section 3.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> z = {"z": torch.zeros(20_000)}
        >>> def spread(p):
        ...     end = unrolled(ppl, 0, z, lambda z: -0.5 * z["z"] ** 2, 1, ppl.exp(p["log_s"]))
        ...     return (end["z"] ** 2).mean()
        >>> value, gradient = ppl.value_and_grad(spread, {"log_s": torch.tensor(0.)})  # E z² = s², derivative 2 s²
        >>> round(value.item(), 1), round(gradient["log_s"].item(), 1)
        (1.0, 2.0)
    """

    def step(carry: tuple[Latents, Array], noise: Latents) -> tuple[tuple[Latents, Array], Array]:
        z, i = carry
        return (unrolled_step(ppl, z, log_density, noise, sizes_at(ppl, z, step_size, i)), i + 1), i

    draw = lambda k: ppl.normal_like(k, z)
    end: Latents = ppl.iterate(step, (z, ppl.asarray(0)), ppl.split(key, n_steps), draw)[0][0]
    return end


def unrolled_step(ppl: PPL, z: Latents, log_density: LogDensity, noise: Latents, sizes: dict[str, Array]) -> Latents:
    """One step of `unrolled`, of a size for every site."""
    _, gradient = ppl.value_and_grad(log_density, z, differentiable=True)
    return {k: a + 0.5 * sizes[k] ** 2 * gradient[k] + sizes[k] * noise[k] for k, a in z.items()}


def sizes_at(ppl: PPL, z: Latents, step_size: Array | Mapping[str, Array], step: Array) -> dict[str, Array]:
    """Step sizes by site at one step, of what `unrolled` takes."""
    given = {site: of_site(by_site(step_size), site, "step_size") for site in z}
    return {site: ppl.take(s, step) if getattr(s, "ndim", 0) else s for site, s in given.items()}
