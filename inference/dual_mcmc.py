r"""Dual MCMC teaching: the guide starts the posterior chains, and learns from where they end.

    z⁰ ~ q(z|x),    z⁺: K⁺ Langevin steps from z⁰ towards p(z|x),    z⁻: K⁻ steps towards the tilted prior
    Δθ ∝ E[ ∇θ log p̃(x, z⁺) ] - E[ ∇θ log p̃(z⁻) ],    Δω ∝ E[ ∇ω log q(z⁺|x) ]

The tilt reaches the guide through the chains alone, so the guide cannot run after it.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss, named
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.samples import Samples
from pplebm.learning.sources import Amortized, ShortRun
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Jiali Cui and Tian Han", "Learning Energy-based Model via Dual-MCMC Teaching",
              2023, "NeurIPS", arxiv="2312.02469")  # fmt: skip
CHECK = "tests/learning/test_conditional.py::test_every_page_learns_a_tilt_of_covariates[dual_mcmc]"
WHEN = "for a guide that starts chains, and is taught by where they end"
DEVIATIONS = (
    "The paper's energy is one of the data, and its generator starts that energy's chains; here both phases are "
    "chains of the latents, and the guide starts those of the posterior.",
    "Chains move in noncentered coordinates, by steps that are accepted or rejected; gradients are clipped.",
    "Where the likelihood is known, learning ends 0.01 nats per datum below the maximum (3 seeds).",
    "On binary images of 28 x 28 pixels learning broke down with one seed of three: see the README.",
)
REPORTS = {"log_guide": "E log q(z⁺|x), nats per datum"}


class Hyper(NamedTuple):
    updates: Count = 1200  # about as long as the other pages take
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(
        learning_rate_tilt=3e-4  # at 1e-3 the tilt outran the prior chains: a tilt gap of 9 nats
    )
    guide: Amortized = Amortized()  # its draws overlap the posterior after a few hundred updates
    posterior: ShortRun = ShortRun(
        n_steps=10,  # a quarter of a chain that starts anywhere
        step_size=0.1,  # where a chain begins to look for its own: the guide is near already
        kernel="mala",  # accepted or rejected, each chain at a step size that it finds
    )
    prior: ShortRun = ShortRun(
        n_steps=30,  # in noncentered coordinates 30 forget most of the start (0.92^30 = 0.08)
        step_size=0.4,  # the joint scheme's number
        kernel="mala",  # accepted or rejected, so that both phases leave their laws as they are
    )
    tilt_penalty: NonNegative = 0.0  # per squared nat


def positive(algorithm: Algorithm, key: Any, params: Params, x: Data) -> Samples:
    """Chains from the guide's draws."""
    k_guide, k_chain = algorithm.ppl.split(key)
    z, _ = algorithm.guide.draw(k_guide, params, x)
    start = algorithm.ppl.stop_gradient(algorithm.centered.move(params, z, "noncentered", x))
    return algorithm.hyper.posterior.draw(algorithm, k_chain, params, x, True, start)


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """-E log p̃(x, z⁺) + E log p̃(z⁻) - E log q(z⁺|x), and the penalty."""
    value, seen = contrast(algorithm.program, params, x, positive, negative, algorithm.hyper.tilt_penalty)
    log_guide = algorithm.guide.log_density(params, positive, x).mean()
    return value - log_guide, named(seen, log_guide=log_guide)
