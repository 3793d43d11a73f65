r"""One normalizing flow per observation: the posterior of a given generator, not amortized.

    z = T_φᵢ(u),  u ~ N(0, I):    Δφᵢ ∝ ∇ { E_u[ log p̃(xᵢ, T(u)) ] + E_u[ log |det ∂T/∂u| ] }     for every datum i

Generator and tilt are given by a run of another page, `pplebm.fit(..., start=RUN)`, and stay; log Z is a constant.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count
from pplebm.gallery.paper import Paper
from pplebm.guides.coupling import Flow, coupling, latents_of, transport
from pplebm.learning.algorithm import Algorithm, Info, State
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.samples import Samples
from pplebm.learning.sources import ShortRun
from pplebm.objectives.elbo import flow_elbo
from pplebm.ppl.language import Array, Data, Params
from pplebm.ppl.trees import n_rows, tree_map

PAPER = Paper("Agnimitra Dasgupta and Dhruv V. Patel and Deep Ray and Erik A. Johnson and Assad A. Oberai",
              "A dimension-reduced variational approach for solving physics-based inverse problems using "
              "generative adversarial network priors and normalizing flows", 2023, arxiv="2310.04690")  # fmt: skip
CHECK = "tests/guides/test_guides.py::test_the_bound_of_a_flow_is_the_evidence_less_the_divergence"
WHEN = "for the posterior of a few data under a model that is learned already"
DEVIATIONS = (
    "Affine coupling layers; flows of a batch at each update; 0.15 nats below log p(x) where it is known (1 seed).",
)
REPORTS = {"bound": "E log p̃(x, z) + log|det| + entropy of u: the ELBO plus log Z, nats per datum"}
KEEPS_ROWS = True  # a flow for every datum


class Hyper(NamedTuple):
    updates: Count = 2000  # with 1400 data in batches of 128, about 180 for each flow
    batch_size: Count = 128  # a hundred data fill two cores
    optimizer: Optimizer = Optimizer(
        learning_rate=2e-2,  # a flow of one datum is small
        learning_rate_tilt=0.0,  # the tilt is given
        decay_share=0.5,  # each flow sees few updates, so half of them at falling rates
    )
    n_layers: Count = 4  # of a flow
    width: Count = 16  # hidden units of a layer: a flow of one datum need not be large
    n_particles: Count = 4  # draws per datum and update
    n_updates_fresh: Count = 200  # of the flow of a datum that has none, after learning
    prior: ShortRun = ShortRun(n_steps=60, kernel="mala")  # of the given prior; none are run in learning


def init(algorithm: Algorithm, key: Any, x: Data, n_data: int) -> State:
    """Flows at the identity: the base."""
    algorithm.program.refuse_global_latents(algorithm.name)
    flows = _flows(algorithm, n_data)
    return State(algorithm.program.params, algorithm.optimizer.init(algorithm.ppl, flows), 0, flows)


def step(algorithm: Algorithm, key: Any, state: State, x: Data, index: Array) -> tuple[State, Info]:
    """One update of the flows of a batch, data `index` of all."""
    ppl, hyper = algorithm.ppl, algorithm.hyper
    is_row = lambda a: len(a.shape) > 0 and len(a) == n_rows(state.positive)
    carry = tree_map(lambda a: a[index] if is_row(a) else a, (state.positive, state.optimizer))
    new, bound = _update(algorithm, key, (*carry, state.update), state.params, x, hyper.updates, hyper.optimizer)
    put = lambda a, b: ppl.put(a, index, b) if is_row(a) else b
    flows, optimizer = tree_map(put, (state.positive, state.optimizer), (new.params, new.state))
    return State(state.params, optimizer, state.update + 1, flows), {"bound": bound, "grad_norm": new.grad_norm}


def positive(algorithm: Algorithm, key: Any, params: Params, x: Data) -> Samples:
    """A fresh flow for every datum, fitted here at rates that fall throughout, and one draw of each."""
    ppl, n, flows = algorithm.ppl, algorithm.hyper.n_updates_fresh, _flows(algorithm, n_rows(x))
    optimizer, (k_fit, k_draw) = algorithm.optimizer._replace(decay_share=1.0), ppl.split(key)

    def one(carry: Any, key: Any) -> Any:
        new, bound = _update(algorithm, key, carry, params, x, n, optimizer)
        return (new.params, new.state, carry[2] + 1), bound

    begun = (flows, optimizer.init(ppl, flows), ppl.asarray(0))
    flows = ppl.iterate(one, begun, ppl.split(k_fit, n), lambda k: k)[0][0]
    z = latents_of(algorithm.program, transport(ppl, flows, _noise(algorithm, k_draw, n_rows(x)))[0])
    return Samples(algorithm.noncentered.move(params, z, "centered", x))


def _update(algorithm: Algorithm, key: Any, carry: Any, params: Params, x: Data, n_updates: int, by: Optimizer) -> Any:
    """Flows of these data after one update more, and the mean of their bounds before it."""
    (flows, state, update), k = carry, algorithm.hyper.n_particles
    u, by = _noise(algorithm, key, k * n_rows(x)), by._replace(clip_norm=by.clip_norm * n_rows(x) ** 0.5)
    loss = lambda flows: flow_elbo(algorithm.noncentered, params, flows, x, u, k)
    (_, bound), gradient = algorithm.ppl.value_and_grad(loss, flows, has_aux=True)
    return by.update(algorithm.program, flows, gradient, state, update, n_updates), bound


def _flows(algorithm: Algorithm, n: int) -> Flow:
    hyper, program = algorithm.hyper, algorithm.program
    return coupling(algorithm.ppl, n, program.width, hyper.n_layers, hyper.width, program.seed)


def _noise(algorithm: Algorithm, key: Any, n: int) -> Array:
    return algorithm.ppl.normal_like(key, {"u": algorithm.ppl.asarray([[0.0] * algorithm.program.width] * n)})["u"]
