r"""Metropolis-adjusted Langevin: the Langevin proposal, accepted so that the target is exact."""

from __future__ import annotations

from typing import Any

from pplebm.kernels.batch import Schedule, choose, lowest, plain, positive, schedule, spread, squares
from pplebm.kernels.kernel import Kernel, LogDensity, Tuning
from pplebm.kernels.metropolis import MetropolisInfo, MetropolisState, begin, decide, hashable, uniform_noise
from pplebm.ppl.language import Latents

TARGET_ACCEPT = 0.574  # Roberts, Rosenthal (JRSS B 1998): the most efficient in high dimension


def mala(ppl: Any, step_size: float = 0.5, scale: Any = 1.0, temperature: Schedule = 1.0) -> Kernel:
    r"""Make a Metropolis-adjusted Langevin kernel.

    .. math::
        z' = z + \tfrac12 s^2 D^2 \nabla \log p(z) + s \sqrt{T} D\, \xi, \qquad
        \alpha = \min\Big(1, \Big(\frac{p(z')}{p(z)}\Big)^{1/T} \frac{q(z \mid z')}{q(z' \mid z)}\Big)

    Every row, one chain of one datum, has its own accept decision, step size s and diagonal D; both can be adapted
    by `pplebm.sample`. The stationary law is :math:`p^{1/T}` without bias.

    Args:
        ppl: the backend.
        step_size: s > 0, where adaptation starts, or what is used without it.
        scale: the diagonal of D: a number, an array or one per site.
        temperature: T > 0; a number or one number per step.

    Raises:
        PplebmError: for a step size or temperature that is not positive.

    Source: Besag (JRSS B 1994); Roberts, Tweedie (Bernoulli 1996).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = mala(ppl, 1.0), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init({"z": torch.zeros(1000)}, log_density)
        >>> state, info = kernel(0, state, log_density)
        >>> 0.8 < info.is_accepted.float().mean() < 1.0
        tensor(True)
    """
    positive("step_size", step_size)
    heat = schedule(ppl, temperature, "temperature")
    positive("temperature", lowest(heat))

    def noise(key: Any, z: Latents) -> Any:
        return ppl.normal_like(key, {"accept": uniform_noise(z), "step": z})

    def move(noise: Any, state: MetropolisState, log_density: LogDensity) -> tuple[MetropolisState, MetropolisInfo]:
        t = ppl.take(heat, state.step)
        size = {k: spread(state.step_size, d) * d for k, d in state.scale.items()}
        forward = noise["step"]
        proposal = {
            k: z + 0.5 * size[k] ** 2 * state.gradient[k] + size[k] * t**0.5 * forward[k] for k, z in state.z.items()
        }
        value, gradient = ppl.value_and_grad(log_density, proposal)
        back = {
            k: (state.z[k] - p - 0.5 * size[k] ** 2 * gradient[k]) / (size[k] * t**0.5) for k, p in proposal.items()
        }
        log_ratio = (value - state.log_density) / t + 0.5 * squares(forward) - 0.5 * squares(back)
        accepted, probability, divergent = decide(ppl, noise["accept"], log_ratio)
        new = state._replace(
            z=choose(ppl, accepted, proposal, state.z),
            log_density=ppl.where(accepted, value, state.log_density),
            gradient=choose(ppl, accepted, gradient, state.gradient),
            step=state.step + 1,
            n_divergent=state.n_divergent + divergent,
        )
        energy = -new.log_density + 0.5 * t * squares(forward)
        return new, MetropolisInfo(new.log_density, probability, accepted, divergent, energy)

    def init(z: Latents, log_density: LogDensity) -> MetropolisState:
        return begin(ppl, z, log_density, step_size, scale, "mala")

    return Kernel(
        ("mala", float(step_size), hashable(scale), plain(heat)), init, noise, move, Tuning(step_size, TARGET_ACCEPT)
    )
