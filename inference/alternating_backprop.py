r"""Alternating back-propagation: latents climb their posterior, one chain per datum that lives on, without noise.

    zᵢ ← zᵢ + ½ s² ∇ log p̃(xᵢ, zᵢ),  K steps from where the chain of datum i stood;    Δθ ∝ ∇θ log p̃(x, z)

At temperature 0 the latents are modes, not draws: quick, and without any spread. DGHL learns series so.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Persistent, ShortRun
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Cristian Challu and Peihong Jiang and Ying Nian Wu and Laurent Callot",
              "Deep Generative Model with Hierarchical Latent Factors for Time Series Anomaly Detection",
              2022, "AISTATS", arxiv="2202.07586")  # fmt: skip
CHECK = "tests/learning/test_sources.py::test_mala_without_temperature_climbs_to_the_mode"
WHEN = "for scores by the best latent of a datum, without a posterior; it is no maximum likelihood"
DEVIATIONS = (
    "Latents move in noncentered coordinates, by steps that are taken only where they lead up; gradients are clipped.",
    "The likelihood keeps its 1/σ²; the released code multiplies by σ².",
    "A tilt, which the paper's models do not have, stays as it is given: modes are no draws of the posterior, and it "
    "would learn just that. The conditionals of a hierarchy have their negative phase from a prior chain.",
    "Where the likelihood is known, learning with the true tilt ends 0.35 nats per datum below the maximum (3 seeds): "
    "modes have no spread.",
)


class Hyper(NamedTuple):
    updates: Count = 1200  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(learning_rate_tilt=0.0)  # the tilt is given; see DEVIATIONS
    posterior: Persistent = Persistent(
        n_steps=25,  # the paper's number
        step_size=0.1,  # the paper's number, of the first step
        kernel="mala",  # at temperature 0: a step is taken where it leads up, else the next is half as long
        temperature=0.0,  # 1: with noise, the original algorithm of Han et al. (AAAI 2017)
        spread=0.1,  # of where chains start, the released code's
        n_steps_fresh=500,  # of data that have no chain, after learning; the paper's number
    )
    prior: ShortRun = ShortRun(
        n_steps=30,  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
        step_size=0.4,  # the joint scheme's number
        kernel="mala",  # accepted or rejected, each chain at a step size that it finds
    )
    tilt_penalty: NonNegative = 0.0  # per squared nat


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """-E log p̃(x, z⁺) + E log p̃(z⁻), and the penalty."""
    return contrast(algorithm.program, params, x, positive, negative, algorithm.hyper.tilt_penalty)
