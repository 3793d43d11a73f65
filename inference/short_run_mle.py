r"""Maximum likelihood by short-run Langevin chains in both phases.

    z⁺: K⁺ steps towards p(z|x),   z⁻: K⁻ steps towards the tilted prior,   both fresh from N(0, I) every time
    Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ]      for every θ; without a tilt there is no second phase

The short-run chain is part of the model that is learned: use the same steps and sizes afterwards.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.program import Coordinates
from pplebm.sampling.chains import Init, short_run

PAPER = (
    "Cui, Wu, Han. Learning Joint Latent Space EBM Prior Model for Multi-layer Generator. CVPR 2023. arXiv:2306.06323"
)
DEVIATIONS = (
    "Chains move in noncentered coordinates (with log|J|), so one step size suits all layers; the paper moves z.",
    "Long drifts of posterior steps are shortened, and the step size there is twice the paper's.",
    "All parameters are updated together from the same samples by one Adam; the paper steps four in turn.",
    "Gradients are clipped, and the tilt's square is penalised; the paper does neither.",
)


class Hyper(NamedTuple):
    updates: Count = 700  # under two minutes on two cores for 8x8 digits
    batch_size: Count = 128  # a hundred chains fill two cores
    learning_rate: NonNegative = 1e-3  # of the generator
    learning_rate_tilt: NonNegative = 1e-3  # at the paper's 2e-5 the tilt stays flat on small data
    decay_share: Share = 0.3  # of the updates, at the end, over which both rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    coordinates: Coordinates = "noncentered"  # "centered" is the paper's
    init: Init = "normal"  # of both chains; the same as "base" in noncentered coordinates
    n_steps_posterior: Count = 40  # the paper's number
    step_size_posterior: Positive = 0.2  # the paper's 0.1 hardly moves in noncentered coordinates
    n_steps_prior: Count = (
        30  # the paper takes 60; in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    )
    step_size_prior: Positive = 0.4  # the paper's number
    max_drift: Positive | None = 0.5  # of a posterior step: half the length of its noise; tames a steep decoder
    tilt_penalty: NonNegative = 0.05  # per squared nat; keeps base and tilted prior within reach of each other
    clip_norm: Positive = 100.0  # of the gradient of all parameters; ordinary norms are 10 to 50


class State(NamedTuple):
    """What the next update needs."""

    params: Any
    adam: Any
    update: Any  # number of updates done


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    tilt_gap: Any  # E f(z⁺) - E f(z⁻), nats
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    tilt_positive: Any
    tilt_negative: Any
    grad_norm: Any  # before clipping
    grad_norm_tilt: Any
    clipped: Any  # 1 if the gradient was shortened to clip_norm
    divergent_positive: Any  # share of chains with a non-finite step
    divergent_negative: Any
    tamed_positive: Any  # share of steps whose drift was shortened
    tilt_penalty: Any  # its value in the loss
    tilt_saturation: Any  # share of tilt values at their bound


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters."""
    program.refuse_global_latents("short_run_mle")
    return State(program.params, begun(ppl, program.params, hyper), 0)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Positive phase: latents given x, one for each row, in centered coordinates, and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_posterior, max_drift=hyper.max_drift)
    return short_run(
        program, key, params, x, kernel, hyper.n_steps_posterior, init=hyper.init, coordinates=hyper.coordinates
    )


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_prior)
    return short_run(
        program,
        key,
        params,
        n,
        kernel,
        hyper.n_steps_prior,
        observed=False,
        init=hyper.init,
        coordinates=hyper.coordinates,
    )


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x."""
    k_positive, k_negative = ppl.split(key)
    positive, trouble = posterior(ppl, k_positive, program, state.params, x, hyper)
    negative, trouble_negative = None, trouble._replace(divergent=0.0 * trouble.divergent)
    if program.tilts:
        negative, trouble_negative = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)

    def loss(params: Any) -> Any:
        return contrast(program, params, x, positive, negative, hyper.tilt_penalty)

    (_, aux), gradient = ppl.value_and_grad(loss, state.params, has_aux=True)
    gradient, aux, trouble, trouble_negative = ppl.average((gradient, aux, trouble, trouble_negative))
    new = moved(program, state.params, gradient, state.adam, state.update, hyper)
    gap = aux.tilt_positive - aux.tilt_negative
    return State(new.params, new.adam, state.update + 1), Info(
        gap, aux.log_likelihood, aux.tilt_positive, aux.tilt_negative, new.grad_norm, new.grad_norm_tilt, new.clipped,
        trouble.divergent, trouble_negative.divergent, trouble.tamed, aux.tilt_penalty, aux.tilt_saturation,
    )  # fmt: skip
