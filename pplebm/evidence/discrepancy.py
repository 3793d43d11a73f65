r"""Maximum mean discrepancy of a guide's aggregate and the prior, with its standard error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from pplebm.errors import PplebmError
from pplebm.evidence.information import guide_for
from pplebm.guides.guide import Guide
from pplebm.objectives.mmd import kernel_of
from pplebm.ppl.language import Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.draws import Draws


class Discrepancy(NamedTuple):
    """A squared maximum mean discrepancy; it may be a little below zero."""

    value: float
    error: float  # standard error
    kernel: str
    bandwidth: float  # in units of the latents' unconstrained coordinates
    n: int  # draws of either law


def aggregate_mmd(
    program: Program,
    data: Any,
    guide: Guide | None = None,
    *,
    prior: Draws | None = None,
    kernel: str = "imq",
    bandwidth: float = 1.0,
    n: int = 1000,
    seed: int = 0,
    params: Params | None = None,
) -> Discrepancy:
    r"""Squared discrepancy of the guide's aggregate over all rows and the prior, in one kernel that is told.

    .. math:: MMD^2 = \frac{1}{n (n - 1)} \sum_{i \neq j} h_{ij}, \quad
              h_{ij} = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i), \qquad
              a_i \sim \tfrac1N \sum_l q(z \mid x_l), \quad b_i \sim p(z)

    a and b are independent draws of all latents side by side, so this is a U-statistic without bias; its error
    is by `u_statistic`. A value says how far two laws are apart at the scale of the bandwidth and no other: figures of
    different kernels or bandwidths are not comparable.

    Args:
        program, data, guide, seed, params: as for `pplebm.information`.
        prior: draws of the tilted prior, `pplebm.sample_prior(program, n_chains=1000, n_draws=1)`, of whose chains the
            last ones count, which are independent. A prior without tilts is drawn from by itself.
        kernel: "rbf" or "imq", see `pplebm.objectives.mmd.mmd`.
        bandwidth: h of the kernel.
        n: draws of either law; with `prior`, as many as it has chains.

    Raises:
        PplebmError: for a tilt without draws of the prior, fewer than five draws, draws of a posterior or at other
            parameters, or as `pplebm.information`.

    Source: Gretton, Borgwardt, Rasch, Schölkopf, Smola (JMLR 2012), lemma 6 and section 6 for the variance.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> from pplebm.guides.guide import Guide
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(3. + 0. * x, 1.))
        >>> x = torch.zeros(4)
        >>> program = pplebm.Program(model, data=x)
        >>> found = aggregate_mmd(program, x, Guide(program, guide), kernel="rbf")
        >>> exact = 2 * 3 ** -0.5 * (1 - 2.718281828 ** (-9 / 6))  # Gaussians three apart
        >>> abs(found.value - exact) < 4.5 * found.error < 0.1
        True
    """
    guide = guide_for(program, guide)
    if program.tilts and prior is None:
        raise PplebmError(
            f"the prior is tilted by '{program.tilts[0].name}', so it is drawn from by chains: give "
            f"prior=pplebm.sample_prior(program, n_chains=1000, n_draws=1)."
        )
    if prior is not None and (not prior.is_prior or prior.has_data_axis):
        raise PplebmError("prior= has to be draws of the prior, of pplebm.sample_prior(program), not of posteriors.")
    ppl, params = program.ppl, program.params | guide.params | dict(params or {})
    k_guide, k_prior = ppl.split(ppl.key(seed))
    b = _joined(program, program.draw_base(k_prior, n, params) if prior is None else _last(prior, params))
    if not isinstance(n, int) or len(b) < 5:
        raise PplebmError(
            f"the discrepancy and its error need five draws or more, got {n if prior is None else len(b)}."
        )
    x = program.data(data)
    rows = np.random.default_rng(seed).integers(n_rows(x), size=len(b))
    a = _joined(program, guide.draw(k_guide, params, take_rows(x, ppl.asarray(rows)))[0])
    k = kernel_of(np.exp, a.shape[1], kernel, bandwidth)
    within = k(cdist(a, a, "sqeuclidean")) + k(cdist(b, b, "sqeuclidean"))
    across = k(cdist(a, b, "sqeuclidean"))
    return Discrepancy(*u_statistic(within - across - across.T), kernel, float(bandwidth), len(b))


def u_statistic(h: np.ndarray) -> tuple[float, float]:
    r"""Mean of h(i, j) over i ≠ j, and its standard error, of a symmetric matrix of n independent rows, five or more.

    With s² the variance of row means and P that of single entries, the variance V of the mean has the estimate

    .. math:: V (1 + \tfrac{c_1}{n - 4} - c_2) = c_1 \tfrac{A - P}{n - 4} + c_2 P, \quad
              A = s^2 \tfrac{(n - 1)^2}{n - 2}, \; c_1 = \tfrac{4 (n - 2)}{n (n - 1)}, \; c_2 = \tfrac{2}{n (n - 1)}

    which has no bias, but for A < P, where 0 takes the place of A - P.

    >>> u_statistic(np.ones((5, 5)))
    (1.0, 0.0)
    """
    n = len(h)
    off = h[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    pair, rows = off.var(), off.mean(1).var(ddof=1) * (n - 1) ** 2 / (n - 2)
    c1, c2 = 4.0 * (n - 2) / (n * (n - 1)), 2.0 / (n * (n - 1))
    variance = (c1 * max(0.0, rows - pair) / (n - 4) + c2 * pair) / (1.0 + c1 / (n - 4) - c2)
    return float(off.mean()), float(variance**0.5)


def _last(prior: Draws, params: Params) -> Latents:
    """The last draw of every chain, in centered coordinates."""
    for name in sorted(prior.program.prior_params):
        if bool((prior.params[name] != params[name]).any()):
            raise PplebmError(f"prior= was drawn at another value of parameter '{name}'; draw at the same params=.")
    z = {site: prior.program.ppl.asarray(a[:, -1]) for site, a in prior.latents.items()}
    return prior.program.move(prior.params, z, "centered")


def _joined(program: Program, z: Latents) -> np.ndarray:
    """All latents of a row side by side, in the order of the program."""
    values = [program.ppl.to_numpy(z[site.name]).astype(float) for site in program.latents]
    return np.concatenate([a.reshape(len(a), -1) for a in values], 1)
