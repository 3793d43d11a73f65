r"""Dual MCMC teaching: the guide starts the posterior chains, and learns from where they end.

    z⁰ ~ q(z|x),    z⁺: K⁺ Langevin steps from z⁰ towards p(z|x),    z⁻: K⁻ steps towards the tilted prior
    Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ],    Δω ∝ E[ ∇ω log q(z⁺|x) ]

The tilt reaches the guide through the chains alone, so the guide cannot run after it.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.guides.shared import guide_of
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.sampling.chains import short_run

PAPER = "Cui, Han. Learning Energy-based Model via Dual-MCMC Teaching. NeurIPS 2023. arXiv:2312.02469"
DEVIATIONS = (
    "The paper's energy is one of the data, and its generator starts that energy's chains; here both phases are "
    "chains of the latents, and the guide starts those of the posterior.",
    "Chains move in noncentered coordinates; long drifts are shortened; gradients are clipped, and the tilt's square "
    "is penalised.",
)


class Hyper(NamedTuple):
    updates: Count = 1200  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of generator and guide
    learning_rate_tilt: NonNegative = 3e-4  # at 1e-3 the tilt outran the prior chains: an tilt gap of 9 nats
    decay_share: Share = 0.3  # of the updates, at the end, over which the rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    family: str = "ladder"  # of the guide, see pplebm.guides.amortized
    n_steps_posterior: Count = 10  # a quarter of a chain that starts anywhere
    step_size_posterior: Positive = 0.1  # small: the guide is near already
    max_drift: Positive | None = 0.5  # of a posterior step; tames a steep decoder
    n_steps_prior: Count = 30  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the joint scheme's number
    tilt_penalty: NonNegative = 0.05  # per squared nat; keeps base and tilted prior within reach of each other
    clip_norm: Positive = 100.0  # of the gradient of all parameters


class State(NamedTuple):
    """What the next update needs."""

    params: Any  # of the program and its guide
    adam: Any
    update: Any  # number of updates done


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    tilt_gap: Any  # E f(z⁺) - E f(z⁻), nats
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    log_q: Any  # E log q(z⁺|x), nats per datum
    tilt_positive: Any
    tilt_negative: Any
    grad_norm: Any  # before clipping
    grad_norm_tilt: Any
    clipped: Any  # 1 if the gradient was shortened to clip_norm
    divergent_positive: Any  # share of chains with a non-finite step
    divergent_negative: Any
    tamed_positive: Any  # share of steps whose drift was shortened
    tilt_penalty: Any
    tilt_saturation: Any  # share of tilt values at their bound


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters and those of a guide derived from it."""
    params = program.params | guide_of(program, family=hyper.family).params
    return State(params, begun(ppl, params, hyper), 0)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Positive phase: chains from the guide's draws; latents in centered coordinates, and what went wrong."""
    k_guide, k_chain = ppl.split(key)
    z, _ = guide_of(program, family=hyper.family).draw(k_guide, params, x)
    start = ppl.stop_gradient(program.with_coordinates("centered").move(params, z, "noncentered", x))
    kernel = langevin(ppl, hyper.step_size_posterior, max_drift=hyper.max_drift)
    return short_run(program, k_chain, params, x, kernel, hyper.n_steps_posterior, init=start)


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_prior)
    return short_run(program, key, params, n, kernel, hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x."""
    k_positive, k_negative = ppl.split(key)
    guide = guide_of(program, family=hyper.family)
    positive, trouble = posterior(ppl, k_positive, program, state.params, x, hyper)
    negative, divergent = None, 0.0 * trouble.divergent
    if program.tilts:
        negative, trouble_negative = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)
        divergent = trouble_negative.divergent

    def loss(params: Any) -> Any:
        value, aux = contrast(program, params, x, positive, negative, hyper.tilt_penalty)
        log_q = guide.log_density(params, positive, x).mean()
        return value - log_q, (aux, log_q)

    (_, (aux, log_q)), gradient = ppl.value_and_grad(loss, state.params, has_aux=True)
    gradient, aux, log_q, trouble, divergent = ppl.average((gradient, aux, log_q, trouble, divergent))
    new = moved(program, state.params, gradient, state.adam, state.update, hyper)
    return State(new.params, new.adam, state.update + 1), Info(
        aux.tilt_positive - aux.tilt_negative, aux.log_likelihood, log_q, aux.tilt_positive, aux.tilt_negative,
        new.grad_norm, new.grad_norm_tilt, new.clipped, trouble.divergent, divergent, trouble.tamed,
        aux.tilt_penalty, aux.tilt_saturation,
    )  # fmt: skip
