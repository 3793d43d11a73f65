r"""Regression with random intercepts whose distribution is tilted: a linear mixed model without Gaussian groups.

    p(u) = 1/Z · exp[ f(u/s) ] · N(u; 0, s²),        yᵢ | u ~ N( xᵢᵀβ + u, σ² ),    i = 1 ... n of one group

One group is one datum: its rows are padded to the longest, and those that are not observed are masked. f reads u/s, so
Z does not depend on s, nor on β and σ: only the tilt has a negative phase.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from pplebm.gallery.hyper import Count, Positive
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Net, mlp

PAPER = Paper("Nan M. Laird and James H. Ware", "Random-Effects Models for Longitudinal Data", 1982,
              journal="Biometrics", volume="38", number="4", pages="963--974", remark="f = 0: their model")  # fmt: skip
RESULT = "pbcseq: 0.010 nats a patient above Gaussian effects held out, 0.079 by chains (models/README.md)"
CHECK = "tests/gallery/test_random_effects.py::test_quadrature_of_the_program_is_that_of_the_page"
DEVIATIONS = (
    "The intercepts have a tilted Gaussian law in place of a Gaussian one, and there are no random slopes.",
    "Plain maximum likelihood in place of restricted maximum likelihood.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # a regression reads best in the units of its data


class Hyper(NamedTuple):
    scale: Positive = 1.0  # s to start from; of the order of the response's standard deviation
    sigma: Positive = 1.0  # σ to start from
    tilt_width: Count = 16  # hidden units of f, in one layer: enough for two or three modes of one number
    tilt_bound: Positive = 8.0  # nats; hundreds of groups show hardly more than 3
    tilted: bool = True  # False: the Gaussian mixed model


def nets(hyper: Hyper, shape: Any) -> dict[str, Net]:
    """The tilt, a function of one number; with tanh it is flat far out, so that the tails stay Gaussian."""
    return {"tilt": mlp(1, 1, hyper.tilt_width, 1, "tanh")} if hyper.tilted else {}


def model(ppl: Any, net: Any, hyper: Hyper, y: Any = None, x: Any = None, observed: Any = None) -> Any:
    """Declare u and y of shape (groups, rows), given covariates x (groups, rows, p) and which rows are observed."""
    beta = ppl.param("beta", np.zeros(x.shape[-1]))
    scale = ppl.exp(ppl.param("log_scale", np.log(hyper.scale)))
    sigma = ppl.exp(ppl.param("log_sigma", np.log(hyper.sigma)))
    with ppl.plate("data", len(x)):
        u = ppl.sample("u", ppl.dist.Normal(0.0, scale))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"]((u / scale)[..., None])[..., 0], bound=hyper.tilt_bound)
        rows = ppl.dist.Normal(x @ beta + u[..., None], sigma)
        return ppl.sample("y", rows.mask(True if observed is None else observed).to_event(1), obs=y)


def grouped(frame: Any, response: str, covariates: Sequence[str], group: str) -> dict[str, Any]:
    """A frame of one observation a row as data of `model`: groups sorted, x with a 1 first, missing rows masked."""
    _, number = np.unique(np.asarray(frame[group]), return_inverse=True)
    order, sizes = np.argsort(number, kind="stable"), np.bincount(number)
    at = number[order], np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # group, place within it
    columns = [response, "intercept", *covariates]
    rows = frame.assign(intercept=1.0)[columns].to_numpy(dtype=float, na_value=np.nan)[order]
    table = np.full((len(sizes), sizes.max(), rows.shape[1]), np.nan)
    table[at] = rows
    observed = np.isfinite(table).all(-1)
    table[~observed] = 0.0
    return {"y": table[..., 0], "x": table[..., 1:], "observed": observed}


def density(params: dict[str, Any], hyper: Hyper, n: int = 2001, xp: Any = np) -> tuple[Any, Any]:
    """A grid of u over ±8 s, and the density of the random intercepts there."""
    p = {k: xp.asarray(v, dtype=float) for k, v in params.items()}
    e = xp.linspace(-8.0, 8.0, n)
    log_p = -0.5 * e**2
    if hyper.tilted:
        hidden = xp.tanh(e[:, None] @ p["tilt.weight_0"].T + p["tilt.bias_0"])
        f = (hidden @ p["tilt.weight_1"].T + p["tilt.bias_1"])[:, 0]
        log_p = log_p + hyper.tilt_bound * xp.tanh(f / hyper.tilt_bound)
    u = xp.exp(p["log_scale"]) * e
    weights = xp.exp(log_p)  # at most e to the bound
    return u, weights / (weights.sum() * (u[1] - u[0]))


def log_evidence(
    params: dict[str, Any], hyper: Hyper, data: dict[str, Any], xp: Any = np, logsumexp: Any = logsumexp
) -> Any:
    """log p(y | x) of every group, (groups,), by quadrature over u; with `jax.numpy` and its logsumexp too."""
    u, p = density(params, hyper, xp=xp)
    y, x, there = (xp.asarray(data[k]) for k in ("y", "x", "observed"))
    beta, log_sigma = (xp.asarray(params[k], dtype=float) for k in ("beta", "log_sigma"))
    n, rest = there.sum(1)[:, None], xp.where(there, y - x @ beta, 0.0)
    squares = (rest**2).sum(1)[:, None] - 2 * rest.sum(1)[:, None] * u + n * u**2
    terms = -0.5 * squares * xp.exp(-2 * log_sigma) - n * (log_sigma + 0.5 * np.log(2 * np.pi))
    return logsumexp(terms + xp.log(p * (u[1] - u[0])), axis=1)
