r"""Mixture of Gaussians as the prior of one latent vector: a baseline without a tilt, whose density is normalised.

p(z) = Σₖ wₖ N( z; mₖ, diag sₖ² ),   k = 1..K,        x | z ~ N( g(z), σ² I )   or   Bernoulli( sigmoid g(z) )

Weights, means and scales are learned with g. The density is normalised, so there is no prior chain:
`variational_joint` is then the plain ELBO, E_q[ log p(x|z) + log p(z) - log q(z|x) ].
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net
from pplebm.networks.likelihoods import Likelihood, likelihood

PAPER = Paper("Nat Dilokthanakul and Pedro A. M. Mediano and Marta Garnelo and Matthew C. H. Lee and Hugh "
              "Salimbeni and Kai Arulkumaran and Murray Shanahan",
              "Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders",
              2016, arxiv="1611.02648")  # fmt: skip
RESULT = "digits: -8.99 nats held out, an autoencoder -11.00, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_baselines.py::test_the_mixture_is_that_of_its_equation"
DEVIATIONS = (
    "The components are parameters and the label is summed out; the paper makes components of a second latent vector, "
    "and has a guide for the label.",
    "Components begin at fixed draws, about half of the variance between them, so that the whole is near N(0, I).",
    "The decoder is a perceptron or convolutional, as in latent_ebm.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column
TILTED = False  # a baseline beside the tilts


class Hyper(NamedTuple):
    latent_dim: Count = 16  # as in latent_ebm, for 8x8 digits
    n_components: Count = 64  # more than there are classes: unused ones lose their weight
    sigma: Positive = 0.3  # of x given z, as in latent_ebm
    likelihood: Likelihood = "normal"  # "bernoulli": data of 0 and 1, with scaling="none"
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of a dense decoder
    scale_floor: Positive = 0.05  # least sₖ: the density of a component that shrinks to a point has no bound


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """The decoder, for data of event shape `shape`; the components are free parameters."""
    h = hyper
    return {"decoder": decoder(h.decoder, h.latent_dim, shape, h.channels, h.width, h.depth, "leaky_relu")}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z from the mixture, and x of shape (B, *event)."""
    shape = (hyper.n_components, hyper.latent_dim)
    logits = ppl.param("logits", np.zeros(hyper.n_components))
    means = ppl.param("means", np.sqrt(0.5) * np.random.default_rng(0).normal(size=shape))
    scales = ppl.softplus(ppl.param("scales", np.zeros(shape))) + hyper.scale_floor
    with ppl.plate("data", len(x) if n is None else n):
        components = ppl.dist.Normal(means, scales).to_event(1)
        z = ppl.sample("z1", ppl.dist.MixtureSameFamily(ppl.dist.Categorical(logits=logits), components))
        mean = net["decoder"](z)
        return ppl.sample("x", likelihood(ppl, hyper.likelihood, mean, hyper.sigma), obs=x)
