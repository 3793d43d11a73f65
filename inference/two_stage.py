r"""A tilt for a frozen generator: first the untilted twin with its guide, then the tilt alone.

    stage 1:  Δθ, Δω ∝ ∇ E_q[ log p(x|z) + log p₀(z) - log q(z|x) ],            no tilt
    stage 2:  Δα ∝ E_q[ ∇f(z⁺) ] - E[ ∇f(z⁻) ],   z⁻: Langevin steps on f(z(ε)) - ½|ε|², generator and guide fixed

In noncentered coordinates, z = z(ε), the Jacobian cancels the scales of the conditionals: they are not in the target.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Share
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss, State, named
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Amortized, ShortRun
from pplebm.objectives.contrast import contrast
from pplebm.objectives.elbo import untilted_elbo
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Jiali Cui and Ying Nian Wu and Tian Han",
              "Learning Joint Latent Space EBM Prior Model for Multi-layer Generator",
              2023, "CVPR", arxiv="2306.06323")  # fmt: skip
CHECK = "tests/learning/test_conditional.py::test_every_page_learns_a_tilt_of_covariates[two_stage]"
WHEN = "to add a tilt to a hierarchical VAE that is learned first, at the cost of chains of the prior alone"
DEVIATIONS = (
    "The released chain adds log p(z|z above) to f at z(ε), without the Jacobian; this one targets f(z(ε)) - ½|ε|².",
    "The generator is the page's own, learned in the first stage, not a pre-trained NVAE.",
    "30 steps that are accepted or rejected in place of 10 of size 0.003, which hardly move the base.",
    "In the first stage the tilt's rate is zero, not its work: chains run from the beginning.",
    "Where the likelihood is known, learning ends 0.05 to 0.06 nats per datum below the maximum (3 seeds); "
    "the twin alone is 0.21 below at best.",
)
REPORTS = {"bound": "the ELBO of the untilted twin, nats per datum"}


class Hyper(NamedTuple):
    updates: Count = 2500  # two thirds for the twin, a third for the tilt
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(
        learning_rate_tilt=1e-3,  # the positive samples do not follow the tilt, so it may learn fast
        decay_share=0.2,  # within the second stage
    )
    first_stage: Share = 0.7  # share of the updates before generator and guide are frozen
    posterior: Amortized = Amortized()  # as in variational_joint
    prior: ShortRun = ShortRun(
        n_steps=30,  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
        step_size=0.4,  # the joint scheme's number
        kernel="mala",  # accepted or rejected, each chain at a step size that it finds
    )
    tilt_penalty: NonNegative = 0.0  # per squared nat; 0.05 costs 0.05 nats per datum where the likelihood is known


def rates(algorithm: Algorithm, state: State) -> dict[str, Any]:
    """The tilts stand still in the first stage, all else in the second."""
    is_second = 1.0 * (state.update >= algorithm.hyper.first_stage * algorithm.hyper.updates)
    second = algorithm.ppl.asarray(is_second)
    return algorithm.factors(state, tilts=second, others=1.0 - second)


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """Minus the twin's ELBO, and the two phases of the tilts, which see nothing but them."""
    program, guide = algorithm.program, algorithm.guide
    value, bound = untilted_elbo(program, guide, params, x, positive)
    held = algorithm.held(params)
    phases, seen = contrast(program, held, x, guide.at(held, positive, x)[0], negative, algorithm.hyper.tilt_penalty)
    return value + phases, named(seen, bound=bound)
