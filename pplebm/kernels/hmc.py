r"""Hamiltonian Monte Carlo of fixed length with jittered step size."""

from __future__ import annotations

from pplebm.errors import PplebmError
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
    log_uniform,
    uniform_noise,
)
from pplebm.ppl.language import PPL, Key, Latents, Tree

TARGET_ACCEPT = 0.8  # Betancourt, Byrne, Girolami (2014, arXiv:1411.6669)
MAX_ENERGY_ERROR = 1000.0  # nats; a trajectory that loses more has diverged


def hmc(
    n_leapfrog: int = 8,
    step_size: float = 0.3,
    scale: Scale = 1.0,
    jitter: float = 0.5,
    temperature: Schedule = 1.0,
) -> Kernel:
    r"""Make a Hamiltonian Monte Carlo kernel: one call is one trajectory of `n_leapfrog` steps.

    .. math::
        p \sim N(0, T I), \quad H(z, p) = -\log p(z) + \tfrac12 \|p\|^2, \quad
        \alpha = \min\big(1, e^{(H(z, p) - H(z', p')) / T}\big)

    with :math:`z \leftarrow z + s D p`, :math:`p \leftarrow p + s D \nabla \log p` in leapfrog order, D the diagonal
    `scale`. The step size of every row and trajectory is :math:`s\,(1 - j\,U)`, U uniform, which keeps trajectories
    from closing on themselves and never makes a step longer. One leapfrog step without jitter is `mala`. A call costs
    `n_leapfrog` gradients, and on the Pyro side its graph holds as many: beyond 30 or so it takes long to make.

    Args:
        n_leapfrog: leapfrog steps of a trajectory.
        step_size: s > 0, where adaptation starts, or what is used without it.
        scale: the diagonal of D: a number, an array or one per site.
        jitter: j in [0, 1).
        temperature: T > 0, the target is :math:`p^{1/T}`; a number or one number per trajectory.

    Raises:
        PplebmError: for settings outside their range.

    Source: Neal (Handbook of Markov Chain Monte Carlo, 2011), figure 2 and section 5.4.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel, log_density = hmc(n_leapfrog=5, step_size=0.4), lambda z: -0.5 * z["z"] ** 2
        >>> state = kernel.init(ppl, {"z": torch.zeros(1000)}, log_density)
        >>> state, info = kernel(ppl, 0, state, log_density)
        >>> 0.5 < state.z["z"].var() < 1.5, info.accept_prob.mean() > 0.9
        (tensor(True), tensor(True))
    """
    s, scales, temperatures = positive("step_size", step_size), frozen(scale), schedule(temperature, "temperature")
    positive("temperature", lowest(temperatures))
    if not isinstance(n_leapfrog, int) or n_leapfrog < 1:
        raise PplebmError(f"n_leapfrog must be a positive integer, got {n_leapfrog!r}.")
    if not 0 <= jitter < 1:
        raise PplebmError(f"jitter must lie in [0, 1), got {jitter!r}.")

    def init(ppl: PPL, z: Latents, log_density: Target) -> MetropolisState:
        return init_state(ppl, z, log_density, s, scales, "hmc")

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        template = {"accept": uniform_noise(z), "momentum": z}
        return ppl.normal_like(key, template | ({"jitter": uniform_noise(z)} if jitter else {}))

    def move(
        ppl: PPL, noise: Tree, state: MetropolisState, log_density: Target
    ) -> tuple[MetropolisState, MetropolisInfo]:
        t, step = at_step(ppl, temperatures, state.step), state.step_size
        if jitter:
            step = step * (1.0 - jitter * ppl.exp(log_uniform(noise["jitter"])))
        size = {k: spread(step, d) * d for k, d in state.scale.items()}
        momentum = {k: t**0.5 * p for k, p in noise["momentum"].items()}
        end, last = _trajectory(ppl, log_density, state, momentum, size, n_leapfrog)
        before, after = 0.5 * squares(momentum) - state.log_density, 0.5 * squares(last) - end.log_density
        return accept(ppl, noise["accept"], state, end, (before - after) / t, (before, after), MAX_ENERGY_ERROR,
                      n_leapfrog)  # fmt: skip

    settings = ("hmc", n_leapfrog, s, scales, float(jitter), temperatures)
    return Kernel(settings, init, noise, move, Tuning(s, TARGET_ACCEPT))


def _trajectory(
    ppl: PPL, log_density: Target, state: MetropolisState, momentum: Latents, size: Latents, n_leapfrog: int
) -> tuple[Proposal, Latents]:
    """The end of so many leapfrog steps, and the momentum there."""

    def leap(at: tuple[Proposal, Latents], _: None) -> tuple[tuple[Proposal, Latents], None]:
        z = {k: a + size[k] * at[1][k] for k, a in at[0].z.items()}
        there = Proposal(z, *value_and_gradient(ppl, log_density, z))
        return (there, {k: p + size[k] * there.gradient[k] for k, p in at[1].items()}), None

    half = {k: p + 0.5 * size[k] * state.gradient[k] for k, p in momentum.items()}
    start = (Proposal(state.z, state.log_density, state.gradient), half)
    (end, p), _ = ppl.iterate(leap, start, n_leapfrog)
    return end, {k: a - 0.5 * size[k] * end.gradient[k] for k, a in p.items()}
