r"""A top-down generator of several Gaussian layers in the coordinates of its noise, without a tilt.

    z_L = ε_L,    zᵢ = μᵢ(zᵢ₊₁) + σᵢ(zᵢ₊₁) εᵢ,  i = L-1, ..., 1,        ε₁, ..., ε_L ~ N(0, I)
    μᵢ(z) = Aᵢ z + mᵢ(z),        x | z₁ ~ N( g(z₁), σ² I )

The latents are the noises ε, independent and of unit scale, so that one step size means the same in all layers of a
short run. With `short_run_learned_step` the posterior of ε given x is what K steps of learned sizes lead to.
"""

from itertools import pairwise
from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Erik Nijkamp and Bo Pang and Tian Han and Linqi Zhou and Song-Chun Zhu and Ying Nian Wu",
              "Learning Multi-layer Latent Variable Model via Variational Optimization of Short Run MCMC for "
              "Approximate Inference", 2020, "ECCV", arxiv="1912.01909")  # fmt: skip
RESULT = "digits: -18.17 nats held out, short runs of learned steps, -24.21 of fixed, -13.02 by a guide (models/README.md)"
    "digits: -18.17 nats held out by short runs of learned steps, -24.21 of fixed, -13.02 by guide (models/README.md)"
)
CHECK = "tests/gallery/test_multi_layer_generator.py::test_learned_step_sizes_land_on_those_of_the_short_run_law"
DEVIATIONS = (
    "Every layer is a vector; those of the released code become feature maps of an image.",
    "Perceptrons with a matrix Aᵢ beside them take the place of its convolutions with skips; g may be decoder=conv.",
    "The standard deviation is softplus(· + 0.2) plus a floor; that of the released code is never below 1.",
    "The mean of x is not squashed by tanh; data may lie a little outside [-1, 1].",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column
TILTED = False  # the prior is N(0, I) of noises, and Z = 1


class Hyper(NamedTuple):
    latent_dims: tuple[Count, ...] = (16, 8)  # of ε1, ε2, ...: any number of layers; those of joint_ebm
    sigma: Positive = 0.3  # of x given z1, as in joint_ebm; the released code has 0.15
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of the perceptrons
    depth: Whole = 2  # hidden layers of every net, as in joint_ebm
    scale_floor: Positive = 0.01  # least standard deviation of a layer; small ones do no harm to steps in ε


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data, for data of event shape `shape`: g, and between layers a matrix and a perceptron."""
    h = hyper
    out = {"decoder": decoder(h.decoder, h.latent_dims[0], shape, h.channels, h.width, h.depth, "gelu")}
    for i, (below, above) in enumerate(pairwise(h.latent_dims), start=1):
        out[f"skip{i}"] = mlp(above, below, depth=0)
        out[f"layer{i}"] = mlp(above, 2 * below, h.width, h.depth, "gelu")
    return out


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare noise_L, ..., noise_1, which are ε, and x of shape (B, *event)."""
    dims, top = hyper.latent_dims, len(hyper.latent_dims)
    with ppl.plate("data", len(x) if n is None else n):
        normal = [ppl.dist.Normal(0.0, 1.0).expand([dim]).to_event(1) for dim in dims]
        z = ppl.sample(f"noise{top}", normal[-1])
        for i in range(top - 1, 0, -1):
            h, noise, dim = net[f"layer{i}"](z), ppl.sample(f"noise{i}", normal[i - 1]), dims[i - 1]
            z = net[f"skip{i}"](z) + h[..., :dim] + (ppl.softplus(h[..., dim:] + 0.2) + hyper.scale_floor) * noise
        mean = net["decoder"](z)
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(mean.ndim - 1), obs=x)
