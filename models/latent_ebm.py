r"""Latent-space energy-based prior: one latent vector, one tilt.

p(z) = 1/Z · exp[ f(z) ] · N(z; 0, I),        x | z ~ N( g(z), σ² I )   or   Bernoulli( sigmoid g(z) )
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net, mlp
from pplebm.networks.likelihoods import Likelihood, likelihood

PAPER = Paper("Bo Pang and Tian Han and Erik Nijkamp and Song-Chun Zhu and Ying Nian Wu",
              "Learning Latent Space Energy-Based Prior Model", 2020, "NeurIPS", arxiv="2006.08205")  # fmt: skip
RESULT = "digits: -10.13 nats held out, its twin -11.00, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_equations.py::test_the_density_is_that_of_the_equation"
DEVIATIONS = (
    "Perceptrons take the place of the convolutional nets, so that small images and tables both fit.",
    "The tilt is bounded by b·tanh(f/b) and so cannot run away; the paper leaves it free.",
    "σ enters the generator's gradient as the likelihood asks; the released code drops it there and keeps it in the "
    "chain.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column


class Hyper(NamedTuple):
    latent_dim: Count = 16  # the paper takes 100 for 32x32 colour; 16 is wide enough for 8x8 digits
    sigma: Positive = 0.3  # of x given z, the paper's value for data in [-1, 1]
    likelihood: Likelihood = "normal"  # "bernoulli": data of 0 and 1, with scaling="none"
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images, as in the paper
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of every net, as the paper's tilt has
    tilt_width: Count = 64  # hidden units of the tilt
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a tilt on digits needs
    tilted: bool = True  # False: the untilted twin, the same generator with f = 0


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data, for data of event shape `shape`."""
    h = hyper
    out = {"decoder": decoder(h.decoder, h.latent_dim, shape, h.channels, h.width, h.depth, "leaky_relu")}
    if hyper.tilted:
        out["tilt"] = mlp(hyper.latent_dim, 1, hyper.tilt_width, hyper.depth, "leaky_relu")
    return out


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z, the tilt, and x of shape (B, *event)."""
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](z)[..., 0], bound=hyper.tilt_bound)
        mean = net["decoder"](z)
        return ppl.sample("x", likelihood(ppl, hyper.likelihood, mean, hyper.sigma), obs=x)
