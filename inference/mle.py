r"""Maximum likelihood: adjusted chains that live on in both phases, weighted for what the parameters do to them.

ε⁺, ε⁻: trajectories of the chain of every datum, and of a pool, from where they stood; accepted or rejected
log w ← log w + log π̃(ε; θ') - log π̃(ε; θ),     π̃: p̃(x, z) or p̃(z) as a density of the noise ε, z = z(ε; θ)
Δθ ∝ Σ w⁺ ∇θ log p̃(x, z⁺) - Σ w⁻ ∇θ log p̃(z⁻)     with w that add up to 1;      estimate: the average of the θ
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative
from pplebm.gallery.paper import Paper
from pplebm.learning import adjusted, noise, stopping
from pplebm.learning.algorithm import Algorithm, Info, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.sampling.weighted import repeated

PAPER = Paper("Davide Carbone and Mengjian Hua and Simon Coste and Eric Vanden-Eijnden", "Efficient Training of "
              "Energy-Based Models Using Jarzynski Equality", 2023, "NeurIPS", arxiv="2305.19414")  # fmt: skip
CHECK = "tests/learning/test_mle.py::test_learning_reaches_the_exact_maximum_and_ends"
WHEN = "by default: its estimate is the maximum of the likelihood, with standard errors by pplebm.estimates"
DEVIATIONS = (
    "The model has latents and data: chains of the posterior live on beside those of the prior.",
    "Trajectories are accepted or rejected, in noncentered coordinates, with a step size of every chain's own.",
    "Chains begin by annealing from the base, which gives weights from the first update on.",
    "Parameters are averaged, and learning ends after three times the updates in which the likelihood gained.",
)
REPORTS = adjusted.REPORTED | stopping.REPORTED


class Hyper(NamedTuple):
    updates: Count = 3000  # at most; where the likelihood ceases to gain it ends before
    batch_size: Count = 256  # a gradient whose noise averages out in a thousand updates
    optimizer: Optimizer = Optimizer(warmup_tilt=0.1)  # few parameters: rates of 0.02; at once, tilts go to their bound
    posterior: adjusted.AdjustedChains = adjusted.AdjustedChains(
        n_steps=2,  # trajectories; an epoch later the chain goes on
        n_leapfrog=12,  # steps of the longest; half of it on average
    )
    prior: adjusted.AdjustedPool = adjusted.AdjustedPool(
        n_steps=4,  # trajectories; the tilted prior is wider than a posterior, and all data share it
        n_leapfrog=12,  # as above
        pool=512,  # chains; larger ones are moved less often, and their weights grow uneven
        moved=256,  # of them at an update
        restarted=0.01,  # of the updates: so a mode that no chain is in can be found again
    )
    averaging: NonNegative = 2.0  # power of the weights of the average; 0: the last parameters
    window: Count = 100  # updates over which a gain of the likelihood is looked for, a multiple of 10
    tilt_penalty: NonNegative = 0.0  # per squared nat; above 0 the maximum is no longer that of the likelihood
    parameter_noise: NonNegative = 0.0  # 1: interacting particle Langevin, with rule=sgd; see pplebm.learning.noise


def init(algorithm: Algorithm, key: Any, x: Data, n_data: int) -> stopping.ClimbingState:
    """The state before the first update: chains begin when they are first moved."""
    noise.check(algorithm)
    return stopping.begin(algorithm.ppl, algorithm.begin(key, n_data), algorithm.hyper.window)


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None,
         weights: Any = (None, None)) -> Loss:  # fmt: skip
    """-Σ w⁺ log p̃(x, z⁺) + Σ w⁻ log p̃(z⁻), and the penalty."""
    return contrast(algorithm.program, params, x, positive, negative, algorithm.hyper.tilt_penalty, weights=weights)


def step(algorithm: Algorithm, key: Any, state: Any, x: Data, index: Array) -> tuple[Any, Info]:
    """One update; a row of data stands once for each of its chains."""
    k_positive, k_negative, k_loss, k_noise = algorithm.ppl.split(key, 4)
    positive, negative = algorithm.both_phases((k_positive, k_negative), state, x, index)
    rows = repeated(algorithm.ppl, x, algorithm.hyper.posterior.particles)
    weights = (positive.weight, None if negative is None else negative.weight)
    state, info = algorithm.follow(k_loss, state, rows, positive, negative, weights=weights)
    return noise.langevin_step(algorithm, k_noise, state), adjusted.curves(info) | stopping.gains(state)


def after(algorithm: Algorithm, state: Any, params: Params, gradient: Params) -> Any:
    """The state with what is known of the climb."""
    hyper = algorithm.hyper
    rising = hyper.optimizer.warmup_tilt * hyper.updates if algorithm.program.tilts else 0.0
    return state._replace(climb=stopping.follow(algorithm.ppl, state, params, gradient, hyper.window, rising))


def rates(algorithm: Algorithm, state: Any) -> dict[str, Any]:
    """Rates fall once the likelihood has ceased to gain."""
    factor = stopping.factor(algorithm.ppl, state)
    return algorithm.factors(state, factor, factor)


def arrived(algorithm: Algorithm, state: Any) -> Any:
    """Whether the average has had its share of the updates."""
    return stopping.has_arrived(state)
