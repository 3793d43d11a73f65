r"""Linear-Gaussian generator with quadratic tilts: everything in closed form, the yardstick of all else.

    fᵢ(z) = -½ zᵀ Qᵢ z + cᵢᵀ z,    z₂ ~ N(0, I),    z₁ | z₂ ~ N(A z₂ + b, diag s²),    x | z₁ ~ N(W z₁, σ² I)

The tilted prior of u = (z₁, z₂) is N(Λ⁻¹η, Λ⁻¹) with

    Λ = [[S⁻¹ + Q₁, -S⁻¹A], [-AᵀS⁻¹, I + AᵀS⁻¹A + Q₂]],    η = [S⁻¹b + c₁; -AᵀS⁻¹b + c₂],    S = diag s²,
    log Z = ½ηᵀΛ⁻¹η - ½log|Λ| + ½(d₁+d₂)log 2π - ½bᵀS⁻¹b - ½log|2πS| - ½d₂ log 2π;

the posterior adds WᵀW/σ² to the block of z₁ and Wᵀx/σ² to its shift.
"""

from typing import Any, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net

PAPER = Paper("Jiali Cui and Ying Nian Wu and Tian Han",
              "Learning Joint Latent Space EBM Prior Model for Multi-layer Generator",
              2023, "CVPR", arxiv="2306.06323", remark="here its conjugate special case")  # fmt: skip
RESULT = "draws of its own: 0.006 nats below the truth, by noise_contrastive (inference/README.md)"
CHECK = "tests/objectives/test_closed_form.py::test_log_z_and_evidence_equal_quadrature"
DEVIATIONS = ("Nets are affine and tilts quadratic, so that prior, posterior and log Z are known.",)
BACKENDS = ("pyro", "numpyro")
SCALING = "auto"  # images to [-1, 1], tables standardised column by column


class Hyper(NamedTuple):
    d1: Count = 3  # latents next to the data
    d2: Count = 2  # top latents
    sigma: Positive = 0.5  # of x given z1: neither prior nor likelihood dominates
    init_seed: Whole = 0  # of the initial parameters


class Gaussian(NamedTuple):
    """N(mean, covariance) of u = (z1, z2), and the log of its normalising constant."""

    mean: Any
    covariance: Any
    log_constant: float


def nets(hyper: Hyper, shape: tuple[int, ...]) -> dict[str, Net]:
    """No networks: all parameters are matrices."""
    return {}


def model(ppl: Any, net: Any, hyper: Hyper, x: Any = None, n: int | None = None) -> Any:
    """Declare z2, z1, both tilts, and x of shape (B, D); D = 4 when no data are given."""
    d1, d2, rng = hyper.d1, hyper.d2, np.random.default_rng(hyper.init_seed)
    width = 4 if x is None else x.shape[-1]
    weight = ppl.param("W", rng.normal(size=(width, d1)) / np.sqrt(d1))
    a, b = ppl.param("A", 0.7 * rng.normal(size=(d1, d2))), ppl.param("b", 0.5 * rng.normal(size=d1))
    scale = ppl.exp(ppl.param("log_s", -0.3 + 0.1 * rng.normal(size=d1)))
    with ppl.plate("data", len(x) if n is None else n):
        z2 = ppl.sample("z2", ppl.dist.Normal(0.0, 1.0).expand([d2]).to_event(1))
        z1 = ppl.sample("z1", ppl.dist.Normal(z2 @ a.T + b, scale).to_event(1))
        for i, z in ((1, z1), (2, z2)):
            d = (d1, d2)[i - 1]
            q = ppl.param(f"Q{i}", 0.3 * np.diag(rng.uniform(0.2, 1.0, d)))
            c = ppl.param(f"c{i}", 0.5 * rng.normal(size=d))
            ppl.tilt(f"f{i}", -0.5 * ((z @ q) * z).sum(-1) + z @ c)
        return ppl.sample("x", ppl.dist.Normal(z1 @ weight.T, hyper.sigma).to_event(1), obs=x)


def closed_form(params: dict[str, Any], hyper: Hyper, x: Any = None) -> Gaussian:
    """Prior and log Z, or for one datum x of shape (D,) its posterior and log p(x) + log Z; float64 NumPy.

    Raises numpy.linalg.LinAlgError where the tilts leave no proper density (Λ not positive definite).
    """
    p = {k: np.asarray(v, dtype=float) for k, v in params.items()}
    precision = np.exp(-2.0 * p["log_s"])  # S⁻¹, diagonal
    a, b, d2 = p["A"], p["b"], p["A"].shape[1]
    q1, q2 = (0.5 * (p[k] + p[k].T) for k in ("Q1", "Q2"))
    lam = np.block([[np.diag(precision) + q1, -precision[:, None] * a],
                    [-(a.T * precision), np.eye(d2) + (a.T * precision) @ a + q2]])  # fmt: skip
    eta = np.concatenate([precision * b + p["c1"], -(a.T @ (precision * b)) + p["c2"]])
    constant = -0.5 * b @ (precision * b) + 0.5 * np.log(precision).sum()
    if x is not None:
        w, x = p["W"] / hyper.sigma, np.asarray(x, dtype=float) / hyper.sigma
        lam[: len(b), : len(b)] += w.T @ w
        eta[: len(b)] += w.T @ x
        constant -= 0.5 * x @ x + 0.5 * len(x) * np.log(2 * np.pi * hyper.sigma**2)
    cholesky = np.linalg.cholesky(lam)
    mean = np.linalg.solve(lam, eta)
    return Gaussian(mean, np.linalg.inv(lam), 0.5 * eta @ mean - np.log(np.diag(cholesky)).sum() + constant)
