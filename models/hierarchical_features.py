r"""A ladder generator whose layers have one tilt together: it reads all latents side by side.

    p(z) = 1/Z · exp[ f([z₁, ..., z_L]) ] · Πᵢ N(zᵢ; 0, I),                        i = 1..L
    h_L = g_L(z_L),    hᵢ = gᵢ([zᵢ, hᵢ₊₁]),    x | z ~ N( h₁, σ² I )
    q(z|x) = Πᵢ N( zᵢ; mᵢ(eᵢ), diag sᵢ(eᵢ)² ),    e₁ = u₁(x),  eᵢ₊₁ = uᵢ₊₁(eᵢ)      (the page's guide)

z₁ is the layer next to the data. Layers are independent under the base, and coupled by the tilt alone; of the
parameters only the tilt's enter Z.
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.encoders import encoder
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Jiali Cui and Ying Nian Wu and Tian Han",
              "Learning Hierarchical Features with Joint Latent Space Energy-Based Prior",
              2023, "ICCV", arxiv="2310.09604")  # fmt: skip
RESULT = "MNIST: labels by z1 to z3 0.758, 0.486, 0.526, its twin 0.762, 0.414, 0.471 (models/README.md)"
CHECK = "tests/gallery/test_hierarchical_features.py::test_the_coupled_layers_have_the_constant_of_their_closed_form"
DEVIATIONS = (
    "The nets are perceptrons unless decoder=conv is set, so that tables fit as well; the paper's are convolutional.",
    "The tilt is bounded by b·tanh(f/b) and so cannot run away; the released code bounds its slopes, by spectral "
    "normalisation.",
    "The mean of x is not squashed by tanh; data may lie a little outside [-1, 1].",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column


class Hyper(NamedTuple):
    latent_dims: tuple[Count, ...] = (4, 4, 8)  # of z1, z2, ...: any number of layers; 16 in all, as in latent_ebm
    sigma: Positive = 0.3  # of x given z, as in joint_ebm; the released code has 0.41 or 0.22
    decoder: Decoder = "dense"  # of h1; "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # of every h and e, and of the hidden layers of the nets that make them
    depth: Whole = 1  # hidden layers of every net of the ladder, which makes as many as there are layers of latents
    tilt_width: Count = 64  # hidden units of the tilt; about the 50 of the released code
    tilt_depth: Whole = 2  # hidden layers of the tilt, as in joint_ebm
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a tilt on digits needs
    scale_floor: Positive = 0.01  # least s of the guide, as in the guides that this library derives
    tilted: bool = True  # False: the untilted twin, the same generator with f = 0


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data, for data of event shape `shape`: the ladder from below, and the tilt."""
    h, dims, top = hyper, hyper.latent_dims, len(hyper.latent_dims)
    width = {i: h.width * (i < top) for i in range(1, top + 1)}  # of what comes from the layer above
    out = {"ladder1": decoder(h.decoder, dims[0] + width[1], shape, h.channels, h.width, h.depth, "leaky_relu")}
    for i in range(2, top + 1):
        out[f"ladder{i}"] = mlp(dims[i - 1] + width[i], h.width, h.width, h.depth, "leaky_relu")
    if h.tilted:
        out["tilt"] = mlp(sum(dims), 1, h.tilt_width, h.tilt_depth, "leaky_relu")
    return out


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z_L, ..., z_1, the tilt, and x of shape (B, *event)."""
    dims = hyper.latent_dims
    with ppl.plate("data", len(x) if n is None else n):
        normal = [ppl.dist.Normal(0.0, 1.0).expand([dim]).to_event(1) for dim in dims]
        z = [ppl.sample(f"z{i}", normal[i - 1]) for i in range(len(dims), 0, -1)][::-1]
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](ppl.concat(z, -1))[..., 0], bound=hyper.tilt_bound)
        mean = net[f"ladder{len(dims)}"](z[-1])
        for i in range(len(dims) - 1, 0, -1):
            mean = net[f"ladder{i}"](ppl.concat([z[i - 1], mean], -1))
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(mean.ndim - 1), obs=x)


def guide_nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks of the guide: e from below, and mean and scale of every layer from its own e."""
    h, depth = hyper, max(hyper.depth, 1)
    out = {f"q{i}": mlp(h.width, 2 * dim, depth=0) for i, dim in enumerate(h.latent_dims, start=1)}
    out |= {f"up{i}": mlp(h.width, h.width, h.width, depth, "silu", "silu") for i in range(2, len(h.latent_dims) + 1)}
    return out | {"up1": encoder(None, shape, h.width, h.width, depth + 1, h.channels, "silu")}


def guide(ppl: Any, net: Any, hyper: Hyper, x: Any = None) -> None:
    """Declare every layer given its e, independently of the others."""
    with ppl.plate("data", len(x)):
        e = x
        for i, dim in enumerate(hyper.latent_dims, start=1):
            e = net[f"up{i}"](e)
            q = net[f"q{i}"](e)
            scale = ppl.softplus(q[..., dim:]) + hyper.scale_floor
            ppl.sample(f"z{i}", ppl.dist.Normal(q[..., :dim], scale).to_event(1))
