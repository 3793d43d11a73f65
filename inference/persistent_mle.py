r"""Maximum likelihood by chains that live on: one per datum for the posterior, a pool for the tilted prior.

zᵢ⁺: K⁺ Langevin steps from where the chain of datum i stood,    z⁻: K⁻ steps from where the pool stood
Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ]
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Persistent, Pool
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Tijmen Tieleman",
              "Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient",
              2008, "ICML")  # fmt: skip
CHECK = "tests/learning/test_sources.py::test_chains_that_live_on_arrive_where_fresh_ones_of_their_length_do_not"
WHEN = "for mle without its weights, with fewer settings; it ends as high where chains mix"
DEVIATIONS = (
    "Langevin chains of continuous latents in place of Gibbs chains; both phases persist, not the negative one alone.",
    "Chains move in noncentered coordinates, by Langevin steps that are accepted or rejected; gradients are clipped.",
    "5 % of the pool is drawn anew from the base at every update, after Du, Mordatch (NeurIPS 2019).",
    "Where the likelihood is known, learning ends at the maximum, within 0.005 nats per datum (3 seeds).",
)


class Hyper(NamedTuple):
    updates: Count = 1200  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(learning_rate_tilt=5e-4)  # the pool has to follow the tilt
    posterior: Persistent = Persistent(
        n_steps=15,  # an epoch later the chain goes on, so fewer than a fresh one needs
        step_size=0.2,  # where adaptation begins, that of every datum's own
        kernel="mala",  # steps of Langevin alone are wrong by more the steeper the posterior is
        n_steps_fresh=100,  # of chains of data that have none, after learning
    )
    prior: Pool = Pool(
        n_steps=20,  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
        step_size=0.4,  # where adaptation begins, of one for the pool
        pool=512,  # four batches
        renewed=0.05,  # Du and Mordatch's share
        n_steps_fresh=100,  # the chains of learning are much older
        kernel="mala",  # as in the posterior
    )
    tilt_penalty: NonNegative = 0.0  # per squared nat; 0.05 costs 0.06 nats per datum where the likelihood is known


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """-E log p̃(x, z⁺) + E log p̃(z⁻), and the penalty."""
    return contrast(algorithm.program, params, x, positive, negative, algorithm.hyper.tilt_penalty)
