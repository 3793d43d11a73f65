r"""One tilt for every latent, a function of one number: exact draws by inverse transform, exact log Z by quadrature.

    p(z) = ∏ⱼ 1/Zⱼ · exp[ fⱼ(zⱼ) ] · N(zⱼ; 0, 1),        x | z ~ N( g(z), σ² I )
    fⱼ(t) = B( r Σₖ aⱼₖ exp[ -½ ((t - tₖ) / w)² ] ),      B(u) = log(1 + e^{u+b}) - log(1 + e^{u-b}) - b
with K places tₖ at distances w from -reach to reach. B is u but near its bounds ±b; beyond the reach f fades to zero.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive
from pplebm.gallery.paper import Paper
from pplebm.networks.decoders import Decoder, decoder
from pplebm.networks.layers import Net

PAPER = Paper("Prithvi Raj", "Kolmogorov-Arnold Energy Models: Fast, Interpretable Generative Modeling",
              2025, arxiv="2506.14167")  # fmt: skip
RESULT = "draws of its own: 0.206 nats below the truth, its twin 0.339, by noise_contrastive (inference/README.md)"
CHECK = "tests/gallery/test_univariate_tilts.py::test_exact_draws_have_the_moments_of_the_prior"
DEVIATIONS = (
    "One univariate density for every latent; the paper arranges them as the theorem of its title does, or mixes them.",
    "The generator is a perceptron or convolutional, as in latent_ebm, in place of a Kolmogorov-Arnold network.",
    "Each f is a sum of Gaussian bumps, and bounded.",
    "Latents are sampled as the algorithm asks; the paper weights or anneals exact draws of the prior.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column


class Hyper(NamedTuple):
    latent_dim: Count = 16  # as in latent_ebm, for 8x8 digits
    sigma: Positive = 0.3  # of x given z, as in latent_ebm
    decoder: Decoder = "dense"  # "conv": transposed convolutions, for images
    channels: Count = 64  # of the last hidden layer of a convolutional decoder; those before it have more
    width: Count = 128  # hidden units of a dense decoder
    depth: Count = 2  # hidden layers of a dense decoder
    n_bumps: Count = 17  # K, two or more: half a standard deviation apart, so that modes one apart are two
    reach: Positive = 4.0  # standard deviations of the base; 6e-5 of its mass is beyond
    rate: Positive = 4.0  # r, nats by unit of a coefficient: Adam moves each by its rate, a net's output by more
    tilt_bound: Positive = 8.0  # b, nats for each latent
    tilted: bool = True  # False: the untilted twin, the same generator with f = 0


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """The decoder, for data of event shape `shape`; the tilts are coefficients, zero at first."""
    h = hyper
    return {"decoder": decoder(h.decoder, h.latent_dim, shape, h.channels, h.width, h.depth, "leaky_relu")}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z, the sum of its tilts, and x of shape (B, *event)."""
    h, a = hyper, ppl.param("a", np.zeros((hyper.latent_dim, hyper.n_bumps))) if hyper.tilted else None
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([h.latent_dim]).to_event(1))
        if h.tilted:
            ppl.tilt("f", _tilts(h, a, z, ppl.asarray, ppl.exp, ppl.softplus).sum(-1))
        mean = net["decoder"](z)
        return ppl.sample("x", ppl.dist.Normal(mean, h.sigma).to_event(mean.ndim - 1), obs=x)


def log_z(params: dict[str, Any], hyper: Hyper) -> float:
    """log Z = Σⱼ log Zⱼ by trapezoids on ±10, smooth and zero at both ends: exact to 1e-10."""
    grid, density = _density(params, hyper)
    return float(np.log(density.sum(1) * (grid[1] - grid[0])).sum())


def exact_prior(params: dict[str, Any], hyper: Hyper, n: int, seed: int) -> np.ndarray:
    """Independent draws of the tilted prior, (n, latent_dim), by inverse transform; their moments are exact to 1e-5."""
    grid, density = _density(params, hyper)
    cells = np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1)
    below = np.concatenate([np.zeros((len(cells), 1)), cells / cells[:, -1:]], axis=1)
    levels = np.random.default_rng(seed).uniform(size=(n, len(below)))
    return np.stack([np.interp(levels[:, j], below[j], grid) for j in range(len(below))], axis=1)


def _tilts(h: Hyper, a: Any, z: Any, asarray: Any, exp: Any, softplus: Any) -> Any:
    """fⱼ(zⱼ), of the shape of z, (..., latent_dim), by functions of the backend or of NumPy."""
    places = asarray(np.linspace(-h.reach, h.reach, h.n_bumps))
    steps = (z[..., None] - places) * (0.5 * max(h.n_bumps - 1, 1) / h.reach)  # in units of w
    u = h.rate * (a * exp(-0.5 * steps**2)).sum(-1)
    return softplus(u + h.tilt_bound) - softplus(u - h.tilt_bound) - h.tilt_bound


def _density(params: dict[str, Any], h: Hyper) -> tuple[np.ndarray, np.ndarray]:
    """Points (m,) at w/10 or less, and exp[ fⱼ ] N(·; 0, 1) there, (latent_dim, m)."""
    grid, f = np.linspace(-10.0, 10.0, 1 + round(20.0 / min(0.005, 0.2 * h.reach / h.n_bumps))), 0.0
    if h.tilted:
        f = _tilts(h, np.asarray(params["a"], float), grid[:, None], np.asarray, np.exp, lambda u: np.logaddexp(0, u)).T
    return grid, np.exp(f - 0.5 * grid**2) / np.sqrt(2.0 * np.pi) * np.ones((h.latent_dim, 1))
