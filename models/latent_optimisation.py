r"""Designs and their values from one latent under a tilted prior: a design is drawn given the value that is wanted.

p(z) = 1/Z · exp[ f(z) ] · N(z; 0, I),      x | z ~ N( g(z), σ² I ),      y | z ~ N( h(z), τ² )
p(x | y) = ∫ p(x | z) p(z | y) dz:  the posterior of z given the value y alone, and then x given z

x is a design, y its value; of some rows one of them may be unknown. A value far above those of the data is asked of a
model that has not seen its like: what is designed for it is to be evaluated.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Peiyu Yu and Dinghuai Zhang and Hengzhi He and Xiaojian Ma and Ruiyao Miao and Yifan Lu and Yasi "
              "Zhang and Deqian Kong and Ruiqi Gao and Jianwen Xie and Guang Cheng and Ying Nian Wu",
              "Latent Energy-Based Odyssey: Black-Box Optimization via Expanded Exploration in the Energy-Based "
              "Latent Space", 2024, arxiv="2405.16730")  # fmt: skip
RESULT = "Branin: median design 5.91, its twin's 13.13, best datum 6.09, by noise_contrastive (models/README.md)"
CHECK = "tests/gallery/test_latent_optimisation.py::test_designs_given_a_value_have_the_law_of_the_closed_form"
DEVIATIONS = (
    "The tilt is learned as the algorithm says; the paper's way is `noise_contrastive` by a telescope of classifiers.",
    "Latents given a value are drawn by chains that accept and reject, in place of the paper's gradient-based sampler.",
    "The tilt is bounded by b·tanh(f/b) and so cannot run away.",
    "Designs are vectors of numbers, or arrays that count as such; the paper has sequences as well.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # bring designs and values to mean 0 and standard deviation 1: rows not observed have none


class Hyper(NamedTuple):
    latent_dim: Count = 4  # wide enough for designs of few numbers
    sigma: Positive = 0.1  # of x given z, in standard deviations of the data
    tau: Positive = 0.1  # of y given z, likewise
    width: Count = 128  # hidden units of g and h
    depth: Whole = 2  # hidden layers of every net
    tilt_width: Count = 64  # hidden units of the tilt
    tilt_bound: Positive = 8.0  # nats, as in latent_ebm
    tilted: bool = True  # False: the untilted twin, the same generator with f = 0


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """g, h and the tilt; `shape` has that of x. Silu, since designs near an optimum ask for a smooth h."""
    h = hyper
    out = {
        "design": mlp(h.latent_dim, tuple(shape["x"]), h.width, h.depth, "silu"),
        "value": mlp(h.latent_dim, 1, h.width, h.depth, "silu"),
    }
    return out | ({"tilt": mlp(h.latent_dim, 1, h.tilt_width, h.depth, "silu")} if h.tilted else {})


def model(
    ppl: Any, net: Any, hyper: Hyper, x: Any = None, y: Any = None, observed_x: Any = None, observed_y: Any = None
) -> Any:
    """Declare z, x of shape (B, *event) and y of shape (B,), each masked where it is not observed, (B,)."""
    known_x, known_y = (True if observed is None else observed for observed in (observed_x, observed_y))
    with ppl.plate("data", len(x if y is None else y)):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](z)[..., 0], bound=hyper.tilt_bound)
        mean = net["design"](z)
        ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(mean.ndim - 1).mask(known_x), obs=x)
        ppl.sample("y", ppl.dist.Normal(net["value"](z)[..., 0], hyper.tau).mask(known_y), obs=y)


def as_data(x: Any, y: Any) -> dict[str, np.ndarray]:
    """Designs and values as data of `model`; where a row of either holds nan it is masked: unknown, or wanted."""
    found: dict[str, np.ndarray] = {}
    for name, values in (("x", x), ("y", y)):
        a = np.array(values, dtype=float)
        there = np.isfinite(a).reshape(len(a), -1).all(1)
        a[~there] = 0.0
        found |= {name: a, f"observed_{name}": there}
    return found


def wanted(y: Any, event: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Rows of values y, (n,), whose designs, of shape `event`, are to be drawn."""
    return as_data(np.full((len(y), *event), np.nan), y)
