r"""The generator that is timed, as a model page: the density of the released code, so that both do the same work.

    p(z) = 1/Z · exp[ Σᵢ fᵢ(zᵢ) ] · Π_{i<L} N( zᵢ; μᵢ(zᵢ₊₁), diag (exp sᵢ(zᵢ₊₁) + 0.01)² ) · N(z_L; 0, I)
    x | z₁ ~ N( tanh g(z₁), σ² I )

The page `joint_ebm` declares the same with guards, a floor under the scale and a bound on the tilt, that are left out.
"""

from itertools import pairwise
from typing import Any, NamedTuple

from pplebm.networks.decoders import decoder
from pplebm.networks.layers import Net, mlp

PAPER = (
    "Cui, Wu, Han. Learning Joint Latent Space EBM Prior Model for Multi-layer Generator. CVPR 2023. arXiv:2306.06323"
)
DEVIATIONS = ("The top layer is N(0, I); the released code has the standard deviation 1.01.",)
BACKENDS = ("pyro", "numpyro")
SCALE_FLOOR = 0.01


class Hyper(NamedTuple):
    latent_dims: tuple[int, ...] = (16, 8)  # of z1, z2, ...
    sigma: float = 0.3  # of x given z1
    decoder: str = "dense"  # or "conv"
    channels: int = 64  # of the last hidden layer of a convolutional decoder
    width: int = 128  # of the conditionals, and of a dense decoder
    depth: int = 2  # hidden layers of these
    tilt_width: int = 64
    tilt_depth: int = 2


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data."""
    dims, act = hyper.latent_dims, "leaky_relu"
    out = {"decoder": decoder(hyper.decoder, dims[0], shape, hyper.channels, hyper.width, hyper.depth, act, "tanh")}
    for i, (below, above) in enumerate(pairwise(dims), start=1):
        out[f"conditional{i}"] = mlp(above, 2 * below, hyper.width, hyper.depth, act)
    for i, dim in enumerate(dims, start=1):
        out[f"tilt{i}"] = mlp(dim, 1, hyper.tilt_width, hyper.tilt_depth, act)
    return out


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z_L, ..., z_1, the tilts, and x of shape (B, *event)."""
    dims, top = hyper.latent_dims, len(hyper.latent_dims)
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample(f"z{top}", ppl.dist.Normal(0.0, 1.0).expand([dims[-1]]).to_event(1))
        layers = {top: z}
        for i in range(top - 1, 0, -1):
            h, d = net[f"conditional{i}"](z), dims[i - 1]
            z = ppl.sample(f"z{i}", ppl.dist.Normal(h[..., :d], ppl.exp(h[..., d:]) + SCALE_FLOOR).to_event(1))
            layers[i] = z
        for i, layer in layers.items():
            ppl.tilt(f"f{i}", net[f"tilt{i}"](layer)[..., 0])
        mean = net["decoder"](z)
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(mean.ndim - 1), obs=x)
