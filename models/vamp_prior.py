r"""VampPrior: the prior of one latent vector is a mixture of the guide's posteriors at pseudo-inputs that are learned.

p(z) = 1/K Σₖ q(z | uₖ),   k = 1..K,        x | z ~ N( g(z), σ² I )   or   Bernoulli( sigmoid g(z) )
q(z|x) = N( z; m(x), diag s(x)² )

One encoder, x ↦ (m, s), serves the prior and the guide: it learns from both. The density is normalised, so there is
no prior chain: `variational_joint` is then the plain ELBO, E_q[ log p(x|z) + log p(z) - log q(z|x) ].
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.encoders import encoder
from pplebm.networks.layers import Dense, Net, Reshape
from pplebm.networks.likelihoods import Likelihood, likelihood

PAPER = Paper("Jakub M. Tomczak and Max Welling", "VAE with a VampPrior", 2018, "AISTATS", arxiv="1705.07120")
RESULT = "digits: -8.57 nats held out, an autoencoder -11.00, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_baselines.py::test_the_vamp_prior_is_the_mean_of_its_guide_at_pseudo_inputs"
DEVIATIONS = (
    "The encoder is that of the guides which this library derives, in place of the paper's gated layers.",
    "One latent vector; the paper has two levels as well.",
    "Pseudo-inputs are not kept inside the range of the data; they begin at numbers up to ±2/√K.",
    "An algorithm that learns no guide learns the encoder from the prior alone.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column
TILTED = False  # a baseline beside the tilts


class Hyper(NamedTuple):
    latent_dim: Count = 16  # as in latent_ebm, for 8x8 digits
    n_components: Count = 64  # the paper takes 500 for 50000 images; an update encodes them all
    sigma: Positive = 0.3  # of x given z, as in latent_ebm
    likelihood: Likelihood = "normal"  # "bernoulli": data of 0 and 1, with scaling="none"
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of the encoder and of a dense decoder
    depth: Whole = 2  # hidden layers of the encoder and of a dense decoder
    scale_floor: Positive = 0.01  # least s, that of derived guides


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data, for data of event shape `shape`; pseudo-input k is what a layer makes of unit vector k."""
    h, size = hyper, int(np.prod(shape))
    features = encoder(None, shape, h.width, h.width, max(h.depth, 1), h.channels, "silu")
    return {
        "decoder": decoder(h.decoder, h.latent_dim, shape, h.channels, h.width, h.depth, "leaky_relu"),
        "encoder": Net(shape, (*features.layers, Dense(2 * h.latent_dim))),
        "pseudo_inputs": Net(h.n_components, (Dense(size), Reshape(shape))),
    }


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z from the mixture, and x of shape (B, *event)."""
    pseudo_inputs = net["pseudo_inputs"](ppl.asarray(np.eye(hyper.n_components)))
    equal = ppl.dist.Categorical(logits=ppl.asarray(np.zeros(hyper.n_components)))
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample("z1", ppl.dist.MixtureSameFamily(equal, _posterior(ppl, net, hyper, pseudo_inputs)))
        mean = net["decoder"](z)
        return ppl.sample("x", likelihood(ppl, hyper.likelihood, mean, hyper.sigma), obs=x)


def guide(ppl: Any, net: Any, hyper: Hyper, x: Any = None) -> None:
    """Declare z given x by the encoder of the model."""
    with ppl.plate("data", len(x)):
        ppl.sample("z1", _posterior(ppl, net, hyper, x))


def _posterior(ppl: Any, net: Any, hyper: Hyper, x: Any) -> Any:
    """q(z|x), one for every row of x."""
    h = net["encoder"](x)
    mean, scale = h[..., : hyper.latent_dim], ppl.softplus(h[..., hyper.latent_dim :]) + hyper.scale_floor
    return ppl.dist.Normal(mean, scale).to_event(1)
