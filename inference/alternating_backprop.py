r"""Alternating back-propagation: latents climb their posterior, one chain per datum that lives on, without noise.

    zᵢ ← zᵢ + ½ s² ∇ log p̃(xᵢ, zᵢ),  K steps from where the chain of datum i stood;    Δθ ∝ ∇θ log p̃(x, z)

At temperature 0 the latents are modes, not draws: quick, and without any spread. DGHL learns series so.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.ppl.trees import n_rows
from pplebm.sampling import buffers as persistent
from pplebm.sampling.chains import short_run, start

PAPER = (
    "Challu, Jiang, Wu, Callot. Deep Generative Model with Hierarchical Latent Factors for Time Series Anomaly "
    "Detection. AISTATS 2022. arXiv:2202.07586"
)
DEVIATIONS = (
    "Latents move in noncentered coordinates; long drifts are shortened; gradients are clipped.",
    "The likelihood keeps its 1/σ²; the released code multiplies by σ².",
    "A tilt, which the paper's models do not have, stays as it is given: modes are no draws of the posterior, and it "
    "would learn just that. The conditionals of a hierarchy have their negative phase from a prior chain.",
)
_START = 0.1  # standard deviation of a fresh chain's start, the released code's
N_STEPS = {"posterior": "n_steps_fresh"}  # of chains after learning


class Hyper(NamedTuple):
    updates: Count = 1200  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of the generator
    learning_rate_tilt: NonNegative = 0.0  # the tilt is given; see DEVIATIONS
    decay_share: Share = 0.3  # of the updates, at the end, over which both rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    n_steps_posterior: Count = 25  # the paper's number
    step_size_posterior: Positive = 0.1  # the paper's number
    n_steps_fresh: Count = 500  # of data that have no chain, after learning; the paper's number
    temperature: NonNegative = 0.0  # 1: with noise, the original algorithm of Han et al. (AAAI 2017)
    max_drift: Positive | None = 0.5  # of a posterior step; tames a steep decoder
    n_steps_prior: Count = 30  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the joint scheme's number
    tilt_penalty: NonNegative = 0.05  # per squared nat; keeps base and tilted prior within reach of each other
    clip_norm: Positive = 100.0  # of the gradient of all parameters


class State(NamedTuple):
    """What the next update needs."""

    params: Any
    adam: Any
    update: Any  # number of updates done
    chains: Any  # of the posterior, a row for every datum, in noncentered coordinates


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
    tilt_penalty: Any
    tilt_saturation: Any  # share of tilt values at their bound


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper, n_data: int | None = None) -> State:
    """Start from the program's own parameters, chains near the origin."""
    program.refuse_global_latents("alternating_backprop")
    params, moving = program.params, program.with_coordinates("noncentered")
    chains = persistent.buffer(moving, key, params, n_data or n_rows(x), "normal")
    return State(params, begun(ppl, params, hyper), 0, chains._replace(z={n: _START * z for n, z in chains.z.items()}))


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Fresh chains of any data, longer than those of learning; centered latents, and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_posterior, hyper.temperature, hyper.max_drift)
    z = {
        n: _START * a
        for n, a in start(program.with_coordinates("noncentered"), key, params, n_rows(x), "normal").items()
    }
    return short_run(program, key, params, x, kernel, hyper.n_steps_fresh, init=z)


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    return short_run(program, key, params, n, langevin(ppl, hyper.step_size_prior), hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper, rows: Any = None) -> tuple[State, Info]:
    """One update on a batch x, data `rows` of all, by default the first ones."""
    k_positive, k_negative = ppl.split(key)
    rows = ppl.asarray(range(n_rows(x))) if rows is None else rows
    params, back = state.params, program.with_coordinates("centered")
    kernel = langevin(ppl, hyper.step_size_posterior, hyper.temperature, hyper.max_drift)
    positive, trouble = short_run(
        program, k_positive, params, x, kernel, hyper.n_steps_posterior, init=persistent.take_rows(state.chains, rows)
    )
    chains = persistent.put_rows(
        ppl, state.chains, rows, ppl.stop_gradient(back.move(params, positive, "noncentered", x))
    )
    negative, divergent = None, 0.0 * trouble.divergent
    if program.tilts:
        negative, told = prior(ppl, k_negative, program, params, program.prior_rows(x), hyper)
        divergent = told.divergent
    (_, aux), gradient = ppl.value_and_grad(
        lambda params: contrast(program, params, x, positive, negative, hyper.tilt_penalty), params, has_aux=True
    )
    new = moved(program, params, gradient, state.adam, state.update, hyper)
    return State(new.params, new.adam, state.update + 1, chains), Info(
        aux.tilt_positive - aux.tilt_negative, aux.log_likelihood, aux.tilt_positive, aux.tilt_negative, new.grad_norm,
        new.grad_norm_tilt, new.clipped, trouble.divergent, divergent, trouble.tamed, aux.tilt_penalty,
        aux.tilt_saturation,
    )  # fmt: skip
