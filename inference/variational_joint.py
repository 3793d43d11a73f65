r"""Amortized variational learning of generator, tilt and guide together.

    z⁺ = T(ε, x) ~ q(z|x),    z⁻: K⁻ Langevin steps towards the tilted prior
    Δθ ∝ E_q[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ],    Δω ∝ ∇ω E_q[ log p̃(x, z) - log q(z|x) ]

Only the prior needs a chain: the guide takes the place of the posterior's.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Amortized, ShortRun
from pplebm.objectives.elbo import elbo
from pplebm.objectives.nce import nce
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Jiali Cui and Ying Nian Wu and Tian Han",
              "Learning Joint Latent Space EBM Prior Model for Multi-layer Generator",
              2023, "CVPR", arxiv="2306.06323")  # fmt: skip
CHECK = "tests/gallery/test_baselines.py::test_the_variational_page_learns_by_the_plain_bound"
WHEN = "for a guide that learns with the tilt"
DEVIATIONS = (
    "The prior chain moves in noncentered coordinates (with log|J|), so one step size suits every layer.",
    "All parameters are updated together by one Adam; gradients are clipped, and the tilt's square is penalised.",
    "Where the likelihood is known, learning ends 0.08 nats per datum below the maximum (3 seeds).",
)
REPORTS = {"bound": "the ELBO plus log Z, nats per datum"}


class Hyper(NamedTuple):
    updates: Count = 3000  # a tenth of the cost of an update with posterior chains, so more of them
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(learning_rate_tilt=3e-4)  # the guide has to follow the tilt
    posterior: Amortized = Amortized()  # the paper's guide is a ladder as well
    prior: ShortRun = ShortRun(
        n_steps=30,  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
        step_size=0.4,  # the paper's number
        kernel="mala",  # accepted or rejected, each chain at a step size that it finds
    )
    tilt_to_guide: bool = True  # the ELBO, and the paper's; False is no bound, and ended a nat lower
    ratio_weight: NonNegative = 0.0  # of a second loss for the tilt, by telling draws of the guide from base draws
    tilt_penalty: NonNegative = 0.05  # per squared nat; without it layers went unused where it is known what they hold


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """Minus the ELBO at noise ε of the guide, the negative phase, the penalty, and the second loss if wanted."""
    program, guide, hyper = algorithm.program, algorithm.guide, algorithm.hyper
    value, seen = elbo(program, guide, params, x, positive, negative, hyper.tilt_penalty, hyper.tilt_to_guide)
    if hyper.ratio_weight > 0 and program.tilts:
        held = algorithm.ppl.stop_gradient(params)
        drawn, base = guide.at(held, positive, x)[0], algorithm.centered.draw_base(key, program.prior_rows(x), held)
        value = value + hyper.ratio_weight * nce(program, params, drawn, base, x)
    return value, seen
