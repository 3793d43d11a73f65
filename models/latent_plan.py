r"""Plans: trajectories and their returns from one latent, so that actions follow from the return that is wanted.

z₁ ~ N(0, I),  z = U(z₁),    aₜ | sₜ, z ~ N( g(sₜ, z), σ² I ) or one of K by softmax g(sₜ, z),    y | z ~ N( m(z), τ² )
p(a | y, s) = ∫ Πₜ p(aₜ | sₜ, z) p(z₁ | y) dz₁:  a plan z₁ given the return y alone, and then actions at every state

States are covariates: where an action leads is left to the environment. z needs no density, so U is any net and chains
move in z₁. A return above those of the data is asked of a model that has not seen its like: the plan is to be tried.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Deqian Kong and Dehong Xu and Minglu Zhao and Bo Pang and Jianwen Xie and Andrew Lizarraga and Yuhao "
              "Huang and Sirui Xie and Ying Nian Wu", "Latent Plan Transformer for Trajectory Abstraction: Planning as "
              "Latent Space Inference", 2024, "NeurIPS", arxiv="2402.04647")  # fmt: skip
RESULT = "four coins: plans of pieces find 3.22, cloning the best 4.00; of whole ways 2.36 and 2.02 (models/README.md)"
CHECK = "tests/gallery/test_latent_plan.py::test_plans_given_a_return_have_the_law_of_the_closed_form"
DEVIATIONS = (
    "A perceptron draws actions given state and plan; the paper's transformer also reads what was before.",
    "Plans are drawn by chains that accept and reject; the released code takes 20 Langevin steps from the plan of the "
    "best trajectory, and may weigh the return more than its density does.",
    "U is a perceptron, m is linear by default, and a tilt may be added.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # bring returns to mean 0 and standard deviation 1, and states to about [-1, 1]
TILTED = False  # U takes the tilt's place; tilted=True adds one


class Hyper(NamedTuple):
    latent_dim: Count = 8  # of z₁: more than a plan of few decisions needs
    plan_dim: Count = 16  # of z, which U may fold
    sigma: Positive = 0.3  # of actions that are numbers, in their own units
    tau: Positive = 0.1  # of the return given z, in standard deviations of the data
    one_hot: bool = False  # True: an action is one of K, as a vector with a single 1
    width: Count = 64  # hidden units of every net; g runs at every step of a trajectory
    depth: Whole = 2  # hidden layers of U, g and the tilt
    value_depth: Whole = 0  # of m; linear in z, it need not level off at the best return of the data
    reads_plan: bool = True  # False: actions of the state alone, which is behaviour cloning
    tilt_bound: Positive = 8.0  # nats, as in latent_ebm
    tilted: bool = False  # True: p(z₁) = 1/Z exp[ f(z₁) ] N(z₁; 0, I)


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """U, g, m and the tilt; `shape` has those of states (T, S) and actions (T, A)."""
    h, n_states, n_actions = hyper, shape["states"][-1], shape["actions"][-1]
    out = {
        "plan": mlp(h.latent_dim, h.plan_dim, h.width, h.depth, "silu"),
        "action": mlp(n_states + h.plan_dim * h.reads_plan, n_actions, h.width, h.depth, "silu"),
        "value": mlp(h.plan_dim, 1, h.width, h.value_depth, "silu"),
    }
    return out | ({"tilt": mlp(h.latent_dim, 1, h.width, h.depth, "silu")} if h.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, states: Any = None, actions: Any = None, y: Any = None,
          observed_actions: Any = None, observed_y: Any = None) -> Any:  # fmt: skip
    """Declare z₁, actions (B, T, A) at states (B, T, S), and y (B,), masked step by step and row by row."""
    known_a, known_y = (True if seen is None else seen for seen in (observed_actions, observed_y))
    with ppl.plate("data", len(states)):
        z1 = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](z1)[..., 0], bound=hyper.tilt_bound)
        z = net["plan"](z1)
        read = [states, z[..., None, :] + 0.0 * states[..., :1]] if hyper.reads_plan else [states]
        out = net["action"](ppl.concat(read, -1))
        normal = ppl.dist.Normal(out, hyper.sigma).to_event(1)
        steps = ppl.dist.Multinomial(1, logits=out) if hyper.one_hot else normal
        ppl.sample("actions", steps.mask(known_a).to_event(1), obs=actions)
        ppl.sample("y", ppl.dist.Normal(net["value"](z)[..., 0], hyper.tau).mask(known_y), obs=y)


def as_data(states: Any, actions: Any, y: Any, one_hot: bool = False) -> dict[str, np.ndarray]:
    """Data of `model`; steps that hold nan, such as those after a trajectory's end, are masked, and so are returns."""
    s, a, returns = (np.array(v, dtype=float) for v in (states, actions, y))
    seen, known = np.isfinite(a).all(-1) & np.isfinite(s).all(-1), np.isfinite(returns)
    a = np.where(seen[..., None], a, np.eye(a.shape[-1])[0] if one_hot else 0.0)
    s, returns = np.where(np.isfinite(s), s, 0.0), np.where(known, returns, 0.0)
    return {"states": s, "actions": a, "y": returns, "observed_actions": seen, "observed_y": known}


def wanted(y: Any, states: Any, n_actions: int, one_hot: bool = False) -> dict[str, np.ndarray]:
    """Rows of returns y, (n,), whose actions at states (n, T, S) are to be drawn; they tell nothing of the plan."""
    if not np.isfinite(states).all():
        raise PplebmError("states hold nan, and there no action can be drawn; give states that are known.")
    return as_data(states, np.full((*np.shape(states)[:2], n_actions), np.nan), y, one_hot)
