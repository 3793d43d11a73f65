r"""A scene of blobs seen from an angle: one tilted prior for its shape, another for its appearance.

    p(s, a) = 1/Z · exp[ f(s) + g(a) ] · N(s; 0, I) · N(a; 0, I)
    x(u) | s, a, θ ~ N( Σₖ wₖ exp( -|u - R(θ) cₖ|² / 2h² ), σ² ),        wₖ = opacityₖ(s) · brightnessₖ(a)

at pixels u, with centers cₖ on a grid and R(θ) a turn by θ counterclockwise. The pose θ is a covariate, `direction`,
(cos θ, sin θ); or it is a latent, even on the circle: the direction of a normal vector of two numbers.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, mlp

PAPER = Paper(
    "Yaxuan Zhu and Jianwen Xie and Ping Li",
    "Likelihood-Based Generative Radiance Field with Latent Space "
    "Energy-Based Model for 3D-Aware Disentangled Image Representation",
    2023,
    "AISTATS",
    arxiv="2304.07918",
)
RESULT = "turned digits: 18.88 nats held out, its twin 18.50; angles are off by 4.56 degrees (models/README.md)"
CHECK = "tests/gallery/test_posed_scene.py::test_the_evidence_is_that_of_the_closed_form_at_every_angle"
DEVIATIONS = (
    "Blobs in a plane take the place of a radiance field with rays; a pose is an angle, latent or known.",
    "The base N(0, I) is part of both priors, and chains have noise; the released code leaves both out.",
    "The tilts are bounded by b·tanh(f/b) and so cannot run away; the paper's are free.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # images are brightnesses from 0, where nothing is, to about 1


class Hyper(NamedTuple):
    shape_dim: Count = 8  # numbers in s; half of what latent_ebm takes for 8x8 digits, the other half is a's
    appearance_dim: Count = 8  # numbers in a
    sigma: Positive = 0.15  # of x given the scene; as in latent_ebm, but images there have twice the range
    blobs: Count = 7  # along a side; about the pixels of small images
    blob_width: Positive = 0.2  # h, where the image reaches from -1 to 1: neighbours overlap
    blend: Literal["product", "sum"] = "product"  # "sum": w = opacity + brightness, linear in latents at depth 0
    pose: Literal["known", "latent"] = "known"  # whether θ is the covariate `direction`, or inferred
    width: Count = 64  # hidden units of the opacities and brightnesses
    depth: Whole = 1  # hidden layers of every net
    tilt_width: Count = 64  # hidden units of the tilts
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a tilt on digits needs
    tilted: bool = True  # False: the untilted twin, the same generator with f = g = 0


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """Opacities and brightnesses of the blobs, and both tilts."""
    h, n = hyper, hyper.blobs**2
    out = {k: mlp(d, n, h.width, h.depth) for k, d in (("opacity", h.shape_dim), ("brightness", h.appearance_dim))}
    tilts = {"tilt_shape": h.shape_dim, "tilt_appearance": h.appearance_dim} if h.tilted else {}
    return out | {name: mlp(dim, 1, h.tilt_width, h.depth) for name, dim in tilts.items()}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, direction: Any = None) -> Any:
    """Declare shape, appearance, the pose if it is latent, both tilts, and images x of shape (B, H, W)."""
    with ppl.plate("data", len(x)):
        latents = {"shape": hyper.shape_dim, "appearance": hyper.appearance_dim}
        z = {k: ppl.sample(k, ppl.dist.Normal(0.0, 1.0).expand([d]).to_event(1)) for k, d in latents.items()}
        if hyper.tilted:
            for name, a in z.items():
                ppl.tilt(f"f_{name}", net[f"tilt_{name}"](a)[..., 0], bound=hyper.tilt_bound)
        if hyper.pose == "latent":
            direction = ppl.sample("pose", ppl.dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        turn = direction / ((direction**2).sum(-1)[..., None] + 1e-12) ** 0.5
        opacity, brightness = net["opacity"](z["shape"]), net["brightness"](z["appearance"])
        share = ppl.exp(-ppl.softplus(-opacity))  # in (0, 1)
        weights = share * brightness if hyper.blend == "product" else opacity + brightness
        mean = _rendered(ppl, hyper, weights, turn, tuple(x.shape[-2:]))
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(2), obs=x)


def as_direction(angle: Any) -> Any:
    """Angles in radians as the covariate of `model`, (B, 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _grid(height: int, width: int) -> Any:
    """Horizontal and vertical places of cells, (height * width, 2), rows from the top; the longer side is [-1, 1]."""
    across, up = ((2 * np.arange(n) - n + 1) / max(height, width) for n in (width, height))
    return np.stack([np.tile(across, height), np.repeat(-up, width)], -1)


def _rendered(ppl: Any, hyper: Hyper, weights: Any, turn: Any, size: tuple[int, int]) -> Any:
    """Images (B, H, W) of blobs of weights (B, K) turned by (cos θ, sin θ), (B, 2)."""
    u, c = _grid(*size), 0.9 * _grid(hyper.blobs, hyper.blobs)
    along, across = u @ c.T, np.outer(u[:, 1], c[:, 0]) - np.outer(u[:, 0], c[:, 1])
    far = 0.5 * ((u**2).sum(1)[:, None] + (c**2).sum(1))
    along, across, far = (ppl.asarray(a / hyper.blob_width**2) for a in (along, across, far))
    blobs = ppl.exp(turn[..., 0, None, None] * along + turn[..., 1, None, None] * across - far)  # (B, pixels, K)
    return (blobs * weights[..., None, :]).sum(-1).reshape(-1, *size)
