r"""Maximum likelihood by short-run Langevin chains in both phases.

    z⁺: K⁺ steps towards p(z|x),   z⁻: K⁻ steps towards the tilted prior,   both fresh from N(0, I) every time
    Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ]      for every θ; without a tilt there is no second phase

The short-run chain is part of the model that is learned: use the same steps and sizes afterwards.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import ShortRun
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Jiali Cui and Ying Nian Wu and Tian Han",
              "Learning Joint Latent Space EBM Prior Model for Multi-layer Generator",
              2023, "CVPR", arxiv="2306.06323")  # fmt: skip
CHECK = "tests/learning/test_learning.py::test_short_run_mle_raises_the_exact_log_evidence"
WHEN = "to repeat published results of short runs, or for a first look: a quarter of mle's updates"
DEVIATIONS = (
    "Chains move in noncentered coordinates (with log|J|), so one step size suits all layers; the paper moves z.",
    "Every Langevin step is accepted or rejected, and each chain finds its own step size in its first half.",
    "All parameters are updated together from the same samples by one Adam; the paper steps four in turn.",
    "Gradients are clipped; the paper does not.",
    "Where the likelihood is known, learning ends 0.018 nats per datum below the maximum (3 seeds): "
    "short chains are no draws of a narrow posterior.",
)


class Hyper(NamedTuple):
    updates: Count = 700  # under two minutes on two cores for 8x8 digits
    batch_size: Count = 128  # a hundred chains fill two cores
    optimizer: Optimizer = Optimizer(learning_rate_tilt=1e-3)  # at the paper's 2e-5 the tilt stays flat on small data
    posterior: ShortRun = ShortRun(
        n_steps=50,  # half of them find the step size; the paper takes 40
        step_size=0.2,  # where a chain begins to look for its own
        kernel="mala",  # both phases alike: unadjusted steps of two sizes take their difference for a gradient
    )
    prior: ShortRun = ShortRun(
        n_steps=30,  # the paper takes 60; in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
        step_size=0.4,  # the paper's number; where a chain begins to look for its own
        kernel="mala",  # accepted or rejected, so that both phases leave their laws as they are
    )
    tilt_penalty: NonNegative = 0.0  # per squared nat; 0.05 costs 0.06 nats per datum where the likelihood is known


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """-E log p̃(x, z⁺) + E log p̃(z⁻), and the penalty."""
    return contrast(algorithm.program, params, x, positive, negative, algorithm.hyper.tilt_penalty)
