r"""A tilt learned as a density ratio, without chains: the guide's draws against the base's, told apart by f.

    Δθ, Δω ∝ ∇ E_q[ log p(x|z) + log p₀(z) - log q(z|x) ]                       the untilted twin
    Δα ∝ -∇ E_q[ log(1 + exp(-f(z⁺))) ] - ∇ E[ log(1 + exp f(z⁰)) ],   z⁰ ~ p₀    at its end f = log q(z) / p₀(z)

Generator and guide are frozen for the last part, so that the ratio is learned of what stays.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Share
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss, State, named
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Amortized, BaseDraws
from pplebm.objectives.contrast import contrast
from pplebm.objectives.elbo import untilted_elbo
from pplebm.objectives.nce import nce
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Peiyu Yu and Dinghuai Zhang and Hengzhi He and Xiaojian Ma and Ruiyao Miao and Yifan Lu and Yasi "
              "Zhang and Deqian Kong and Ruiqi Gao and Jianwen Xie and Guang Cheng and Ying Nian Wu",
              "Latent Energy-Based Odyssey: Black-Box Optimization via Expanded Exploration in the Energy-Based "
              "Latent Space", 2024, arxiv="2405.16730")  # fmt: skip
CHECK = "tests/objectives/test_objectives.py::test_one_density_ratio_recovers_a_quadratic_near_by"
WHEN = "for wide networks and many images: updates without chains, a guide, a tilt in seconds"
DEVIATIONS = (
    "One classifier, not a telescope of them: the guide's draws and the base overlap once the twin has learned. "
    "pplebm.objectives.nce.telescoped is there for those that do not.",
    "Generator and guide learn without the tilt, and are frozen before its end.",
    "Where the likelihood is known, learning ends 0.14 nats per datum below the maximum (3 seeds); "
    "the twin alone is 0.21 below at best.",
)
REPORTS = {
    "bound": "the ELBO of the untilted twin, nats per datum",
    "nce": "logistic loss; 2 log 2 = 1.386 for a flat tilt",
}


class Hyper(NamedTuple):
    updates: Count = 4000  # an update without chains is quick
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(
        learning_rate_tilt=1e-3,  # the positive samples do not follow the tilt, so it may learn fast
        decay_share=0.2,  # within the second stage
    )
    first_stage: Share = 0.6  # share of the updates before generator and guide are frozen; the tilt learns throughout
    posterior: Amortized = Amortized()  # as in variational_joint
    prior: BaseDraws = BaseDraws(
        n_steps=60,  # of chains that sample the learned prior; none are run in learning
        step_size=0.4,  # the joint scheme's number
        kernel="mala",  # accepted or rejected, each chain at a step size that it finds
    )
    tilt_penalty: NonNegative = 0.0  # per squared nat at the positive samples; the logistic loss bounds itself


def rates(algorithm: Algorithm, state: State) -> dict[str, Any]:
    """Generator and guide stand still in the second stage."""
    is_second = 1.0 * (state.update >= algorithm.hyper.first_stage * algorithm.hyper.updates)
    factor = algorithm.ppl.asarray(1.0 - is_second)
    return algorithm.factors(state, others=factor)


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """Minus the twin's ELBO, and the logistic loss of the tilts, which sees nothing but them."""
    program, guide, hyper = algorithm.program, algorithm.guide, algorithm.hyper
    value, bound = untilted_elbo(program, guide, params, x, positive)
    held = algorithm.held(params)
    drawn = guide.at(held, positive, x)[0]
    if negative is None:
        return value, named(contrast(program, held, x, drawn, None)[1], bound=bound)
    seen = contrast(program, held, x, drawn, negative)[1]
    ratio = nce(program, held, drawn, negative, x)
    penalty = hyper.tilt_penalty * (program.log_tilt(held, drawn, x) ** 2).mean()
    return value + ratio + penalty, named(seen, bound=bound, nce=ratio, tilt_penalty=penalty)
