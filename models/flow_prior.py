r"""Normalizing flow as the prior of one latent vector: a baseline without a tilt, whose density is normalised.

p(z) = N( T⁻¹(z); 0, I ) |∂T⁻¹/∂z|,        x | z ~ N( g(z), σ² I )   or   Bernoulli( sigmoid g(z) )

T is made of affine coupling layers, and learned with g. There is no prior chain: `variational_joint` is then the plain
ELBO, E_q[ log p(x|z) + log p(z) - log q(z|x) ].
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.flows import Coupling
from pplebm.networks.layers import Net
from pplebm.networks.likelihoods import Likelihood, likelihood

PAPER = Paper("Xi Chen and Diederik P. Kingma and Tim Salimans and Yan Duan and Prafulla Dhariwal and John "
              "Schulman and Ilya Sutskever and Pieter Abbeel", "Variational Lossy Autoencoder",
              2017, "ICLR", arxiv="1611.02731")  # fmt: skip
RESULT = "digits: -9.24 nats held out, an autoencoder -11.00, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_baselines.py::test_the_prior_is_normalised_and_is_the_law_of_its_draws"
DEVIATIONS = (
    "T is made of the coupling layers of Dinh et al. (ICLR 2017); the paper's flow is autoregressive.",
    "The decoder is a perceptron or convolutional, as in latent_ebm; the paper's is autoregressive.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column
TILTED = False  # a baseline beside the tilts


class Hyper(NamedTuple):
    latent_dim: Count = 16  # as in latent_ebm, for 8x8 digits; two or more
    n_layers: Count = 6  # coupling layers: three changes of every coordinate
    flow_width: Count = 64  # hidden units of a coupling layer's net, as a tilt has
    flow_depth: Whole = 1  # its hidden layers
    sigma: Positive = 0.3  # of x given z, as in latent_ebm
    likelihood: Likelihood = "normal"  # "bernoulli": data of 0 and 1, with scaling="none"
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of a dense decoder


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net | Coupling]:
    """Networks as data, for data of event shape `shape`."""
    h = hyper
    return {
        "decoder": decoder(h.decoder, h.latent_dim, shape, h.channels, h.width, h.depth, "leaky_relu"),
        "prior": Coupling(h.latent_dim, h.flow_width, h.flow_depth, h.n_layers),
    }


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z from the flow, and x of shape (B, *event)."""
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample("z1", net["prior"]())
        mean = net["decoder"](z)
        return ppl.sample("x", likelihood(ppl, hyper.likelihood, mean, hyper.sigma), obs=x)
