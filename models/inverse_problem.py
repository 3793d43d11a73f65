r"""Inverse problems: what a generator's image was, of which an instrument shows a part, a blur, or moduli alone.

    p(z) = 1/Z · exp[ f(z) ] · N(z; 0, I),      x = g(z),      y | x ~ N( A(x), σ² I )
    p(z | y) ∝ exp[ f(z) - ½|z|² - |y - A(g(z))|² / 2σ² ],  whose draws give those of x

Generator and tilt are given: parameters of a `latent_ebm`, which are named as here, or of one's own. Ways to the
posterior: chains in the space of the noise z (`pplebm.sample`, any kernel), or a flow for every y (`flow_posterior`,
`pplebm.learning.flow_draws.sample_flow`), which keeps to one mode where there are several.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Share, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net, mlp
from pplebm.networks.operators import Kind, measured, operator

PAPER = Paper("Vishal Purohit and Matthew Repasky and Jianfeng Lu and Qiang Qiu and Yao Xie and Xiuyuan Cheng",
              "Posterior Sampling via Langevin Dynamics Based on Generative Priors", 2024,
              arxiv="2410.02078")  # fmt: skip
RESULT = "digits of 16 projections: error 0.28, linear 0.31, mean image 0.55; 90 % cover 0.92 (models/README.md)"
CHECK = "tests/gallery/test_inverse_problem.py::test_chains_and_flow_have_the_posterior_of_the_closed_form"
DEVIATIONS = (
    "The generator is a perceptron or convolutional, its prior tilted; the paper's is a consistency model, untilted.",
    "Many chains that accept and reject, in place of the iterates of one Langevin chain after an ascent.",
    "The prior pulls z as the density asks; the released code pulls it 6400 times less.",
    "Fitting a flow for every y is the way of Dasgupta et al. (2023, arXiv:2310.04690); operators are small matrices.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # y is in the units of A(x), and x in those that the generator has learned


class Hyper(NamedTuple):
    operator: Kind = "mask"  # identity, mask, blur, downsample, projection, phase, heat: pplebm.networks.operators
    image: tuple[Count, ...] = (8, 8)  # event shape of x
    share: Share = 0.5  # of numbers that are seen, or of random directions to numbers
    spread: Positive = 1.0  # pixels of the blur; hundredths of a unit of time of the heat equation
    factor: Count = 2  # of a side, by which downsampling shortens it
    operator_seed: Whole = 0  # which numbers or directions
    sigma: Positive = 0.3  # of y given x: noise, and what the σ of a latent_ebm makes of y
    latent_dim: Count = 16  # this and all below: as in latent_ebm, whose parameters then fit
    decoder: Decoder = "dense"  # "conv": transposed convolutions
    channels: Count = 64  # of the last hidden layer of a convolutional decoder
    width: Count = 128  # hidden units of a dense decoder
    depth: Whole = 2  # hidden layers of every net; 0: a linear generator
    tilt_width: Count = 64  # hidden units of the tilt
    tilt_bound: Positive = 8.0  # nats
    tilted: bool = True  # False: the prior is N(0, I)


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """The generator and the tilt, named and made as those of latent_ebm."""
    h = hyper
    out = {"decoder": decoder(h.decoder, h.latent_dim, h.image, h.channels, h.width, h.depth, "leaky_relu")}
    return out | ({"tilt": mlp(h.latent_dim, 1, h.tilt_width, h.depth, "leaky_relu")} if h.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, y: Any = None) -> Any:
    """Declare z, the tilt, x as a deterministic site, and y of shape (B, numbers of A(x))."""
    with ppl.plate("data", len(y)):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](z)[..., 0], bound=hyper.tilt_bound)
        x = net["decoder"](z)
        ppl.sample("x", ppl.dist.Delta(x, event_dim=len(hyper.image)), obs=x)
        mean = measured(instrument(hyper), x, ppl.asarray)
        return ppl.sample("y", ppl.dist.Normal(mean, hyper.sigma).to_event(1), obs=y)


def instrument(hyper: Hyper) -> Any:
    """A: `pplebm.networks.operators.measured(instrument(hyper), x)` is A(x) of arrays of NumPy."""
    return operator(hyper.operator, hyper.image, hyper.share, hyper.spread, hyper.factor, hyper.operator_seed)
