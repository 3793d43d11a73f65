r"""Denoising score matching: the tilt of data by its gradient, without chains and without log Z.

    loss = ½ τ² E_x E_ε | ∇ log p(x + τε) + ε/τ |²,    ε ~ N(0, I)
    at its minimum p is the density of x + τε: that of the data, convolved with N(0, τ² I)
    + c (E f)² for a tilt with a bound: its constant, which a gradient does not tell, is held amid the bound

For programs without latents, whose tilt stands on observed sites. A normal law of variance v is learned as one of
v + τ², ½ log(1 + τ²/v) - ½ τ²/(v + τ²) nats below the law of the data in every direction, ¼ (τ²/v)² for small τ.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Info, Loss, State
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import BaseDraws
from pplebm.objectives.score_matching import denoising, refuse_latents
from pplebm.ppl.language import Array, Data, Latents, Params

PAPER = Paper("Pascal Vincent", "A Connection Between Score Matching and Denoising Autoencoders", 2011,
              journal="Neural Computation")  # fmt: skip
CHECK = "tests/objectives/test_score_matching.py::test_the_minimum_is_the_normal_law_of_the_data_and_the_noise"
WHEN = "for densities of data without latents: no chains and no log Z in learning, a bias of the noise"
DEVIATIONS = (
    "The score is the gradient of log p, tilt and base, so that a density exists; the paper's is an autoencoder.",
    "The mean of a bounded tilt over data is held at 0, so that it can fall as far as it can rise; take "
    "constant_penalty=0 where a bounded tilt has no constant of its own that could be held.",
    "Every datum is moved by ε and by -ε, which takes out the noise of the loss that is first order in τ.",
    "Far from data, where x + τε does not come, the tilt is what its network makes of it; so is the weight of modes "
    "that are far from each other by τ.",
)
REPORTS = {
    "score_loss": "½ |τ ∇ log p(x + τε) + ε|², per datum: d/2 for a flat density of d numbers",
    "score_gain": "by how much that of the base is larger: what the tilt has learned",
    "tilt_constant": "E f(x) of tilts with a bound, nats; the score does not tell it",
}
WITHOUT_LATENTS = True  # data are the values of all sites


class Hyper(NamedTuple):
    updates: Count = 2000  # an update without chains is quick
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(
        learning_rate_tilt=3e-3,  # no chains have to follow the tilt
        decay_share=0.5,  # the noise of the loss is averaged while rates fall
    )
    noise: Positive = 0.2  # τ, in units of the data as scaled: variances of 1 become 1.04, at 0.0004 nats each
    constant_penalty: NonNegative = 0.01  # c; without it f drifts to its bound, where it no longer falls off data
    prior: BaseDraws = BaseDraws(
        n_steps=100,  # of chains that sample what was learned; none are run in learning
        step_size=0.4,  # where they begin to find their own
        kernel="mala",  # accepted or rejected
    )


def init(algorithm: Algorithm, key: Any, x: Data, n_data: int) -> State:
    """The state before the first update, of a program without latents."""
    refuse_latents(algorithm.program, f"the page {algorithm.name}")
    return algorithm.begin(key, n_data)


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """Of data `positive`, and the penalty; there is no negative phase."""
    program, ppl, tau = algorithm.program, algorithm.ppl, algorithm.hyper.noise
    noise = ppl.normal_like(key, positive)
    value = denoising(program, params, positive, noise, tau, x)
    base = ppl.stop_gradient(denoising(program, ppl.stop_gradient(params), positive, noise, tau, x, 0.0))
    terms = program.log_terms(params, positive, x if program.prior_reads else None, observed=False)
    constants = [terms[name].mean() for name in program.tilt_bounds]
    seen = {"score_loss": value, "score_gain": base - value, "tilt_constant": 0.0 * value + sum(constants)}
    return value + algorithm.hyper.constant_penalty * sum(f**2 for f in constants), seen


def step(algorithm: Algorithm, key: Any, state: State, x: Data, index: Array) -> tuple[State, Info]:
    """One update, at the data and noise."""
    return algorithm.follow(key, state, x, algorithm.positive(key, state.params, x), None)
