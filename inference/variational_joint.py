r"""Amortized variational learning of generator, tilt and guide together.

    z⁺ = T(ε, x) ~ q(z|x),    z⁻: K⁻ Langevin steps towards the tilted prior
    Δθ ∝ E_q[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ],    Δω ∝ ∇ω E_q[ log p̃(x, z) - log q(z|x) ]

Only the prior needs a chain: the guide takes the place of the posterior's.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.guides.shared import guide_of
from pplebm.kernels.batch import zeros
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.elbo import elbo
from pplebm.objectives.nce import nce
from pplebm.ppl.trees import n_rows
from pplebm.sampling.chains import short_run

PAPER = (
    "Cui, Wu, Han. Learning Joint Latent Space EBM Prior Model for Multi-layer Generator. CVPR 2023. arXiv:2306.06323"
)
DEVIATIONS = (
    "The prior chain moves in noncentered coordinates (with log|J|), so one step size suits every layer.",
    "The tilt's gradient is kept from the guide by default (tilt_to_guide): joint learning of both diverges easily.",
    "All parameters are updated together by one Adam; gradients are clipped, and the tilt's square is penalised.",
)


class Hyper(NamedTuple):
    updates: Count = 3000  # a tenth of the cost of an update with posterior chains, so more of them
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of generator and guide
    learning_rate_tilt: NonNegative = 3e-4  # the guide has to follow the tilt
    decay_share: Share = 0.3  # of the updates, at the end, over which the rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    family: str = "ladder"  # of the guide, see pplebm.guides.amortized
    n_transforms: Whole = 0  # of flows in the place of the guide's normals
    tilt_to_guide: bool = False  # True is the ELBO, and the paper's
    n_steps_prior: Count = 30  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the paper's number
    ratio_weight: NonNegative = 0.0  # of a second loss for the tilt, by telling draws of the guide from base draws
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
    bound: Any  # the ELBO plus log Z, nats per datum
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    tilt_positive: Any
    tilt_negative: Any
    grad_norm: Any  # before clipping
    grad_norm_tilt: Any
    clipped: Any  # 1 if the gradient was shortened to clip_norm
    divergent_negative: Any  # share of chains with a non-finite step
    tilt_penalty: Any
    tilt_saturation: Any  # share of tilt values at their bound


def _guide(program: Any, hyper: Hyper) -> Any:
    return guide_of(program, family=hyper.family, n_transforms=hyper.n_transforms)


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters and those of a guide derived from it."""
    params = program.params | _guide(program, hyper).params
    return State(params, begun(ppl, params, hyper), 0)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Positive phase: one draw of the guide per datum, in centered coordinates; no chain, no trouble."""
    z, log_q = _guide(program, hyper).draw(key, params, x)
    return z, 0.0 * log_q.mean()


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_prior)
    return short_run(program, key, params, n, kernel, hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x."""
    k_noise, k_negative, k_base = ppl.split(key, 3)
    guide = _guide(program, hyper)
    noise, negative = guide.noise(k_noise, n_rows(x)), None
    divergent = 0.0 * zeros(noise).sum()
    if program.tilts:
        negative, trouble = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)
        divergent = trouble.divergent
    told = hyper.ratio_weight > 0 and bool(program.tilts)
    base = program.with_coordinates("centered").draw_base(k_base, program.prior_rows(x), state.params) if told else {}
    drawn = ppl.stop_gradient(guide.at(state.params, noise, x)[0]) if told else {}

    def loss(params: Any) -> Any:
        value, aux = elbo(program, guide, params, x, noise, negative, hyper.tilt_penalty, hyper.tilt_to_guide)
        return value + hyper.ratio_weight * nce(program, params, drawn, base, x) if told else value, aux

    (_, aux), gradient = ppl.value_and_grad(loss, state.params, has_aux=True)
    gradient, aux, divergent = ppl.average((gradient, aux, divergent))
    new, seen = moved(program, state.params, gradient, state.adam, state.update, hyper), aux.phases
    return State(new.params, new.adam, state.update + 1), Info(
        seen.tilt_positive - seen.tilt_negative, aux.bound, seen.log_likelihood, seen.tilt_positive,
        seen.tilt_negative, new.grad_norm, new.grad_norm_tilt, new.clipped, divergent, seen.tilt_penalty,
        seen.tilt_saturation,
    )  # fmt: skip
