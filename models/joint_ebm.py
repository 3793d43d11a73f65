r"""Joint latent-space energy-based prior of a multi-layer generator.

    p(z) = 1/Z · exp[ Σᵢ fᵢ(zᵢ) ] · Π_{i<L} p(zᵢ | zᵢ₊₁) · N(z_L; 0, I)        one tilt per layer, i = 1..L
    p(zᵢ | zᵢ₊₁) = N( μᵢ(zᵢ₊₁), diag σᵢ(zᵢ₊₁)² ),      x | z₁ ~ N( g(z₁), σ² I )   or   Bernoulli( sigmoid g(z₁) )

z₁ is the layer next to the data. Z depends on the tilts and on every μᵢ, σᵢ.
"""

from itertools import pairwise
from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net, mlp
from pplebm.networks.likelihoods import Likelihood, likelihood

PAPER = Paper("Jiali Cui and Ying Nian Wu and Tian Han",
              "Learning Joint Latent Space EBM Prior Model for Multi-layer Generator",
              2023, "CVPR", arxiv="2306.06323")  # fmt: skip
RESULT = "digits: -9.61 nats held out, its twin -10.43, by noise_contrastive (inference/README.md)"
CHECK = "tests/gallery/test_equations.py::test_the_density_is_that_of_the_equation"
DEVIATIONS = (
    "The decoder is a perceptron unless decoder=conv is set, so that tables fit as well; the other nets always are.",
    "The conditional standard deviation is softplus(· + 0.2) plus a floor of 0.2, so about 1 before learning, not "
    "exp(·) + 0.01: a chain in z of step size s diverges where it falls below s/2.",
    "Each tilt is bounded by b·tanh(f/b) and so cannot run away; the paper leaves it free.",
    "The mean of x is not squashed by tanh; data may lie a little outside [-1, 1].",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column


class Hyper(NamedTuple):
    latent_dims: tuple[Count, ...] = (16, 8)  # of z1, z2, ...: any number of layers; wide enough for 8x8 digits
    sigma: Positive = 0.3  # of x given z1, the paper's value for data in [-1, 1]
    likelihood: Likelihood = "normal"  # "bernoulli": data of 0 and 1, with scaling="none"
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of the perceptrons
    depth: Whole = 2  # hidden layers of every net
    tilt_width: Count = 64  # the paper's tilts too are smaller than its generator
    scale_floor: Positive = 0.2  # least standard deviation of a conditional; see DEVIATIONS
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a tilt on digits needs
    tilted: bool = True  # False: the untilted twin, the same generator with f = 0


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data, for data of event shape `shape`."""
    dims = hyper.latent_dims
    out = {"decoder": decoder(hyper.decoder, dims[0], shape, hyper.channels, hyper.width, hyper.depth, "leaky_relu")}
    for i, (below, above) in enumerate(pairwise(dims), start=1):
        out[f"conditional{i}"] = mlp(above, 2 * below, hyper.width, hyper.depth, "leaky_relu")
    if hyper.tilted:
        for i, dim in enumerate(dims, start=1):
            out[f"tilt{i}"] = mlp(dim, 1, hyper.tilt_width, hyper.depth, "leaky_relu")
    return out


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z_L, ..., z_1, the tilts, and x of shape (B, *event)."""
    dims, top = hyper.latent_dims, len(hyper.latent_dims)
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample(f"z{top}", ppl.dist.Normal(0.0, 1.0).expand([dims[-1]]).to_event(1))
        layers = {top: z}
        for i in range(top - 1, 0, -1):
            h = net[f"conditional{i}"](z)
            mean, scale = h[..., : dims[i - 1]], ppl.softplus(h[..., dims[i - 1] :] + 0.2) + hyper.scale_floor
            z = layers[i] = ppl.sample(f"z{i}", ppl.dist.Normal(mean, scale).to_event(1))
        if hyper.tilted:
            for i, layer in layers.items():
                ppl.tilt(f"f{i}", net[f"tilt{i}"](layer)[..., 0], bound=hyper.tilt_bound)
        mean = net["decoder"](z)
        return ppl.sample("x", likelihood(ppl, hyper.likelihood, mean, hyper.sigma), obs=x)
