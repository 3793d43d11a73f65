r"""Maximum likelihood by short-run Langevin chains in both phases.

    z⁺: K⁺ steps towards p(z|x),   z⁻: K⁻ steps towards the tilted prior,   both fresh from N(0, I) every time
    Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ]      for every θ; without a tilt there is no second phase

The short-run chain is part of the model that is learned: use the same steps and sizes afterwards.
"""

from typing import Any, NamedTuple

from pplebm import chains
from pplebm.kernels import langevin
from pplebm.objectives.contrast import contrast

PAPER = (
    "Cui, Wu, Han. Learning Joint Latent Space EBM Prior Model for Multi-layer Generator. CVPR 2023. arXiv:2306.06323"
)
DEVIATIONS = (
    "Chains move in noise coordinates (with log|J|), so one step size suits every layer; the paper moves z itself.",
    "All parameters are updated together from the same samples by one Adam; the paper steps four in turn.",
    "Gradients are clipped, and the tilt's square is penalised; the paper does neither.",
)


class Hyper(NamedTuple):
    updates: int = 1500  # about two minutes on two cores for 8x8 digits
    batch_size: int = 128  # a hundred chains fill two cores
    learning_rate: float = 1e-3  # of the generator
    learning_rate_tilt: float = 1e-3  # at the paper's 2e-5 the tilt stays flat on small data
    coordinates: str = "noise"  # "centred" is the paper's
    init: str = "normal"  # of both chains; the same as "base" in noise coordinates
    n_steps_posterior: int = 40  # the paper's number
    step_size_posterior: float = 0.2  # the paper's 0.1 hardly moves in noise coordinates
    n_steps_prior: int = 60  # the paper's number
    step_size_prior: float = 0.3  # the paper takes 0.4
    temperature: float = 1.0  # of both chains; 1 is the target itself
    tilt_penalty: float = 0.05  # per squared nat; keeps base and tilted prior within reach of each other
    clip_norm: float = 100.0  # of the gradient of all parameters; ordinary norms are 10 to 50


class State(NamedTuple):
    """What the next update needs."""

    params: Any
    adam: Any


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    energy_gap: Any  # E f(z⁺) - E f(z⁻), nats
    log_likelihood: Any  # E log p(x|z⁺), nats per datum
    tilt_positive: Any
    tilt_negative: Any
    grad_norm: Any  # before clipping
    grad_norm_tilt: Any
    divergent_positive: Any  # share of chains with a non-finite step
    divergent_negative: Any


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """Start from the program's own parameters."""
    program.refuse_global_latents("short_run_mle")
    return State(program.params, ppl.init_adam(program.params))


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Positive phase: latents given x, (B, *event), in centred coordinates, and the share of divergent chains."""
    moving = program.with_coordinates(hyper.coordinates)
    return _chain(
        ppl, key, moving, params, len(x), hyper, hyper.step_size_posterior, hyper.n_steps_posterior,
        lambda z: moving.log_joint(params, z, x),
    )  # fmt: skip


def prior(ppl: Any, key: Any, program: Any, params: Any, n: int, hyper: Hyper) -> tuple[Any, Any]:
    """Negative phase: n latents of the tilted prior, in centred coordinates, and the share of divergent chains."""
    moving = program.with_coordinates(hyper.coordinates)
    return _chain(
        ppl, key, moving, params, n, hyper, hyper.step_size_prior, hyper.n_steps_prior,
        lambda z: moving.log_prior(params, z),
    )  # fmt: skip


def _chain(ppl, key, moving, params, n, hyper, step_size, n_steps, log_density):  # type: ignore[no-untyped-def]
    k_start, k_run = ppl.split(key)
    state = langevin.init(ppl, chains.start(moving, k_start, params, n, hyper.init))
    kernel = langevin.langevin(ppl, step_size, hyper.temperature)
    state, _ = chains.run(ppl, k_run, kernel, state, log_density, n_steps)
    z = ppl.stop_gradient(moving.move(params, state.z, "centred"))
    return z, (state.n_divergent > 0).sum() / n


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x of shape (B, *event)."""
    k_positive, k_negative = ppl.split(key)
    positive, divergent_positive = posterior(ppl, k_positive, program, state.params, x, hyper)
    negative, divergent_negative = None, 0.0 * divergent_positive
    if program.tilts:
        negative, divergent_negative = prior(ppl, k_negative, program, state.params, len(x), hyper)

    def loss(params: Any) -> Any:
        return contrast(program, params, x, positive, negative, hyper.tilt_penalty)

    (_, aux), gradient = ppl.value_and_grad(loss, state.params, has_aux=True)
    norm = sum((g**2).sum() for g in gradient.values()) ** 0.5
    norm_tilt = sum(((gradient[n] ** 2).sum() for n in program.tilt_params), start=0.0 * norm) ** 0.5
    shrink = hyper.clip_norm / ppl.where(norm > hyper.clip_norm, norm, 0.0 * norm + hyper.clip_norm)
    gradient = {n: shrink * g for n, g in gradient.items()}
    rates = {n: hyper.learning_rate_tilt if n in program.tilt_params else hyper.learning_rate for n in state.params}
    params, adam = ppl.adam(state.params, gradient, state.adam, rates)
    gap = aux.tilt_positive - aux.tilt_negative
    return State(params, adam), Info(
        gap, aux.log_likelihood, aux.tilt_positive, aux.tilt_negative, norm, norm_tilt,
        divergent_positive, divergent_negative,
    )  # fmt: skip
