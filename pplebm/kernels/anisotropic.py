r"""Langevin with a step that depends on the place: long where the energy is flat, short where it is steep."""

from __future__ import annotations

from collections.abc import Callable

from pplebm.kernels.batch import positive
from pplebm.kernels.kernel import Kernel, LogDensity, Target, density_of, normal_noise
from pplebm.kernels.langevin import LangevinInfo, LangevinState, end_step
from pplebm.kernels.langevin import init as init_state
from pplebm.ppl.language import PPL, Array, Latents


def anisotropic(step_size: float, threshold: float, correction: bool = True) -> Kernel:
    r"""Make an unadjusted Langevin kernel whose coordinates take shorter steps where their gradient is large.

    .. math::
        \gamma_i(z) = s^2 \frac{b}{\max(b, |\partial_i \log p(z)|)}, \qquad
        z_i' = z_i + \tfrac12 \gamma_i \partial_i \log p + \tfrac12 \partial_i \gamma_i + \sqrt{\gamma_i}\, \xi_i

    with b the `threshold`. **Without the divergence** :math:`\tfrac12 \partial_i \gamma_i`, as published
    (`correction=False`), **the chain is biased**: its stationary law is not p, but in one dimension proportional to
    :math:`p(z) \max(1, |\partial \log p| / b)`; on N(0, 1) with b = 0.5 that has :math:`E z^2 = 1.786`. With it the
    bias vanishes with s, as for `langevin`. The divergence needs second derivatives: one more pair of gradients for
    every latent coordinate, so this kernel is for few dimensions.

    Args:
        step_size: s > 0, where the energy is flat.
        threshold: b > 0, nats per unit; the slope beyond which steps are shortened.
        correction: include the divergence. False is the published kernel, to reproduce its results.

    Raises:
        PplebmError: for settings that are not positive; for a target without log density, if `correction` is wanted.

    Source: Karimi, Xie, Li (2023, arXiv:2310.12667), the anisotropic step; the divergence: Roberts, Stramer
    (Methodology and Computing in Applied Probability 2002), equation 4.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> log_density = lambda z: -0.5 * z["z"] ** 2
        >>> z = {"z": torch.tensor([0.5, 2.0])}
        >>> noise = {"z": torch.zeros(2)}
        >>> for correction in (False, True):
        ...     kernel = anisotropic(1.0, threshold=1.0, correction=correction)
        ...     kernel.move(ppl, noise, kernel.init(ppl, z, log_density), log_density)[0].z["z"].tolist()
        [0.25, 1.5]
        [0.25, 1.375]
    """
    s, b = positive("step_size", step_size), positive("threshold", threshold)

    def steps(ppl: PPL, log_density: LogDensity, z: Latents) -> tuple[Array, Latents, Latents]:
        value, gradient = ppl.value_and_grad(log_density, z, differentiable=True)
        size = {k: abs(g) for k, g in gradient.items()}
        return value, gradient, {k: s**2 * b / ppl.where(a > b, a, b + 0.0 * a) for k, a in size.items()}

    def init(ppl: PPL, z: Latents, log_density: Target) -> LangevinState:
        density_of(log_density, "anisotropic")
        return init_state(ppl, z)

    def move(ppl: PPL, noise: Latents, state: LangevinState, log_density: Target) -> tuple[LangevinState, LangevinInfo]:
        density = density_of(log_density, "anisotropic")
        value, gradient, gamma = (ppl.stop_gradient(t) for t in steps(ppl, density, state.z))
        bend = _divergence(ppl, lambda z: steps(ppl, density, z)[2], state.z) if correction else gradient
        share = 0.5 if correction else 0.0
        proposal = {
            k: z + 0.5 * gamma[k] * gradient[k] + share * bend[k] + gamma[k] ** 0.5 * noise[k]
            for k, z in state.z.items()
        }
        return end_step(ppl, state, proposal, value)

    return Kernel(("anisotropic", s, b, correction), init, normal_noise, move)


def _divergence(ppl: PPL, field: Callable[[Latents], Latents], z: Latents) -> Latents:
    """Derivative of every coordinate of a field along itself, (B, *event) by site."""
    found = {}
    for site, at in z.items():
        flat = at.reshape(len(at), -1)
        total = 0.0 * flat
        for i in range(flat.shape[1]):

            def column(z: Latents, site: str = site, i: int = i) -> Array:
                return field(z)[site].reshape(len(z[site]), -1)[:, i]

            derivative = ppl.value_and_grad(column, z)[1][site].reshape(flat.shape)
            total = total + derivative * ppl.asarray([float(j == i) for j in range(flat.shape[1])])
        found[site] = total.reshape(at.shape)
    return found
