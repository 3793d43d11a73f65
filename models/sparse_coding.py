r"""Sparse coding whose prior has atoms at zero: data are sums of few columns of a dictionary, drawn by Langevin chains.

    uⱼ ~ Laplace(0, 1/λ),      sⱼ = sign(uⱼ) max(|uⱼ| - t, 0),      x | s ~ N( A s + b, σ² I ),      |A_j| = 1
    so that  P(sⱼ = 0) = 1 - exp(-λ t),  and sⱼ given that it is not zero is Laplace(0, 1/λ)

A chain in u never jumps: codes enter and leave zero as u crosses ±t. Z = 1, so there is a positive phase alone.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Dense, Net, Reshape

PAPER = Paper("Michael Y.-S. Fang and Mayur Mudigonda and Ryan Zarcone and Amir Khosrowshahi and Bruno A. Olshausen",
              "Learning and Inference in Sparse Coding Models with Langevin Dynamics", 2022,
              journal="Neural Computation", arxiv="2204.11150")  # fmt: skip
RESULT = "bars: 0.96 found to a cosine of 0.95, dictionary learning 0.88, chance 0.00, by mle (models/README.md)"
CHECK = "tests/gallery/test_sparse_coding.py::test_the_share_of_zeros_and_the_mean_are_those_of_quadrature"
DEVIATIONS = (
    "Chains and parameters alternate, by `persistent_mle` or `mle`, in place of dynamics in continuous time.",
    "Chains accept and reject, since Langevin steps alone are biased where the gradient jumps, at u = 0 and u = ±t.",
    "Columns are normalised inside the model, not after every update, and x has an offset b.",
    "λ, t and σ are learned with the atoms, unless they are held.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # whiten patches, and keep zero where no atom is
TILTED = False  # the prior is normalised


class Hyper(NamedTuple):
    n_atoms: Count = 32  # M; twice the numbers of a 4x4 patch
    rate: Positive = 1.0  # λ to begin with, so one over the mean size of a code that is not zero
    threshold: Positive = 1.5  # t to begin with; with λ = 1 codes are zero in 0.78 of the cases
    sigma: Positive = 0.3  # σ to begin with, in units of the data
    held: bool = False  # True: λ, t and σ stay, and the atoms alone are learned


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """One affine map from codes to data of event shape `shape`: columns before they are normalised, and the offset."""
    return {"atoms": Net(hyper.n_atoms, (Dense(int(np.prod(shape))), Reshape(tuple(shape))))}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare u, s as a deterministic site, and x of shape (B, *event)."""
    begin = {"rate": hyper.rate, "threshold": hyper.threshold, "sigma": hyper.sigma}
    rate, threshold, sigma = (
        ppl.exp(ppl.asarray(np.log(v)) if hyper.held else ppl.param(f"log_{k}", np.log(v))) for k, v in begin.items()
    )
    offset = net["atoms"](ppl.asarray(np.zeros(hyper.n_atoms)))
    columns = (net["atoms"](ppl.asarray(np.eye(hyper.n_atoms))) - offset).reshape(hyper.n_atoms, -1)
    unit = columns / (columns**2).sum(-1, keepdims=True) ** 0.5
    with ppl.plate("data", len(x) if n is None else n):
        u = ppl.sample("u", ppl.dist.Laplace(0.0, 1.0 / rate).expand([hyper.n_atoms]).to_event(1))
        s = ppl.where(u > threshold, u - threshold, ppl.where(u < -threshold, u + threshold, 0.0 * u))
        ppl.sample("s", ppl.dist.Delta(s, event_dim=1), obs=s)
        mean = (s @ unit).reshape(s.shape[:1] + offset.shape) + offset
        return ppl.sample("x", ppl.dist.Normal(mean, sigma).to_event(offset.ndim), obs=x)


def atoms(params: dict[str, Any]) -> np.ndarray:
    """Columns of A as rows, (M, numbers of a datum)."""
    columns = np.asarray(params["atoms.weight_0"], float).T
    return columns / np.linalg.norm(columns, axis=1, keepdims=True)
