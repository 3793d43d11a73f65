r"""A tilt learned as a density ratio, without chains: the guide's draws against the base's, told apart by f.

    Δθ, Δω ∝ ∇ E_q[ log p(x|z) + log p₀(z) - log q(z|x) ]                       the untilted twin
    Δα ∝ -∇ E_q[ log(1 + exp(-f(z⁺))) ] - ∇ E[ log(1 + exp f(z⁰)) ],   z⁰ ~ p₀    at its end f = log q(z) / p₀(z)

Generator and guide are frozen for the last part, so that the ratio is learned of what stays.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.guides.shared import guide_of
from pplebm.kernels.langevin import langevin
from pplebm.learning.optimizer import begun, moved
from pplebm.objectives.contrast import contrast
from pplebm.objectives.elbo import untilted_elbo
from pplebm.objectives.nce import nce
from pplebm.ppl.trees import n_rows
from pplebm.sampling.chains import short_run, start

PAPER = "Yu, Zhu, Xie, Ma, Xu, Zhu, Wu. Latent Energy-Based Odyssey: Black-Box Optimization. 2024. arXiv:2405.16730"
DEVIATIONS = (
    "One classifier, not a telescope of them: the guide's draws and the base overlap once the twin has learned. "
    "pplebm.objectives.nce.telescoped is there for those that do not.",
    "Generator and guide learn without the tilt, and are frozen before its end.",
)


class Hyper(NamedTuple):
    updates: Count = 4000  # an update without chains is quick
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 1e-3  # of generator and guide
    learning_rate_tilt: NonNegative = 1e-3  # the positive samples do not follow the tilt, so it may learn fast
    first_stage: Share = 0.6  # share of the updates before generator and guide are frozen; the tilt learns throughout
    decay_share: Share = 0.2  # of the updates, at the end, over which the rates fall to zero
    schedule: Schedule = "linear"  # of that fall; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    accumulate: Count = 1  # batches to a step of Adam: more where memory holds small batches only
    family: str = "ladder"  # of the guide, see pplebm.guides.amortized
    n_steps_prior: Count = 60  # of chains that sample the learned prior; none are run in learning
    step_size_prior: Positive = 0.4  # the joint scheme's number
    tilt_penalty: NonNegative = 0.0  # per squared nat at the positive samples; the logistic loss bounds itself
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
    nce: Any  # logistic loss, 2 log 2 = 1.386 for a flat tilt
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
    k_noise, k_base = ppl.split(key)
    guide = guide_of(program, family=hyper.family)
    noise = guide.noise(k_noise, n_rows(x))
    base = start(program.with_coordinates("centered"), k_base, state.params, program.prior_rows(x), "base")
    positive, _ = guide.at(state.params, noise, x)

    def ratio(params: Any) -> Any:
        held = {n: p if n in program.tilt_params else state.params[n] for n, p in params.items()}
        _, seen = contrast(program, held, x, positive, base)
        penalty = hyper.tilt_penalty * (program.log_tilt(held, positive, x) ** 2).mean()
        return nce(program, held, positive, base, x) + penalty, seen._replace(tilt_penalty=penalty)

    (_, bound), gradient = ppl.value_and_grad(
        lambda params: untilted_elbo(program, guide, params, x, noise), state.params, has_aux=True
    )
    (_, seen), loss = contrast(program, state.params, x, positive, None), 0.0 * bound
    if program.tilts:
        (loss, seen), tilts = ppl.value_and_grad(ratio, state.params, has_aux=True)
        gradient = gradient | {name: tilts[name] for name in program.tilt_params}
    gradient, bound, seen, loss = ppl.average((gradient, bound, seen, loss))
    second = ppl.asarray(1.0 * (state.update >= hyper.first_stage * hyper.updates))
    factors = {name: 1.0 - second for name in state.params if name not in program.tilt_params}
    new = moved(program, state.params, gradient, state.adam, state.update, hyper, factors)
    return State(new.params, new.adam, state.update + 1), Info(
        seen.tilt_positive - seen.tilt_negative, bound, seen.log_likelihood, seen.tilt_positive, seen.tilt_negative,
        new.grad_norm, new.grad_norm_tilt, new.clipped, loss, seen.tilt_penalty, seen.tilt_saturation,
    )  # fmt: skip
