r"""Maximum likelihood by chains that live on: one per datum for the posterior, a pool for the tilted prior.

zᵢ⁺: K⁺ Langevin steps from where the chain of datum i stood,    z⁻: K⁻ steps from where the pool stood
Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ]
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.ppl.trees import n_rows
from pplebm.sampling import buffers as persistent
from pplebm.sampling.chains import short_run

PAPER = "Tieleman. Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient. ICML 2008"
DEVIATIONS = (
    "Langevin chains of continuous latents in place of Gibbs chains; both phases persist, not the negative one alone.",
    "Chains move in noncentered coordinates; long drifts are shortened; gradients are clipped; the tilt is penalised.",
    "5 % of the pool is drawn anew from the base at every update, after Du, Mordatch (NeurIPS 2019).",
)
N_STEPS = {"posterior": "n_steps_fresh", "prior": "n_steps_fresh"}  # of chains after learning


class Hyper(NamedTuple):
    updates: Count = 1200  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of the generator
    learning_rate_tilt: NonNegative = 5e-4  # the pool has to follow the tilt
    decay_share: Share = 0.3  # of the updates, at the end, over which both rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    n_steps_posterior: Count = 15  # an epoch later the chain goes on, so fewer than a fresh one needs
    step_size_posterior: Positive = 0.2  # in noncentered coordinates 0.1 hardly moves
    n_steps_fresh: Count = 100  # of chains of data that have none, after learning
    max_drift: Positive | None = 0.5  # of a posterior step; tames a steep decoder
    n_steps_prior: Count = 20  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the joint scheme's number
    pool: Count = 512  # chains of the prior
    renewed: Share = 0.05  # share of the pool drawn anew at an update
    tilt_penalty: NonNegative = 0.05  # per squared nat; keeps base and tilted prior within reach of each other
    clip_norm: Positive = 100.0  # of the gradient of all parameters


class State(NamedTuple):
    """What the next update needs."""

    params: Any
    adam: Any
    update: Any  # number of updates done
    chains: Any  # of the posterior, a row for every datum, in noncentered coordinates
    pool: Any  # of the prior


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
    """Start from the program's own parameters, chains from the base."""
    program.refuse_global_latents("persistent_mle")
    k_data, k_pool = ppl.split(key)
    params, moving, n = program.params, program.with_coordinates("noncentered"), n_data or n_rows(x)
    chains = persistent.buffer(moving, k_data, params, n, "normal")
    pool = persistent.buffer(moving, k_pool, params, n if program.prior_reads else hyper.pool, "normal")
    return State(params, begun(ppl, params, hyper), 0, chains, pool)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Fresh chains of any data, longer than those of learning; centered latents, and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_posterior, max_drift=hyper.max_drift)
    return short_run(program, key, params, x, kernel, hyper.n_steps_fresh)


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Fresh chains of the tilted prior, longer than those of learning; centered latents, and what went wrong."""
    return short_run(program, key, params, n, langevin(ppl, hyper.step_size_prior), hyper.n_steps_fresh, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper, rows: Any = None) -> tuple[State, Info]:
    """One update on a batch x, data `rows` of all, by default the first ones."""
    k_positive, k_pick, k_renew, k_negative = ppl.split(key, 4)
    rows = ppl.asarray(range(n_rows(x))) if rows is None else rows
    params, back, moving = state.params, program.with_coordinates("centered"), program.with_coordinates("noncentered")
    kernel = langevin(ppl, hyper.step_size_posterior, max_drift=hyper.max_drift)
    positive, trouble = short_run(
        program, k_positive, params, x, kernel, hyper.n_steps_posterior, init=persistent.take_rows(state.chains, rows)
    )
    chains = persistent.put_rows(
        ppl, state.chains, rows, ppl.stop_gradient(back.move(params, positive, "noncentered", x))
    )
    pool, n, negative, divergent = state.pool, program.prior_rows(x), None, 0.0 * trouble.divergent
    if program.tilts:
        some = rows if program.prior_reads else persistent.shared_rows(program, k_pick, pool, n_rows(x))
        start = persistent.rejuvenate(moving, k_renew, params, persistent.take_rows(pool, some), n, hyper.renewed)
        kernel = langevin(ppl, hyper.step_size_prior)
        negative, told = short_run(
            program, k_negative, params, n, kernel, hyper.n_steps_prior, observed=False, init=start
        )
        pool = persistent.put_rows(ppl, pool, some, ppl.stop_gradient(back.move(params, negative, "noncentered", x)))
        divergent = told.divergent
    loss = lambda params: contrast(program, params, x, positive, negative, hyper.tilt_penalty)
    (_, aux), gradient = ppl.value_and_grad(loss, params, has_aux=True)
    new = moved(program, params, gradient, state.adam, state.update, hyper)
    return State(new.params, new.adam, state.update + 1, chains, pool), Info(
        aux.tilt_positive - aux.tilt_negative, aux.log_likelihood, aux.tilt_positive, aux.tilt_negative, new.grad_norm,
        new.grad_norm_tilt, new.clipped, trouble.divergent, divergent, trouble.tamed, aux.tilt_penalty,
        aux.tilt_saturation,
    )  # fmt: skip
