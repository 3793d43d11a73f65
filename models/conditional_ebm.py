r"""A tilted prior for every class, one generator for all: p(x | c), and by Bayes' rule the class of x.

p(z | c) = 1/Z(c) · exp[ Σᵢ fᵢ(zᵢ)_c ] · Πᵢ p(zᵢ | zᵢ₊₁),     x | z ~ N( g(z₁), σ² I ),     c = 1..K
p(zᵢ | zᵢ₊₁) = N( mᵢ(zᵢ₊₁), sᵢ(zᵢ₊₁)² ),     p(z_L) = N(0, I);      p(c | x) = p(c) p(x | c) / Σ_b p(b) p(x | b)

The label is a covariate of the prior, so every class has a constant of its own, and a negative phase. With two or more
`latent_dims` it is a joint EBM prior given the label.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Bo Pang and Ying Nian Wu", "Latent Space Energy-Based Model of Symbol-Vector Coupling for Text "
              "Generation and Classification", 2021, "ICML", arxiv="2108.11556",
              remark="a constant for every label")  # fmt: skip
RESULT = "digits: -9.10 nats held out given the label, its twin -12.69, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_conditional_ebm.py::test_every_class_has_the_constant_and_the_evidence_of_its_closed_form"
DEVIATIONS = (
    "The law of z given a label is normalised label by label; the paper's joint law of label and z has one constant.",
    "Every label is known, and classes are told apart by p(x | c); the paper has a classifier of z, softmax f(z).",
    "x is normal; the paper generates text.",
    "The tilts are bounded by b·tanh(f/b) and so cannot run away; the paper's are free.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # images come in [-1, 1], tables standardised


class Hyper(NamedTuple):
    n_classes: Count = 10  # K; labels are 0, 1, ..., K - 1
    latent_dims: tuple[Count, ...] = (16,)  # of z1, z2, ...; one layer as in latent_ebm, for 8x8 digits
    scale_floor: Positive = 0.2  # least standard deviation of a layer given the one above, as in joint_ebm
    sigma: Positive = 0.3  # of x given z, as in latent_ebm
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of every net, as in latent_ebm
    tilt_width: Count = 64  # hidden units of the tilts, which share them
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a tilt on digits needs
    tilted: bool = True  # False: the untilted twin, which does not read the label


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """The decoder, what is between layers, and for each of them a net with an output for every class."""
    h, dims = hyper, hyper.latent_dims
    out = {"decoder": decoder(h.decoder, dims[0], tuple(shape["x"]), h.channels, h.width, h.depth, "leaky_relu")}
    for i, (below, above) in enumerate(pairwise(dims), start=1):
        out[f"conditional{i}"] = mlp(above, 2 * below, h.width, h.depth, "leaky_relu")
    tilts = {f"tilt{i}": mlp(d, h.n_classes, h.tilt_width, h.depth, "leaky_relu") for i, d in enumerate(dims, start=1)}
    return out | (tilts if h.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, label: Any = None) -> Any:
    """Declare z_L, ..., z_1 given the label, (B,), and x of shape (B, *event)."""
    chosen, dims = 1.0 * (ppl.asarray(np.arange(hyper.n_classes)) == label[:, None]), hyper.latent_dims
    with ppl.plate("data", len(label)):
        z, law = None, ppl.dist.Normal(0.0, 1.0).expand([dims[-1]])
        for i in range(len(dims), 0, -1):
            if z is not None:
                h, d = net[f"conditional{i}"](z), dims[i - 1]
                law = ppl.dist.Normal(h[..., :d], ppl.softplus(h[..., d:] + 0.2) + hyper.scale_floor)
            z = ppl.sample(f"z{i}", law.to_event(1))
            if hyper.tilted:  # no number where the label is none of the classes
                f = (net[f"tilt{i}"](z) * chosen).sum(-1) / chosen.sum(-1)
                ppl.tilt(f"f{i}", f, bound=hyper.tilt_bound)
        mean = net["decoder"](z)
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(mean.ndim - 1), obs=x)


def with_every_label(x: Any, n_classes: int) -> dict[str, np.ndarray]:
    """Data of n·K rows: each x with label 0, then each with label 1, and so on."""
    return {"x": np.concatenate([np.asarray(x)] * n_classes), "label": np.repeat(np.arange(n_classes), len(x))}


def class_probabilities(log_p: Any, shares: Any) -> np.ndarray:
    """p(c | x), (n, K), of log p(x | c) at the rows of `with_every_label`, (n·K,), and shares p(c), (K,)."""
    by_class = np.asarray(log_p, dtype=float).reshape(len(shares), -1).T
    return np.asarray(softmax(by_class + np.log(shares), axis=1))
