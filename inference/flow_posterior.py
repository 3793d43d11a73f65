r"""One normalizing flow per observation: the posterior of a given generator, not amortized.

    z = T_φᵢ(u),  u ~ N(0, I):    Δφᵢ ∝ ∇ { E_u[ log p̃(xᵢ, T(u)) ] + E_u[ log |det ∂T/∂u| ] }     for every datum i

The generator and its tilt are given and stay as they are; log Z is a constant. Learn them before, by another page,
and begin with that run: `pplebm.fit(..., start=RUN)`.
"""

import math
from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive, Share
from pplebm.guides.coupling import coupling, latents_of, transport
from pplebm.kernels.langevin import langevin
from pplebm.learning.gradients import clip
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.sampling.chains import short_run

PAPER = (
    "Dasgupta, Patel, Ray, Johnson, Oberai. A dimension-reduced variational approach for solving physics-based inverse "
    "problems using generative adversarial network priors and normalizing flows. 2023. arXiv:2310.04690"
)
DEVIATIONS = (
    "Flows of all training data are fitted side by side, those of a batch at each update.",
    "Affine coupling layers; the generator may have layers and a tilt; latents move in noncentered coordinates.",
)


class Hyper(NamedTuple):
    updates: Count = 2000  # with 1400 data in batches of 128, about 180 for each flow
    batch_size: Count = 128  # a hundred data fill two cores
    learning_rate: NonNegative = 2e-2  # of the flows
    decay_share: Share = 0.5  # of the updates, at the end, over which the rate falls to zero
    n_layers: Count = 4  # of a flow
    width: Count = 16  # hidden units of a layer: a flow of one datum need not be large
    n_particles: Count = 4  # draws per datum and update
    n_updates_fresh: Count = 200  # of the flow of a datum that has none, after learning
    n_steps_prior: Count = 60  # of chains that sample the given prior; none are run in learning
    step_size_prior: Positive = 0.4  # the joint scheme's number
    clip_norm: Positive = 100.0  # of the gradient of a batch of flows, per particle


class State(NamedTuple):
    """What the next update needs."""

    params: Any  # of the program, as given
    flows: Any  # a row for every datum
    adam: Any
    update: Any  # number of updates done


class Info(NamedTuple):
    """What a person wants to see of an update; scalars."""

    bound: Any  # E log p̃(x, z) + log|det| + entropy of u: the ELBO plus log Z, nats per datum
    grad_norm: Any  # before clipping


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper, n_data: int | None = None) -> State:
    """Flows at the identity: the base."""
    program.refuse_global_latents("flow_posterior")
    flows = coupling(ppl, n_data or n_rows(x), program.width, hyper.n_layers, hyper.width, program.seed)
    return State(program.params, flows, ppl.init_adam(flows), 0)


def _improved(
    ppl: Any, key: Any, program: Any, params: Any, x: Any, flows: Any, adam: Any, rate: Any, hyper: Hyper
) -> Any:
    """Flows of these data after one step of Adam, and what was seen."""
    k, n, d = hyper.n_particles, n_rows(x), program.width
    u = ppl.normal_like(key, {"u": ppl.asarray([[0.0] * d] * (k * n))})["u"]
    copies = ppl.asarray([i for _ in range(k) for i in range(n)])
    moving = program.with_coordinates("noncentered")

    def loss(flows: Any) -> Any:
        z, log_det = transport(ppl, {name: a[copies] for name, a in flows.items()}, u)
        bound = moving.log_joint(params, latents_of(program, z), take_rows(x, copies)) + log_det
        return -bound.sum() / k, bound.mean() + 0.5 * d * (1.0 + math.log(2.0 * math.pi))

    (_, bound), gradient = ppl.value_and_grad(loss, flows, has_aux=True)
    gradient, length = clip(ppl, gradient, hyper.clip_norm * n**0.5)
    return *ppl.adam(flows, gradient, adam, dict.fromkeys(flows, rate)), Info(bound, length)


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """A fresh flow for every datum, fitted here, and one draw of each; centered latents."""
    k_fit, k_draw = ppl.split(key)
    flows = coupling(ppl, n_rows(x), program.width, hyper.n_layers, hyper.width, program.seed)
    n = hyper.n_updates_fresh

    def step(carry: Any, key: Any) -> Any:
        flows, adam, i = carry
        rate = hyper.learning_rate * (1.0 - i / n)
        flows, adam, info = _improved(ppl, key, program, params, x, flows, adam, rate, hyper)
        return (flows, adam, i + 1), info.bound

    (flows, _, _), _ = ppl.iterate(
        step, (flows, ppl.init_adam(flows), ppl.asarray(0)), ppl.split(k_fit, n), lambda k: k
    )
    u = ppl.normal_like(k_draw, {"u": ppl.asarray([[0.0] * program.width] * n_rows(x))})["u"]
    z = latents_of(program, transport(ppl, flows, u)[0])
    return program.with_coordinates("noncentered").move(params, z, "centered", x), ppl.asarray(0.0)


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """n latents of the tilted prior, or one at each row of n; centered; and what went wrong."""
    return short_run(program, key, params, n, langevin(ppl, hyper.step_size_prior), hyper.n_steps_prior, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper, rows: Any = None) -> tuple[State, Info]:
    """One update of the flows of a batch x of shape (B, *event), data `rows` of all, by default the first ones."""
    rows = ppl.asarray(range(n_rows(x))) if rows is None else rows
    left = ppl.asarray((1.0 - state.update / hyper.updates) / max(hyper.decay_share, 1e-6))
    rate = hyper.learning_rate * ppl.where(left < 1.0, left, 1.0 + 0.0 * left)
    part = lambda tree: {name: a[rows] for name, a in tree.items()}
    whole = lambda tree, new: {name: ppl.put(a, rows, new[name]) for name, a in tree.items()}
    adam = state.adam._replace(mean=part(state.adam.mean), square=part(state.adam.square))
    flows, adam, info = _improved(ppl, key, program, state.params, x, part(state.flows), adam, rate, hyper)
    adam = adam._replace(mean=whole(state.adam.mean, adam.mean), square=whole(state.adam.square, adam.square))
    return State(state.params, whole(state.flows, flows), adam, state.update + 1), info
