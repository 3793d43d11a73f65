r"""Normalizing flow as the prior of one latent vector, learned from data of which parts may be missing.

z = T(u),  u ~ N(0, I),      p(z) = N( T⁻¹(z); 0, I ) |∂T⁻¹/∂z|,      xⱼ | z ~ N( gⱼ(z), σ² )  where xⱼ is observed

The prior is normalised, so learning has no prior chain. A posterior chain moves in z, by p(z) with its Jacobian
(coordinates="centered"), or in u, whose prior is N(0, I) ("noncentered"): one law, two landscapes. As published is
short_run_mle at posterior.coordinates=centered, .kernel=langevin, .n_steps=20, .step_size=0.1: begun at N(0, I) in z.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.flows import Coupling
from pplebm.networks.layers import Net

PAPER = Paper("Jianwen Xie and Yaxuan Zhu and Yifei Xu and Dingcheng Li and Ping Li",
              "A Tale of Two Latent Flows: Learning Latent Space Normalizing Flow with Short-run Langevin Flow for "
              "Approximate Inference", 2023, "AAAI", arxiv="2301.09300")  # fmt: skip
RESULT = "half digits: the other half -6.63 nats, under N(0, I) -7.21, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_latent_flow.py::test_posteriors_in_z_and_in_u_are_one_law"
DEVIATIONS = (
    "Learning is as the algorithm says, by default in u; the paper's short runs in z are the settings named above.",
    "Coordinates take turns in coupling layers; the released code shuffles them, and normalises activations.",
    "σ enters the generator's gradient as the likelihood asks; the released code drops it there and keeps it in the "
    "chain.",
    "After learning, chains run until they are right; the released code makes its short runs 10 to 20 times longer.",
    "Perceptrons take the place of the convolutional nets; decoder=conv brings those back.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # what is missing has no value to scale by: bring images to [-1, 1], tables to mean 0 and sd 1
TILTED = False  # the flow takes the tilt's place


class Hyper(NamedTuple):
    latent_dim: Count = 16  # as in latent_ebm, for 8x8 digits; two or more
    n_layers: Whole = 5  # coupling layers, the depth of the released code; 0: the prior N(0, I), the plain twin
    flow_width: Count = 64  # hidden units of a coupling layer's net, the released code's width
    flow_depth: Whole = 1  # its hidden layers; 0 with stretches that do not read their input: an affine flow
    sigma: Positive = 0.3  # of x given z, the paper's value for data in [-1, 1]
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of a dense decoder


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net | Coupling]:
    """The decoder and the flow; `shape` has that of x."""
    h = hyper
    return {
        "decoder": decoder(h.decoder, h.latent_dim, tuple(shape["x"]), h.channels, h.width, h.depth, "leaky_relu"),
        "prior": Coupling(h.latent_dim, h.flow_width, h.flow_depth, h.n_layers),
    }


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, observed_x: Any = None) -> Any:
    """Declare z from the flow, and x of shape (B, *event), masked number by number where `observed_x` is False."""
    there = True if observed_x is None else observed_x
    with ppl.plate("data", len(x)):
        z = ppl.sample("z1", net["prior"]())
        mean = net["decoder"](z)
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).mask(there).to_event(mean.ndim - 1), obs=x)


def masked(x: Any, observed: Any = True) -> dict[str, np.ndarray]:
    """Data of `model`, (n, *event): numbers that are nan, or not `observed`, are masked and filled with 0."""
    a = np.array(x, dtype=float)
    there = np.isfinite(a) & observed
    return {"x": np.where(there, a, 0.0), "observed_x": there}
