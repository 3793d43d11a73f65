r"""Several views of one latent vector under a tilted prior; any of them may be missing in a row.

p(z) = 1/Z · exp[ f(z) ] · N(z; 0, I),      xₘ | z ~ N( gₘ(z), σ² I ), or one of K classes by softmax gₘ(z),   m = 1..M

Data are views by name, and `observed_<view>` where rows of a view are missing; a view that is missing everywhere is one
to be predicted: p(x₂ | x₁) is the posterior of z given x₁, and then x₂ given z.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Shiyu Yuan and Carlo Lipizzi and Tian Han",
              "Learning Multimodal Latent Space with EBM Prior and MCMC Inference", 2024,
              arxiv="2408.10467")  # fmt: skip
RESULT = "three views of digits: -25.87 nats held out, its twin -27.49, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_multimodal_ebm.py::test_a_view_given_another_has_the_law_of_its_closed_form"
DEVIATIONS = (
    "Chains start as the algorithm says; the paper starts them at a mixture of one encoder for every view.",
    "Missing views are masked, so that rows which lack some are learned from as well.",
    "Perceptrons take the place of the convolutional nets, and the tilt is bounded by b·tanh(f/b).",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # views are of different units; bring them to about [-1, 1]
MASK = "observed_"


class Hyper(NamedTuple):
    latent_dim: Count = 16  # as in latent_ebm, for 8x8 digits
    sigma: Positive = 0.3  # of views of numbers given z, as in latent_ebm
    one_hot: tuple[str, ...] = ()  # views that are classes, as vectors with a single 1; the others are numbers
    width: Count = 128  # hidden units of the decoders
    depth: Whole = 2  # hidden layers of every net, as in latent_ebm
    tilt_width: Count = 64  # hidden units of the tilt
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a tilt on digits needs
    tilted: bool = True  # False: the untilted twin, the same generator with f = 0


def nets(hyper: Hyper, shape: Mapping[str, tuple[int, ...]]) -> dict[str, Net]:
    """One decoder for every view, for shapes by name, and the tilt."""
    h, views = hyper, {name: tuple(event) for name, event in sorted(shape.items()) if not name.startswith(MASK)}
    out = {f"decoder_{name}": mlp(h.latent_dim, event, h.width, h.depth, "leaky_relu") for name, event in views.items()}
    return out | ({"tilt": mlp(h.latent_dim, 1, h.tilt_width, h.depth, "leaky_relu")} if h.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, **data: Any) -> Any:
    """Declare z, the tilt, and views of shape (B, *event), masked where `observed_<view>`, (B,), is False."""
    with ppl.plate("data", len(next(iter(data.values())))):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](z)[..., 0], bound=hyper.tilt_bound)
        for name in (key.removeprefix("decoder_") for key in net if key != "tilt"):
            out = net[f"decoder_{name}"](z)
            if name in hyper.one_hot:
                view = ppl.dist.Multinomial(1, logits=out)
            else:
                view = ppl.dist.Normal(out, hyper.sigma).to_event(out.ndim - 1)
            ppl.sample(name, view.mask(data.get(MASK + name, True)), obs=data.get(name))


def masked(views: Mapping[str, Any], seen: Any = None, one_hot: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Views as data of `model`: those not in `seen`, and rows that hold nan, are masked and filled validly."""
    found: dict[str, np.ndarray] = {}
    for name, view in views.items():
        a = np.array(view, dtype=float)
        there = np.isfinite(a).reshape(len(a), -1).all(1) & (seen is None or name in seen)
        a[~there] = np.eye(a.shape[-1])[0] if name in one_hot else 0.0
        found |= {name: a, MASK + name: there}
    return found
