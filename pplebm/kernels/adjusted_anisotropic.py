r"""Langevin with steps that are shorter where it is steep, accepted or rejected so that the target is exact."""

from __future__ import annotations

from pplebm.kernels.batch import log, positive, spread, squares
from pplebm.kernels.kernel import Kernel, Target, Tuning, value_and_gradient
from pplebm.kernels.mala import TARGET_ACCEPT
from pplebm.kernels.metropolis import (
    MetropolisInfo,
    MetropolisState,
    Proposal,
    Scale,
    accept,
    frozen,
    init_state,
    uniform_noise,
)
from pplebm.ppl.language import PPL, Array, Key, Latents, Tree


def adjusted_anisotropic(step_size: float, threshold: float, scale: Scale = 1.0) -> Kernel:
    r"""Make the published anisotropic Langevin step a proposal, which is accepted or rejected.

    .. math::
        \gamma_i(z) = s^2 D_i^2 \frac{b}{\max(b, D_i |\partial_i \log p(z)|)}, \qquad
        z_i' = z_i + \tfrac12 \gamma_i(z)\, \partial_i \log p(z) + \sqrt{\gamma_i(z)}\, \xi_i

        \alpha = \min\Big(1, \frac{p(z')\, q(z \mid z')}{p(z)\, q(z' \mid z)}\Big), \qquad
        \log q(z' \mid z) = -\tfrac12 \sum_i \Big( \xi_i^2 + \log \gamma_i(z) \Big) + \mathrm{const}

    with b the `threshold`. The way back has the step sizes :math:`\gamma(z')` of where it starts: without
    :math:`\log \gamma` in both directions the law would not be p. Adjusted, the proposal needs no divergence and no
    second derivatives, unlike `anisotropic`, and is exact at every step size. A coordinate far out, where the slope
    grows without bound, is proposed a drift of at most :math:`\tfrac12 s^2 D_i b`, so that chains that start there move
    at steps at which `mala` refuses nearly all proposals.

    Args:
        step_size: s > 0, where it is flat; where adaptation starts, or what is used without it.
        threshold: b > 0, nats per unit of D; the slope beyond which steps are shortened.
        scale: the diagonal of D: a number, an array or one per site.

    Raises:
        PplebmError: for settings that are not positive, or a target without log density.

    Source: Karimi, Xie, Li (2023, arXiv:2310.12667), the step; Hastings (Biometrika 1970), the acceptance.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = adjusted_anisotropic(1.0, 1.0), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)
        >>> state, info = kernel(ppl, 0, state, log_density)
        >>> 0.8 < info.is_accepted.float().mean() < 1.0
        tensor(True)
    """
    s, b, scales = positive("step_size", step_size), positive("threshold", threshold), frozen(scale)

    def init(ppl: PPL, z: Latents, log_density: Target) -> MetropolisState:
        return init_state(ppl, z, log_density, s, scales, "adjusted_anisotropic")

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        return ppl.normal_like(key, {"accept": uniform_noise(z), "step": z})

    def sizes(ppl: PPL, state: MetropolisState, gradient: Latents) -> Latents:
        """Root of γ by site, where the gradient is this one."""
        slope = {k: state.scale[k] * abs(g) for k, g in gradient.items()}
        flat = {k: spread(state.step_size, d) * d for k, d in state.scale.items()}
        return {k: flat[k] * (b / ppl.where(a > b, a, b + 0.0 * a)) ** 0.5 for k, a in slope.items()}

    def move(
        ppl: PPL, noise: Tree, state: MetropolisState, log_density: Target
    ) -> tuple[MetropolisState, MetropolisInfo]:
        forward, size = noise["step"], sizes(ppl, state, state.gradient)
        z = {k: a + 0.5 * size[k] ** 2 * state.gradient[k] + size[k] * forward[k] for k, a in state.z.items()}
        proposal = Proposal(z, *value_and_gradient(ppl, log_density, z))
        size_back = sizes(ppl, state, proposal.gradient)
        back = {k: (state.z[k] - a) / size_back[k] - 0.5 * size_back[k] * proposal.gradient[k] for k, a in z.items()}
        kinetic, kinetic_back = (0.5 * squares(a) + _logs(ppl, of) for a, of in ((forward, size), (back, size_back)))
        rise = proposal.log_density - state.log_density
        energies = (kinetic - state.log_density, kinetic - proposal.log_density)
        return accept(ppl, noise["accept"], state, proposal, rise + kinetic - kinetic_back, energies)

    return Kernel(("adjusted_anisotropic", s, b, scales), init, noise, move, Tuning(s, TARGET_ACCEPT))


def _logs(ppl: PPL, tree: Latents) -> Array:
    """Sum of the logarithms of every row over all sites, (B,)."""
    parts = [log(ppl, a).reshape(len(a), -1).sum(1) for a in tree.values()]
    return sum(parts[1:], parts[0])
