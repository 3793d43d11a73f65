r"""A tilt learned in stages, each a density ratio: the guide's draws against those of the prior of the stage before.

    p_k(z) = p₀(z) exp[ f(z) at the end of stage k ] / Z_k,           m_k = ½ p_{k-1} + ½ p₀,   m_1 = p₀
    Δα ∝ -∇ E_q[ log(1 + exp(-r(z⁺))) ] - ∇ E[ log(1 + exp r(z⁻)) ],   z⁻ ~ m_k,   r = f - log m_k / p₀   in stage k
    log Z_k = Σ_{j <= k} log E_{p_{j-1}}[ exp(f_j - f_{j-1}) ],         at the end of every stage f = log q / p₀

The first stage is noise_contrastive, along with the untilted twin; draws of later ones are a weighted pool of chains.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Share
from pplebm.gallery.paper import Paper
from pplebm.learning import stages
from pplebm.learning.adjusted import AdjustedPool
from pplebm.learning.algorithm import Algorithm, Info, Loss, named
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Amortized
from pplebm.objectives.contrast import contrast
from pplebm.objectives.elbo import untilted_elbo
from pplebm.objectives.nce import refining_nce
from pplebm.ppl.language import Array, Data, Latents, Params

PAPER = Paper("Jiali Cui and Tian Han", "Learning Adaptive Multi-Stage Energy-based Prior for Hierarchical "
              "Generative Model", 2026, journal="TMLR")  # fmt: skip
CHECK = "tests/learning/test_multi_stage_nce.py::test_the_minimum_is_the_exact_ratio_whatever_the_earlier_tilt"
WHEN = "for wide networks and images, where a single noise contrast leaves modes"
DEVIATIONS = (
    "The tilt of a stage is what the declared one gains in it; it has no network of its own.",
    "Half of the draws of later stages are of the base, to hold the tilt there; none if the prior reads covariates.",
    "Draws of the stage before are chains that live on, accepted or rejected, weighted for what a stage changed.",
    "Generator and guide learn in the first stage, untilted: 0.15 nats below the maximum where it is known (3 seeds).",
)
REPORTS = {
    "bound": "the ELBO of the untilted twin, nats per datum",
    "nce": "logistic loss of the stage, nats",
    "z_ratio": "Z of the tilt as it stands by Z of the stage before",
} | stages.REPORTED


class Hyper(NamedTuple):
    updates: Count = 5000  # half of them for the twin, whose updates are quick
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(
        learning_rate_tilt=3e-3,  # positive samples do not follow the tilt; at 1e-2 it no longer settles on digits
        decay_share=0.2,  # within the last stage
    )
    stages: Count = 3  # K; 1 is noise_contrastive
    first_stage: Share = 0.5  # share of the updates before generator and guide are frozen, and the second stage begins
    posterior: Amortized = Amortized()  # as in variational_joint
    prior: AdjustedPool = AdjustedPool(
        n_steps=2,  # trajectories; the law stands still for a whole stage
        n_leapfrog=12,  # steps of the longest; half of it on average
        pool=512,  # chains, all of them moved in two updates
        moved=256,  # twice the batch
    )


def init(algorithm: Algorithm, key: Any, x: Data, n_data: int) -> stages.StagedState:
    """The state before the first update."""
    return stages.begin(algorithm.begin(key, n_data), algorithm)


def rates(algorithm: Algorithm, state: Any) -> dict[str, Any]:
    """Generator and guide stand still after the first stage."""
    is_later = 1.0 * (state.update >= algorithm.hyper.first_stage * algorithm.hyper.updates)
    return algorithm.factors(state, others=algorithm.ppl.asarray(1.0 - is_later))


def loss(
    algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None, **stage: Any
) -> Loss:
    """Minus the twin's ELBO, and the logistic loss of the tilts, which sees nothing but them."""
    program, guide, held = algorithm.program, algorithm.guide, algorithm.held(params)
    (value, bound), drawn = untilted_elbo(program, guide, params, x, positive), guide.at(held, positive, x)[0]
    seen = contrast(program, held, x, drawn, negative, weights=(None, stage.get("weight")))[1]
    if negative is None:
        return value, named(seen, bound=bound)
    ratio, z_ratio = refining_nce(program, held, positive=drawn, negative=negative, x=x, **stage)
    return value + ratio, named(seen, bound=bound, nce=ratio, z_ratio=z_ratio)


def step(algorithm: Algorithm, key: Any, state: Any, x: Data, index: Array) -> tuple[Any, Info]:
    """One update of the stage under way."""
    hyper, (k_positive, k_negative, k_loss) = algorithm.hyper, algorithm.ppl.split(key, 3)
    state, stage = stages.entered(algorithm, state, stages.starts(hyper.first_stage, hyper.updates, hyper.stages))
    positive = hyper.posterior.advance(algorithm, k_positive, state.params, x, True, (), index)
    negative, given = stages.draws(algorithm, k_negative, state, x, index, stage)
    state, info = algorithm.follow(k_loss, state, x, positive, negative, **given)
    return state, stages.curves(info, stage)
