r"""Maximum likelihood: adjusted chains that live on in both phases, weighted for the change of the parameters.

εᵢ⁺: trajectories of the chain of datum i, ε⁻: of a pool, accepted or rejected, from where they stood
w ← w π̃(ε; θ') / π̃(ε; θ): what a change of parameters does to a chain's weight
Δθ ∝ Σ w⁺ ∇θ log p̃(x, z⁺) - Σ w⁻ ∇θ log p̃(z⁻),    z = z(ε; θ)
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Whole
from pplebm.learning import stopping
from pplebm.learning.adjusted import AdjustedChains, AdjustedPool
from pplebm.learning.algorithm import Algorithm, Info, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.sampling.weighted import repeated

PAPER = "Carbone, Hua, Coste, Vanden-Eijnden. Efficient Training of Energy-Based Models Using Jarzynski Equality. NeurIPS 2023"
DEVIATIONS = ()


class Hyper(NamedTuple):
    updates: Count = 3000
    batch_size: Count = 256
    optimizer: Optimizer = Optimizer(learning_rate_tilt=1e-3)
    posterior: AdjustedChains = AdjustedChains()
    prior: AdjustedPool = AdjustedPool()
    averaging: NonNegative = 2.0
    window: Whole = 100


def init(algorithm: Algorithm, key: Any, x: Data, n_data: int) -> stopping.ClimbingState:
    """The state before the first update."""
    return stopping.begin(algorithm.ppl, algorithm.begin(key, n_data))


def loss(
    algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None, weights: Any
) -> Loss:
    """-Σ w⁺ log p̃(x, z⁺) + Σ w⁻ log p̃(z⁻)."""
    return contrast(algorithm.program, params, x, positive, negative, weights=weights)


def step(algorithm: Algorithm, key: Any, state: Any, x: Data, index: Array) -> tuple[Any, Info]:
    """One update; a row of data stands once for each of its chains."""
    k_positive, k_negative, k_loss = algorithm.ppl.split(key, 3)
    positive, negative = algorithm.both_phases((k_positive, k_negative), state, x, index)
    rows = repeated(algorithm.ppl, x, algorithm.hyper.posterior.particles)
    weights = (positive.weight, None if negative is None else negative.weight)
    return algorithm.follow(k_loss, state, rows, positive, negative, weights=weights)


def rates(algorithm: Algorithm, state: Any) -> dict[str, Any]:
    """Rates fall once the likelihood has ceased to gain."""
    factor = stopping.factor(algorithm.ppl, state)
    return algorithm.factors(state, factor, factor)


def after(algorithm: Algorithm, state: Any, params: Params, gradient: Params) -> Any:
    """The state with what is known of the climb."""
    return state._replace(climb=stopping.follow(algorithm.ppl, state, params, gradient, algorithm.hyper.window))


def arrived(algorithm: Algorithm, state: Any) -> Any:
    """Whether the likelihood has ceased to gain."""
    return stopping.has_arrived(state)
