r"""Hamiltonian Monte Carlo of fixed length with jittered step size."""

from __future__ import annotations

from typing import Any

from pplebm.errors import PplebmError
from pplebm.kernels.batch import Schedule, choose, lowest, plain, positive, schedule, spread, squares
from pplebm.kernels.kernel import Kernel, LogDensity, Tuning
from pplebm.kernels.metropolis import (
    MetropolisInfo,
    MetropolisState,
    begin,
    decide,
    hashable,
    log_uniform,
    uniform_noise,
)
from pplebm.ppl.language import Array, Latents

TARGET_ACCEPT = 0.8  # Betancourt, Byrne, Girolami (2014, arXiv:1411.6669)
MAX_ENERGY_ERROR = 1000.0  # nats; a trajectory that loses more has diverged


def hmc(
    ppl: Any,
    n_steps: int = 8,
    step_size: float = 0.3,
    scale: Any = 1.0,
    jitter: float = 0.5,
    temperature: Schedule = 1.0,
) -> Kernel:
    r"""Make a Hamiltonian Monte Carlo kernel: one call is one trajectory of `n_steps` leapfrog steps.

    .. math::
        p \sim N(0, T I), \quad H(z, p) = -\log p(z) + \tfrac12 \|p\|^2, \quad
        \alpha = \min\big(1, e^{(H(z, p) - H(z', p')) / T}\big)

    with :math:`z \leftarrow z + s D p`, :math:`p \leftarrow p + s D \nabla \log p` in leapfrog order, D the diagonal
    `scale`. The step size of every row and trajectory is :math:`s\,(1 - j\,U)`, U uniform, which keeps trajectories
    from closing on themselves and never makes a step longer. One leapfrog step without jitter is `mala`. A call costs
    `n_steps` gradients, and on the Pyro side its graph holds as many: beyond 30 or so it takes long to make.

    Args:
        ppl: the backend.
        n_steps: leapfrog steps of a trajectory.
        step_size: s > 0, where adaptation starts, or what is used without it.
        scale: the diagonal of D: a number, an array or one per site.
        jitter: j in [0, 1).
        temperature: T > 0, the target is :math:`p^{1/T}`; a number or one number per trajectory.

    Raises:
        PplebmError: for settings outside their range.

    Source: Neal (Handbook of Markov Chain Monte Carlo, 2011), figure 2 and section 5.4.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = hmc(ppl, n_steps=5, step_size=0.4), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init({"z": torch.zeros(1000)}, log_density)
        >>> state, info = kernel(0, state, log_density)
        >>> 0.5 < state.z["z"].var() < 1.5, info.accept_prob.mean() > 0.9
        (tensor(True), tensor(True))
    """
    positive("step_size", step_size)
    heat = schedule(ppl, temperature, "temperature")
    positive("temperature", lowest(heat))
    if not isinstance(n_steps, int) or n_steps < 1:
        raise PplebmError(f"n_steps must be a positive integer, got {n_steps!r}.")
    if not 0 <= jitter < 1:
        raise PplebmError(f"jitter must lie in [0, 1), got {jitter!r}.")

    def noise(key: Any, z: Latents) -> Any:
        template = {"accept": uniform_noise(z), "momentum": z}
        return ppl.normal_like(key, template | ({"jitter": uniform_noise(z)} if jitter else {}))

    def move(noise: Any, state: MetropolisState, log_density: LogDensity) -> tuple[MetropolisState, MetropolisInfo]:
        t, s = ppl.take(heat, state.step), state.step_size
        if jitter:
            s = s * (1.0 - jitter * ppl.exp(log_uniform(noise["jitter"])))
        size = {k: spread(s, d) * d for k, d in state.scale.items()}
        momentum = {k: t**0.5 * p for k, p in noise["momentum"].items()}
        z, last, value, gradient = _trajectory(ppl, log_density, state, momentum, size, n_steps)
        before, after = 0.5 * squares(momentum) - state.log_density, 0.5 * squares(last) - value
        log_ratio = (before - after) / t
        accepted, probability, broken = decide(ppl, noise["accept"], log_ratio)
        divergent = broken | (log_ratio < -MAX_ENERGY_ERROR)
        new = state._replace(
            z=choose(ppl, accepted, z, state.z),
            log_density=ppl.where(accepted, value, state.log_density),
            gradient=choose(ppl, accepted, gradient, state.gradient),
            step=state.step + 1,
            n_divergent=state.n_divergent + divergent,
        )
        energy = ppl.where(accepted, after, before)
        return new, MetropolisInfo(new.log_density, probability, accepted, divergent, energy)

    def init(z: Latents, log_density: LogDensity) -> MetropolisState:
        return begin(ppl, z, log_density, step_size, scale, "hmc")

    tuning = Tuning(step_size, TARGET_ACCEPT)
    settings = ("hmc", n_steps, float(step_size), hashable(scale), float(jitter), plain(heat))
    return Kernel(settings, init, noise, move, tuning)


def _trajectory(
    ppl: Any, log_density: LogDensity, state: MetropolisState, momentum: Latents, size: Latents, n_steps: int
) -> tuple[Latents, Latents, Array, Latents]:
    """Leapfrog steps: end, its momentum, its log density and gradient."""

    def leap(at: Any, _: Any) -> tuple[Any, Any]:
        z, p, _, _ = at
        z = {k: a + size[k] * p[k] for k, a in z.items()}
        value, gradient = ppl.value_and_grad(log_density, z)
        return (z, {k: a + size[k] * gradient[k] for k, a in p.items()}, value, gradient), None

    half = {k: p + 0.5 * size[k] * state.gradient[k] for k, p in momentum.items()}
    start = (state.z, half, state.log_density, state.gradient)
    (z, p, value, gradient), _ = ppl.iterate(leap, start, n_steps)
    return z, {k: a - 0.5 * size[k] * gradient[k] for k, a in p.items()}, value, gradient
