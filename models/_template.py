r"""One sentence: what this model is.

the density in symbols, with the paper's equation number
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Given Family and Given Family", "Title", 2000, "CONFERENCE", arxiv="0000.00000")
DEVIATIONS = ("One sentence per departure from the paper; leave the tuple empty if there is none.",)
BACKENDS = ("pyro", "numpyro")  # the backends this page runs on
SCALING = "auto"  # images to [-1, 1], tables standardised column by column


class Hyper(NamedTuple):
    latent_dim: Count = 4  # a reason for every default
    sigma: Positive = 0.3  # of x given z


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """Networks as data, for data of event shape `shape`; no torch here, so every backend can build them."""
    return {"decoder": mlp(hyper.latent_dim, shape), "tilt": mlp(hyper.latent_dim, 1, width=64)}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare latents, tilts and x of shape (B, *event), with the host's own statements through `ppl`."""
    with ppl.plate("data", len(x) if n is None else n):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        ppl.tilt("f", net["tilt"](z)[..., 0])
        mean = net["decoder"](z)
        return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).to_event(mean.ndim - 1), obs=x)
