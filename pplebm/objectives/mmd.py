r"""The InfoVAE family: how much of each posterior, and how much of their aggregate, is held to the prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pplebm.errors import PplebmError
from pplebm.guides.guide import Guide
from pplebm.objectives.contrast import two_phases
from pplebm.objectives.elbo import ElboAux
from pplebm.ppl.language import PPL, Array, Data, Latents, Params
from pplebm.program import Program

KERNELS = ("rbf", "imq")


def mmd(ppl: PPL, a: Array, b: Array, kernel: str = "imq", bandwidth: float = 1.0) -> Array:
    r"""Squared maximum mean discrepancy of two samples, unbiased, so it may be a little below zero.

    .. math:: E\,k(a, a') - 2\,E\,k(a, b) + E\,k(b, b'), \qquad
              k_{rbf} = e^{-\|a - b\|^2 / 2 h^2}, \quad k_{imq} = \frac{C}{C + \|a - b\|^2}, \; C = 2 d h^2

    For Gaussians of covariances σ₁²I and σ₂²I and means Δ apart, with the RBF kernel, each expectation is
    :math:`(h^2 / (h^2 + s))^{d/2} e^{-\|\Delta\|^2 / 2 (h^2 + s)}`, s the sum of the two variances.

    Args:
        ppl: the backend.
        a, b: samples, (n, d) and (m, d), of two rows or more.
        kernel: "rbf" or "imq".
        bandwidth: h, in units of the latents.

    Raises:
        PplebmError: for another kernel, a bandwidth that is not positive, or fewer rows.

    Source: Gretton et al. (JMLR 2012), lemma 6; Tolstikhin et al. (ICLR 2018) for the inverse multiquadric.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> a = ppl.normal_like(0, {"a": torch.zeros(2000, 2), "b": torch.zeros(2000, 2)})
        >>> shifted = 0.5 * a["b"] + torch.tensor([1., 0.])
        >>> abs(mmd(ppl, a["a"], shifted, "rbf", 2.0 ** 0.5).item() - 0.2447) < 0.03  # the closed form
        True
    """
    k = kernel_of(ppl.exp, a.shape[1], kernel, bandwidth)
    if min(len(a), len(b)) < 2:
        raise PplebmError(f"the discrepancy needs two rows of each sample, got {len(a)} and {len(b)}.")

    def similarity(u: Array, v: Array) -> Array:
        return k(((u[:, None] - v[None, :]) ** 2).sum(-1))

    def within(u: Array) -> Array:
        n = len(u)
        return (similarity(u, u).sum() - n) / (n * (n - 1))  # the diagonal is 1

    return within(a) + within(b) - 2.0 * similarity(a, b).mean()


def kernel_of(exp: Callable[[Array], Array], size: int, kernel: str, bandwidth: float) -> Callable[[Array], Array]:
    """The kernel of `mmd` as a function of squared distances of vectors of `size` numbers.

    Raises:
        PplebmError: for another kernel, or a bandwidth that is not positive.
    """
    if kernel not in KERNELS:
        raise PplebmError(f"kernel '{kernel}' is not known; choose one of {', '.join(KERNELS)}.")
    if not bandwidth > 0:
        raise PplebmError(f"the bandwidth of a kernel must be positive, got {bandwidth!r}.")
    scale = 2.0 * bandwidth**2 * (size if kernel == "imq" else 1.0)
    return (lambda squared: exp(-squared / scale)) if kernel == "rbf" else lambda squared: scale / (scale + squared)


def info_vae(
    program: Program,
    guide: Guide,
    params: Params,
    x: Data,
    noise: Latents,
    prior: Latents,
    alpha: float = 0.0,
    weight: float = 10.0,
    sites: Sequence[str] | None = None,
    divergence: Callable[..., Array] = mmd,
) -> tuple[Array, ElboAux]:
    r"""A scalar whose gradient is minus that of the InfoVAE objective of a possibly tilted model.

    .. math::
        E_q \log p(x \mid z) - (1 - \alpha)\, KL(q(z \mid x) \| p(z)) - (\alpha + \lambda - 1)\, D(q(z) \| p(z))

    with q(z) the guide aggregated over the batch, and log Z in the KL term by the negative phase. α = 0, λ = 1 is the
    ELBO; α = 1 holds the aggregate alone to the prior.

    Args:
        prior: draws of the (tilted) prior, centered, constants: of a chain if there is a tilt, else of the base.
        alpha: α <= 1.
        weight: λ; the discrepancy enters with weight α + λ - 1 >= 0.
        sites: latents whose aggregate is compared; all by default.
        divergence: of (ppl, a, b), two samples (n, d); `mmd` by default.

    Others as in `pplebm.objectives.elbo.elbo`.

    Raises:
        PplebmError: for weights outside their range, or a site that is no latent.

    Source: Zhao, Song, Ermon (AAAI 2019, arXiv:1706.02262), equation 6.
    """
    program, ppl = program.with_coordinates("centered"), program.ppl
    if alpha > 1 or alpha + weight < 1:
        raise PplebmError(f"info_vae needs alpha <= 1 and alpha + weight >= 1, got {alpha} and {weight}.")
    names = [site.name for site in program.latents]
    for site in sites or names:
        if site not in names:
            raise PplebmError(f"'{site}' is no latent of the program; they are {', '.join(names)}.")
    z, log_q = guide.at(params, noise, x)
    terms = program.log_terms(params, z, x)
    log_prior = program.total(terms, (*program.latents, *program.tilts))
    gap = (log_q - log_prior).mean()
    rows = {site: (a.reshape(len(a), -1) for a in (z[site], prior[site])) for site in sites or names}
    apart = sum(divergence(ppl, *pair) for pair in rows.values())
    log_likelihood = program.total(terms, (*program.observed, *program.factors)).mean()
    positive = -log_likelihood + (1.0 - alpha) * gap + (alpha + weight - 1.0) * apart
    loss, phases = two_phases(program, params, positive, terms, prior, weight=1.0 - alpha, x=x)
    return loss, ElboAux(log_likelihood - gap, phases)
