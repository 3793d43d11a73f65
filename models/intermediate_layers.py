r"""Score-guided intermediate layers: an inverse problem solved in a layer of the generator, under a learned law of it.

    p(u) = 1/Z · exp[ f(u) ] · N(u; 0, I),      h = μ + L u,      x = G₂(h),      y | x ~ N( A(x), σ² I )
    p(u | y) ∝ exp[ f(u) - ½|u|² - |y - A(G₂(μ + L u))|² / 2σ² ],     u = L⁻(h - μ) as whitened activations h = G₁(z)

Generator G₂(G₁(z)) of a `latent_ebm`; μ and L of its activations; f of a `data_ebm` learned from whitened ones, by
`score_matching` or another page; `pplebm.networks.halves` hands them over. Any kernel of `pplebm.sample` draws from it.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Share, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.halves import halves
from pplebm.networks.layers import Dense, Net, Reshape, mlp, shapes
from pplebm.networks.operators import Kind, measured, operator

PAPER = Paper("Giannis Daras and Yuval Dagan and Alexandros G. Dimakis and Constantinos Daskalakis",
              "Score-Guided Intermediate Layer Optimization: Fast Langevin Mixing for Inverse Problems", 2022, "ICML",
              arxiv="2206.09104")  # fmt: skip
RESULT = "digits of 16 projections: error in layer 2 0.32, if it is normal 0.35, noise space 0.29 (models/README.md)"
CHECK = "tests/gallery/test_intermediate_layers.py::test_a_layer_learned_by_its_score_has_its_exact_posterior"
DEVIATIONS = (
    "The score is the gradient of a density, tilt and normal base; the paper's is a network without one, at levels of "
    "noise.",
    "Chains that accept and reject, of the posterior as stated; the released code takes Adam steps with noise of no "
    "stated density, and projects onto a sphere; here the normal base holds the layer.",
    "One layer, chosen beforehand, where the paper optimises one after another; dense generators of small images.",
    "The law is learned from what G₁ makes of noise, not of inverted images, in the directions of most variance.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # y is in the units of A(x), and x in those that the generator has learned


class Hyper(NamedTuple):
    split: Whole = 1  # layers of the generator below h: 0 for z itself, depth + 1 for the image
    rank: Count = 64  # directions of h that are kept, those of most variance; as many as its numbers: all
    operator: Kind = "mask"  # this and all to sigma: as in inverse_problem
    image: tuple[Count, ...] = (8, 8)  # event shape of x
    share: Share = 0.5  # of numbers that are seen, or of random directions to numbers
    spread: Positive = 1.0  # pixels of the blur; hundredths of a unit of time of the heat equation
    factor: Count = 2  # of a side, by which downsampling shortens it
    operator_seed: Whole = 0  # which numbers or directions
    sigma: Positive = 0.3  # of y given x: noise, and what the σ of a latent_ebm makes of y
    latent_dim: Count = 16  # this and the next two: as in the latent_ebm whose layers these are
    width: Count = 128  # hidden units of the generator
    depth: Whole = 2  # hidden layers of the generator; 0: it is linear
    tilt_width: Count = 64  # this and the next two: as in the data_ebm whose tilt this is
    tilt_depth: Whole = 2  # its `depth`
    tilt_bound: Positive = 30.0  # nats; of digits the tilt reached 20
    tilted: bool = True  # False: h is normal


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """From whitened numbers to the layer, from there to images, and the tilt, made as that of data_ebm."""
    r, upper = hyper.rank, generator(hyper)[1]
    out = {"base": Net(r, (Dense(shapes(upper)[0][0]),)), "decoder": upper}
    tilt = Net((r,), (Reshape((r,)), *mlp(r, 1, hyper.tilt_width, hyper.tilt_depth, "silu").layers))
    return out | ({"tilt": tilt} if hyper.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, y: Any = None) -> Any:
    """Declare u, the tilt, h and x as deterministic sites, and y of shape (B, numbers of A(x))."""
    with ppl.plate("data", len(y)):
        u = ppl.sample("u", ppl.dist.Normal(0.0, 1.0).expand([hyper.rank]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](u)[..., 0], bound=hyper.tilt_bound)
        h = net["base"](u)
        ppl.sample("h", ppl.dist.Delta(h, event_dim=1), obs=h)
        x = net["decoder"](h)
        ppl.sample("x", ppl.dist.Delta(x, event_dim=len(hyper.image)), obs=x)
        mean = measured(instrument(hyper), x, ppl.asarray)
        return ppl.sample("y", ppl.dist.Normal(mean, hyper.sigma).to_event(1), obs=y)


def instrument(hyper: Hyper) -> Any:
    """A, as in inverse_problem."""
    return operator(hyper.operator, hyper.image, hyper.share, hyper.spread, hyper.factor, hyper.operator_seed)


def generator(hyper: Hyper) -> tuple[Net, Net]:
    """G₁ and G₂, halves of the generator of a latent_ebm; see `pplebm.networks.halves` for its activations."""
    return halves(mlp(hyper.latent_dim, hyper.image, hyper.width, hyper.depth, "leaky_relu"), hyper.split)
