r"""InfoVAE: a discrepancy holds the aggregated posterior to the prior, beside or in place of the KL term.

    Δ(θ, ω) ∝ ∇ { E_q log p(x|z) - (1-α) KL(q(z|x) || p(z)) - (α+λ-1) MMD²(q(z), p(z)) },   q(z): over the batch

With a tilt, p(z) is the tilted prior, its draws come from a chain, and log Z in the KL term has its negative phase.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.guides.shared import guide_of
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.mmd import info
from pplebm.ppl.trees import n_rows
from pplebm.sampling.chains import short_run

PAPER = (
    "Zhao, Song, Ermon. InfoVAE: Balancing Learning and Inference in Variational Autoencoders. AAAI 2019. "
    "arXiv:1706.02262"
)
DEVIATIONS = (
    "The kernel is the inverse multiquadric, unbiased; the authors' tutorial takes a Gaussian one and the biased form.",
    "α = 0 by default: part of the KL term stays, so that a tilt and the conditionals of a hierarchy learn.",
    "The KL term with a tilt is ours: the paper's priors are normalised.",
)


class Hyper(NamedTuple):
    updates: Count = 3000  # a tenth of the cost of an update with posterior chains, so more of them
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of generator and guide
    learning_rate_tilt: NonNegative = 1e-4  # at 3e-4 one seed of ten ran away: guide and tilt pull at each other
    decay_share: Share = 0.3  # of the updates, at the end, over which the rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    family: str = "ladder"  # of the guide, see pplebm.guides.amortized
    alpha: float = 0.0  # 1: no KL term at all
    weight: NonNegative = 100.0  # λ; in nats per datum, like the log likelihood
    n_steps_prior: Count = 30  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the paper's number
    clip_norm: Positive = 100.0  # of the gradient of all parameters


class State(NamedTuple):
    """What the next update needs."""

    params: Any  # of the program and its guide
    adam: Any
    update: Any  # number of updates done


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    tilt_gap: Any  # E f(z⁺) - E f(z⁻), nats
    bound: Any  # the ELBO plus log Z, nats per datum
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    tilt_positive: Any
    tilt_negative: Any
    grad_norm: Any  # before clipping
    grad_norm_tilt: Any
    clipped: Any  # 1 if the gradient was shortened to clip_norm
    divergent_negative: Any  # share of chains with a non-finite step
    tilt_saturation: Any  # share of tilt values at their bound


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters and those of a guide derived from it."""
    params = program.params | guide_of(program, family=hyper.family).params
    return State(params, begun(ppl, params, hyper), 0)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Positive phase: one draw of the guide per datum, in centered coordinates; no chain, no trouble."""
    z, log_q = guide_of(program, family=hyper.family).draw(key, params, x)
    return z, 0.0 * log_q.mean()


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_prior)
    return short_run(program, key, params, n, kernel, hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x."""
    k_noise, k_negative = ppl.split(key)
    guide = guide_of(program, family=hyper.family)
    noise = guide.noise(k_noise, n_rows(x))
    negative, trouble = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)

    def loss(params: Any) -> Any:
        return info(program, guide, params, x, noise, negative, hyper.alpha, hyper.weight)

    (_, aux), gradient = ppl.value_and_grad(loss, state.params, has_aux=True)
    gradient, aux, divergent = ppl.average((gradient, aux, trouble.divergent))
    new, seen = moved(program, state.params, gradient, state.adam, state.update, hyper), aux.phases
    return State(new.params, new.adam, state.update + 1), Info(
        seen.tilt_positive - seen.tilt_negative, aux.bound, seen.log_likelihood, seen.tilt_positive,
        seen.tilt_negative, new.grad_norm, new.grad_norm_tilt, new.clipped, divergent, seen.tilt_saturation,
    )  # fmt: skip
