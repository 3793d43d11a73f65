r"""Short-run inference whose step sizes are learned, one for every latent site.

q_s(z|x): the law after K Langevin steps of sizes s from N(0, I) towards p(z|x), in noncentered coordinates
Δs ∝ -∇s KL(q_s(z|x) || p(z|x)),   by  E[ log p̃(x, z_K) ] + ½ log det C_K(s),   C_K: the linearised covariance
Δθ ∝ E_{q_s}[ ∇θ log p̃(x, z) ] - E[ ∇θ log p̃(z⁻) ]
"""

import math
from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.kernels.batch import zeros
from pplebm.kernels.langevin import langevin
from pplebm.kernels.unrolled import unrolled
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.objectives.short_run_divergence import step_size
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.sampling.chains import short_run, start

PAPER = (
    "Nijkamp, Pang, Han, Zhou, Zhu, Wu. Learning Multi-layer Latent Variable Model via Variational Optimization of "
    "Short Run MCMC. ECCV 2020. arXiv:1912.01909"
)
DEVIATIONS = (
    "Step sizes learn by gradient from a few data of every batch; the released code fixes them.",
    "The entropy of a run is that of its linearisation along the path, exact for Gaussian posteriors.",
    "A tilt, which the paper does not have, gets its negative phase from a prior chain of fixed step size.",
)
_STEP = "step_size."  # before the site's name, of the logarithms of step sizes among the parameters


class Hyper(NamedTuple):
    updates: Count = 700  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of the generator
    learning_rate_tilt: NonNegative = 1e-3  # as the generator's
    step_rate: NonNegative = 5.0  # of the log step sizes, in units of learning_rate
    decay_share: Share = 0.3  # of the updates, at the end, over which the rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    n_steps_posterior: Count = 25  # the paper's number
    first_step_size: Positive = 0.1  # before learning; too large a one diverges before it can be learned
    n_learned: Count = 4  # data of a batch that the step sizes learn from: each costs as many rows as it has latents
    n_steps_prior: Count = 30  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the joint scheme's number
    tilt_penalty: NonNegative = 0.05  # per squared nat
    clip_norm: Positive = 100.0  # of the gradient of all parameters


class State(NamedTuple):
    """What the next update needs."""

    params: Any  # of the program, and log step sizes
    adam: Any
    update: Any  # number of updates done


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    tilt_gap: Any  # E f(z⁺) - E f(z⁻), nats
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    divergence: Any  # of the run from the posterior, up to a constant, nats per datum
    step_size: Any  # geometric mean over sites
    grad_norm: Any  # before clipping
    divergent_negative: Any  # share of chains with a non-finite step


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters and the first step size."""
    program.refuse_global_latents("short_run_learned_step")
    log_size = ppl.asarray(math.log(hyper.first_step_size))
    params = program.params | {_STEP + site.name: log_size for site in program.latents}
    return State(params, begun(ppl, params, hyper), 0)


def _sizes(ppl: Any, program: Any, params: Any) -> dict[str, Any]:
    return {site.name: ppl.exp(params[_STEP + site.name]) for site in program.latents}


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Positive phase: latents given x, one for each row, in centered coordinates."""
    moving, (k_start, k_run) = program.with_coordinates("noncentered"), ppl.split(key)
    z, found = start(moving, k_start, params, n_rows(x), "normal"), _sizes(ppl, program, params)
    end = ppl.stop_gradient(unrolled(ppl, k_run, z, moving.log_density(params, x), hyper.n_steps_posterior, found))
    return ppl.stop_gradient(moving.move(params, end, "centered", x)), 0.0 * zeros(end).sum()


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    return short_run(program, key, params, n, langevin(ppl, hyper.step_size_prior), hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x."""
    k_positive, k_negative, k_start, k_sizes = ppl.split(key, 4)
    positive, divergent = posterior(ppl, k_positive, program, state.params, x, hyper)
    negative = None
    if program.tilts:
        negative, (divergent, _) = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)
    moving, few = program.with_coordinates("noncentered"), take_rows(x, slice(0, hyper.n_learned))
    many = take_rows(few, ppl.asarray([i for i in range(n_rows(few)) for _ in range(program.width)]))
    z = start(moving, k_start, state.params, n_rows(few), "normal")
    densities = (moving.log_density(state.params, few), moving.log_density(state.params, many))

    def loss(params: Any) -> Any:
        value, aux = contrast(program, params, x, positive, negative, hyper.tilt_penalty)
        apart = step_size(ppl, k_sizes, *densities, z, hyper.n_steps_posterior, _sizes(ppl, program, params)).mean()
        return value + apart, (aux, apart)

    (_, (aux, apart)), gradient = ppl.value_and_grad(loss, state.params, has_aux=True)
    gradient, aux, apart, divergent = ppl.average((gradient, aux, apart, divergent))
    factors = {_STEP + site.name: hyper.step_rate for site in program.latents}
    new = moved(program, state.params, gradient, state.adam, state.update, hyper, factors)
    mean_size = ppl.exp(sum(new.params[name] for name in factors) / len(factors))
    return State(new.params, new.adam, state.update + 1), Info(
        aux.tilt_positive - aux.tilt_negative, aux.log_likelihood, apart, mean_size, new.grad_norm, divergent,
    )  # fmt: skip
