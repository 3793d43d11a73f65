r"""A tilt for a frozen generator: first the untilted twin with its guide, then the tilt alone.

    stage 1:  Δθ, Δω ∝ ∇ E_q[ log p(x|z) + log p₀(z) - log q(z|x) ],            no tilt
    stage 2:  Δα ∝ E_q[ ∇f(z⁺) ] - E[ ∇f(z⁻) ],   z⁻: Langevin steps on f(z(ε)) - ½|ε|², generator and guide fixed

In noncentered coordinates, z = z(ε), the Jacobian cancels the scales of the conditionals: they are not in the target.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.guides.shared import guide_of
from pplebm.kernels.batch import zeros
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.objectives.elbo import untilted_elbo
from pplebm.ppl.trees import n_rows
from pplebm.sampling.chains import short_run

PAPER = (
    "Cui, Wu, Han. Learning Joint Latent Space EBM Prior Model for Multi-layer Generator. CVPR 2023. arXiv:2306.06323"
)
DEVIATIONS = (
    "The released chain adds log p(z|z above) to f at z(ε), without the Jacobian; this one targets f(z(ε)) - ½|ε|².",
    "The generator is the page's own, learned in the first stage, not a pre-trained NVAE.",
    "30 steps of size 0.4 in place of 10 of size 0.003, which hardly move the base.",
    "In the first stage the tilt's rate is zero, not its work: chains run from the beginning.",
)


class Hyper(NamedTuple):
    updates: Count = 2500  # two thirds for the twin, a third for the tilt
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of generator and guide
    learning_rate_tilt: NonNegative = 1e-3  # the positive samples do not follow the tilt, so it may learn fast
    first_stage: Share = 0.7  # share of the updates before generator and guide are frozen
    decay_share: Share = 0.2  # of the updates, at the end, over which the rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    family: str = "ladder"  # of the guide, see pplebm.guides.amortized
    n_steps_prior: Count = 30  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
    step_size_prior: Positive = 0.4  # the joint scheme's number
    tilt_penalty: NonNegative = 0.05  # per squared nat
    clip_norm: Positive = 100.0  # of the gradient of all parameters


class State(NamedTuple):
    """What the next update needs."""

    params: Any  # of the program and its guide
    adam: Any
    update: Any  # number of updates done


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    tilt_gap: Any  # E f(z⁺) - E f(z⁻), nats
    bound: Any  # the ELBO of the untilted twin, nats per datum
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    tilt_positive: Any
    tilt_negative: Any
    grad_norm: Any  # before clipping
    grad_norm_tilt: Any
    clipped: Any  # 1 if the gradient was shortened to clip_norm
    divergent_negative: Any  # share of chains with a non-finite step
    tilt_penalty: Any
    tilt_saturation: Any  # share of tilt values at their bound


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters and those of a guide derived from it."""
    params = program.params | guide_of(program, family=hyper.family).params
    return State(params, begun(ppl, params, hyper), 0)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """One draw of the guide per datum, in centered coordinates; no chain, no trouble."""
    z, log_q = guide_of(program, family=hyper.family).draw(key, params, x)
    return z, 0.0 * log_q.mean()


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    kernel = langevin(ppl, hyper.step_size_prior)
    return short_run(program, key, params, n, kernel, hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x."""
    k_noise, k_negative = ppl.split(key)
    guide = guide_of(program, family=hyper.family)
    noise, negative = guide.noise(k_noise, n_rows(x)), None
    divergent = 0.0 * zeros(noise).sum()
    if program.tilts:
        negative, trouble = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)
        divergent = trouble.divergent

    def tilt_alone(params: Any) -> Any:
        """The second stage's loss, seen by the tilts only."""
        held = {n: p if n in program.tilt_params else state.params[n] for n, p in params.items()}
        return contrast(program, held, x, positive, negative, hyper.tilt_penalty)

    positive = guide.at(state.params, noise, x)[0]
    (_, bound), gradient = ppl.value_and_grad(
        lambda params: untilted_elbo(program, guide, params, x, noise), state.params, has_aux=True
    )
    (_, seen), tilts = ppl.value_and_grad(tilt_alone, state.params, has_aux=True)
    gradient = gradient | {name: tilts[name] for name in program.tilt_params}
    gradient, bound, seen, divergent = ppl.average((gradient, bound, seen, divergent))
    second = ppl.asarray(1.0 * (state.update >= hyper.first_stage * hyper.updates))
    factors = {name: second if name in program.tilt_params else 1.0 - second for name in state.params}
    new = moved(program, state.params, gradient, state.adam, state.update, hyper, factors)
    return State(new.params, new.adam, state.update + 1), Info(
        seen.tilt_positive - seen.tilt_negative, bound, seen.log_likelihood, seen.tilt_positive, seen.tilt_negative,
        new.grad_norm, new.grad_norm_tilt, new.clipped, divergent, seen.tilt_penalty, seen.tilt_saturation,
    )  # fmt: skip
