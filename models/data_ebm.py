r"""Energy-based model of the data themselves: no latent and no generator, the tilt stands on x.

    p(x) = 1/Z · exp[ f(x) ] · N(x; 0, s² I),        Δθ ∝ E_data[ ∇θ f(x) ] - E_p[ ∇θ f(x) ]

x is an observed site that the tilt reads. Draws of the prior are then draws of x: positive samples are the data, and
the only chains are those of the negative phase. `kernel=` of these takes the paper's step, and what repairs it.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, Reshape, mlp

PAPER = Paper("Belhal Karimi and Jianwen Xie and Ping Li",
              "STANLEY: Stochastic Gradient Anisotropic Langevin Dynamics for Learning Energy-Based Models", 2023,
              arxiv="2310.12667")  # fmt: skip
RESULT = "two moons: -2.39 nats held out, score_matching -2.08, normal -2.72, kernel density -1.91 (models/README.md)"
CHECK = "tests/gallery/test_data_ebm.py::test_the_density_of_x_is_that_of_its_closed_form"
DEVIATIONS = (
    "The energy is that of a tilted normal, not of f alone, so that Z is finite whatever f is.",
    "Perceptrons with smooth units take the place of convolutional nets: the divergence of a step needs curvature.",
    "The tilt is bounded by b·tanh(f/b) and so cannot run away; the paper leaves it free.",
    "The paper's step, kernel=anisotropic_published, leaves another law than p as it is, see "
    "pplebm.kernels.anisotropic; kernel=anisotropic and kernel=anisotropic_adjusted are there beside it.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column: the base is then as wide as the data


class Hyper(NamedTuple):
    base_scale: Positive = 1.0  # s; of standardised data, which a narrower base would cut off
    tilt_width: Count = 64  # hidden units of the tilt, which is all that there is to learn
    depth: Whole = 2  # hidden layers of the tilt, as in latent_ebm
    tilt_bound: Positive = 8.0  # nats; e^8 is more than a normal base is off by where data are


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """The tilt, of data of event shape `shape`."""
    size = int(np.prod(shape))
    return {"tilt": Net(shape, (Reshape((size,)), *mlp(size, 1, hyper.tilt_width, hyper.depth, "silu").layers))}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare x of shape (B, *event), and the tilt on it; n vectors of 4 numbers when no data are given."""
    event = (4,) if x is None else tuple(x.shape[1:])
    with ppl.plate("data", len(x) if n is None else n):
        base = ppl.dist.Normal(0.0, hyper.base_scale).expand(list(event)).to_event(len(event))
        x = ppl.sample("x", base, obs=x)
        ppl.tilt("f", net["tilt"](x)[..., 0], bound=hyper.tilt_bound)
        return x
