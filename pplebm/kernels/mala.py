r"""Metropolis-adjusted Langevin: the Langevin proposal, accepted so that the target is exact."""

from __future__ import annotations

from pplebm.kernels.batch import Schedule, at_step, lowest, positive, schedule, spread, squares
from pplebm.kernels.kernel import Kernel, Target, Tuning, value_and_gradient
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
from pplebm.ppl.language import PPL, Key, Latents, Tree

TARGET_ACCEPT = 0.574  # Roberts, Rosenthal (JRSS B 1998): the most efficient in high dimension


def mala(step_size: float = 0.5, scale: Scale = 1.0, temperature: Schedule = 1.0) -> Kernel:
    r"""Make a Metropolis-adjusted Langevin kernel.

    .. math::
        z' = z + \tfrac12 s^2 D^2 \nabla \log p(z) + s \sqrt{T} D\, \xi, \qquad
        \alpha = \min\Big(1, \Big(\frac{p(z')}{p(z)}\Big)^{1/T} \frac{q(z \mid z')}{q(z' \mid z)}\Big)

    Every row, one chain of one datum, has its own accept decision, step size s and diagonal D; both can be adapted
    by `pplebm.sample`. The stationary law is :math:`p^{1/T}` without bias.

    Args:
        step_size: s > 0, where adaptation starts, or what is used without it.
        scale: the diagonal of D: a number, an array or one per site.
        temperature: T > 0; a number or one number per step.

    Raises:
        PplebmError: for a step size or temperature that is not positive.

    Source: Besag (JRSS B 1994); Roberts, Tweedie (Bernoulli 1996).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = mala(1.0), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)
        >>> state, info = kernel(ppl, 0, state, log_density)
        >>> 0.8 < info.is_accepted.float().mean() < 1.0
        tensor(True)
    """
    s, scales, temperatures = positive("step_size", step_size), frozen(scale), schedule(temperature, "temperature")
    positive("temperature", lowest(temperatures))

    def init(ppl: PPL, z: Latents, log_density: Target) -> MetropolisState:
        return init_state(ppl, z, log_density, s, scales, "mala")

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        return ppl.normal_like(key, {"accept": uniform_noise(z), "step": z})

    def move(
        ppl: PPL, noise: Tree, state: MetropolisState, log_density: Target
    ) -> tuple[MetropolisState, MetropolisInfo]:
        t, forward = at_step(ppl, temperatures, state.step), noise["step"]
        size = {k: spread(state.step_size, d) * d for k, d in state.scale.items()}
        z = {k: a + 0.5 * size[k] ** 2 * state.gradient[k] + size[k] * t**0.5 * forward[k] for k, a in state.z.items()}
        proposal = Proposal(z, *value_and_gradient(ppl, log_density, z))
        back = {
            k: (state.z[k] - a - 0.5 * size[k] ** 2 * proposal.gradient[k]) / (size[k] * t**0.5) for k, a in z.items()
        }
        rise, kinetic = proposal.log_density - state.log_density, 0.5 * squares(forward)
        energies = (t * kinetic - state.log_density, t * kinetic - proposal.log_density)
        return accept(ppl, noise["accept"], state, proposal, rise / t + kinetic - 0.5 * squares(back), energies)

    return Kernel(("mala", s, scales, temperatures), init, noise, move, Tuning(s, TARGET_ACCEPT))
