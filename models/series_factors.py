r"""Hierarchical latent factors of windows of a series: some are of the whole window, some of a part of it.

p(z_L) = 1/Z · exp[ f(z_L) ] · N(z_L; 0, I),      zᵢ ~ N(0, I) for every piece of level i, i < L
xⱼ | z ~ N( g(z₁ⱼ, z₂₍ⱼ₎, ..., z_L₍ⱼ₎), σ² I )  at the entries that are observed,     j = 1 ... pieces of the window

A window is cut into pieces; level i has one latent for each of its own, coarser pieces, and piece j sees those that it
lies in. Missing entries are masked, so a window whose last part is missing is a forecast: draw z, then x.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, series_decoder
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Cristian Challu and Peihong Jiang and Ying Nian Wu and Laurent Callot",
              "Deep Generative Model with Hierarchical Latent Factors for Time Series Anomaly Detection",
              2022, "AISTATS", arxiv="2202.07586")  # fmt: skip
RESULT = "NAB, SMAP/MSL: VUS-PR by windows 0.749, 0.540, twin 0.744, 0.540, nearest 0.687, 0.769 (models/README.md)"
CHECK = "tests/gallery/test_series_factors.py::test_the_evidence_of_what_is_observed_is_that_of_the_normal_law"
DEVIATIONS = (
    "The prior of the factors of the whole window may be tilted; the paper's is N(0, I), here tilted=False.",
    "The tilt is bounded by b·tanh(f/b) and so cannot run away.",
    "Latents are learned as the algorithm says; the paper's way is `alternating_backprop`.",
    "σ is learned unless learn_sigma=False, which `alternating_backprop` asks for: modes have no spread.",
    "No batch normalisation, which would couple the windows of a batch, and no noise added to the data.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # `pplebm.data.windows` scales by what is observed in the training part


class Hyper(NamedTuple):
    latent_dims: tuple[Count, ...] = (
        4,
        8,
    )  # of one piece of each level, z1 first; the paper has 20, 5
    pieces: tuple[Count, ...] = (4, 1)  # of a window at each level, z1 first; each divides the one before it
    sigma: Positive = 0.25  # of x given z, that of the released code, for standardised data; where it starts if learned
    learn_sigma: bool = True  # without, intervals of what is missing are as wide as sigma says
    decoder: Decoder = "dense"  # "conv": transposed convolutions in time, as in the paper
    channels: Count = 32  # of its last hidden layer, the released code's number
    width: Count = 64  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of a dense decoder and of the tilt
    tilt_width: Count = 64  # hidden units of the tilt
    tilt_bound: Positive = 8.0  # nats, as in latent_ebm
    tilted: bool = True  # False: the untilted twin, the paper's own prior


def nets(hyper: Hyper, shape: Mapping[str, tuple[int, ...]]) -> dict[str, Net]:
    """The decoder of one piece, and the tilt; `shape` has that of x, (T, C)."""
    h, event = hyper, tuple(shape.get("x", shape.get("", ())))
    nested = all(below % above == 0 for below, above in pairwise(h.pieces))
    if len(event) != 2 or event[0] % h.pieces[0] or not nested or len(h.pieces) != len(h.latent_dims):
        raise PplebmError(
            f"series_factors cuts windows x of shape (T, C) into equal pieces, and got shape {event}, "
            f"pieces={h.pieces} and latent_dims={h.latent_dims}; give a number for every level, each a divisor of the "
            f"one before it and all of them of T, and windows by `pplebm.data.windows`."
        )
    piece, inputs = (event[0] // h.pieces[0], event[1]), sum(h.latent_dims)
    if h.decoder == "conv":
        out = {"decoder": series_decoder(inputs, piece, h.channels, "leaky_relu")}
    else:
        out = {"decoder": mlp(inputs, piece, h.width, h.depth, "leaky_relu")}
    top = h.pieces[-1] * h.latent_dims[-1]
    return out | ({"tilt": mlp(top, 1, h.tilt_width, h.depth, "leaky_relu")} if h.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, observed_x: Any = None) -> Any:
    """Declare z_L, ..., z_1, each (B, pieces, latents), the tilt, and x (B, T, C), masked where not `observed_x`."""
    n, fine = len(x), hyper.pieces[0]
    with ppl.plate("data", n):
        seen = []
        for i in range(len(hyper.pieces), 0, -1):
            event = [hyper.pieces[i - 1], hyper.latent_dims[i - 1]]
            z = ppl.sample(f"z{i}", ppl.dist.Normal(0.0, 1.0).expand(event).to_event(2))
            if hyper.tilted and i == len(hyper.pieces):
                ppl.tilt("f", net["tilt"](z.reshape(*z.shape[:-2], -1))[..., 0], bound=hyper.tilt_bound)
            seen.append(z[..., np.arange(fine) * event[0] // fine, :])  # of the piece of level i that j lies in
        mean = net["decoder"](ppl.concat(seen, -1))
        mean = mean.reshape(*mean.shape[:-3], -1, mean.shape[-1])
        known = True if observed_x is None else observed_x
        sigma = ppl.exp(ppl.param("log_sigma", np.log(hyper.sigma))) if hyper.learn_sigma else hyper.sigma
        return ppl.sample("x", ppl.dist.Normal(mean, sigma).mask(known).to_event(2), obs=x)
