r"""Step sizes of short runs, learned by the divergence of what the run leads to from where it should lead."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.batch import dot
from pplebm.kernels.kernel import LogDensity
from pplebm.kernels.unrolled import sizes_at, unrolled_step
from pplebm.ppl.language import PPL, Array, Key, Latents, Params

ENTROPIES = ("linear", "fixed_noise")
STEEPEST = 1e3  # nats per unit of a log step size: beyond, steps are unstable and the derivative through them is noise
MOST = 1e6  # nats that are told of a divergence


def run_divergence(
    ppl: PPL,
    key: Key,
    z: Latents,
    log_density: LogDensity,
    repeated: LogDensity,
    n_steps: int,
    sizes: Any | Mapping[str, Any],
    entropy: str = "linear",
) -> Array:
    r"""Per row, :math:`-\log p(z_K) - H` of a short run: its divergence from the target, up to constants.

    .. math::
        z_{k+1} = z_k + \tfrac12 s^2 \nabla \log p(z_k) + s\, \xi_k, \quad z_0, \xi_k \sim N(0, I), \qquad
        M_k = I + \tfrac12 s^2\, \nabla^2 \log p(z_k)

    The entropy H of the end is a log determinant, up to a constant:

    - "linear": :math:`\tfrac12 \log |\det C_K|` with :math:`C_{k+1} = M_k C_k M_k^\top + s^2 I, C_0 = I`, that of the
      run linearised along its path; exact for Gaussian targets;
    - "fixed_noise": :math:`\log |\det M_{K-1} \cdots M_0|`, the entropy given the injected noise: a lower bound, so
      the divergence is bounded for any target; it prices contraction and prefers too small steps.

    Args:
        ppl: the backend.
        key: of the noise.
        z: the start, standard normal, (B, *event) by site.
        log_density: of z, (B,), in the coordinates of the run.
        repeated: the same of B·d rows, every datum d times in a row; d is the number of latents of one.
        n_steps: K.
        sizes: s > 0, an array: a number, one per step, or a dict of these by site.
        entropy: see above.

    Returns:
        (B,), differentiable in whatever the densities and sizes depend on. Costs K Hessians, each one
        Hessian-vector product of B·d rows.

    Raises:
        PplebmError: for another entropy.

    Source: Nijkamp et al. (ECCV 2020, arXiv:1912.01909), section 3.2; Pang et al. (EACL 2021) for the noise held fixed.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> log_density = lambda z: -0.5 * 5.0 * z["z"] ** 2
        >>> start = ppl.normal_like(1, {"z": torch.zeros(5000)})
        >>> loss = lambda s: run_divergence(ppl, 0, start, log_density, log_density, 20, torch.tensor(s)).mean()
        >>> bool(loss(0.27) < loss(0.1)), bool(loss(0.27) < loss(0.5))  # the best s is 0.232
        (True, True)
    """
    if entropy not in ENTROPIES:
        raise PplebmError(f"entropy '{entropy}' is not known; choose one of {', '.join(ENTROPIES)}.")
    place = _places(ppl, z)
    d = next(iter(place.values())).shape[1]
    eye = ppl.asarray(np.eye(d))
    spread_of = eye + 0.0 * next(iter(z.values())).reshape(len(next(iter(z.values()))), -1)[:, :1, None]

    def step(carry: Any, noise: Latents) -> tuple[Any, Any]:
        z, spread_of, k = carry
        size = sizes_at(ppl, z, sizes, k)
        squares = sum(size[site] ** 2 * p.sum(0) for site, p in place.items())  # (d,)
        transition = eye + 0.5 * squares[:, None] * _hessian(ppl, repeated, z, place)
        spread_of = transition @ spread_of
        if entropy == "linear":
            spread_of = spread_of @ transition.swapaxes(1, 2) + squares * eye
        return (unrolled_step(ppl, z, log_density, noise, size), spread_of, k + 1), k

    start = (z, spread_of, ppl.asarray(0))
    (z, spread_of, _), _ = ppl.iterate(step, start, ppl.split(key, n_steps), lambda k: ppl.normal_like(k, z))
    share = 0.5 if entropy == "linear" else 1.0
    return -log_density(z) - share * ppl.log_abs_det(spread_of)


def followed(ppl: PPL, divergence: Callable[[Params], Array], log_sizes: Params) -> tuple[Array, Array]:
    """A loss whose gradient in the log step sizes is that of a divergence, and the divergence.

    Where that gradient overflows, or is of more than 1000 nats, it is of a path through unstable steps, and of either
    sign: in its place is 1, by which steps grow shorter. A divergence of more than a million nats is told as that.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> sizes = {"a": torch.tensor(2.0), "b": torch.tensor(1.0)}
        >>> loss = lambda p: followed(ppl, lambda q: 3.0 * q["a"] - 1e9 * q["b"], p)[0]
        >>> {name: a.item() for name, a in ppl.value_and_grad(loss, sizes)[1].items()}
        {'a': 3.0, 'b': 1.0}
    """
    here = ppl.stop_gradient(log_sizes)
    value, slope = ppl.value_and_grad(divergence, here)
    surrogate = 0.0 * next(iter(here.values()))
    for name, a in slope.items():
        surrogate = surrogate + ppl.where(abs(a) < STEEPEST, a, 1.0 + 0.0 * here[name]) * (log_sizes[name] - here[name])
    return surrogate, ppl.stop_gradient(ppl.where(abs(value) < MOST, value, MOST + 0.0 * next(iter(here.values()))))


def _places(ppl: PPL, z: Latents) -> dict[str, Array]:
    """Matrices by site, (numbers of the site, d), that place its numbers among those of all sites."""
    widths = {site: math.prod(a.shape[1:]) for site, a in z.items()}
    found, at, d = {}, 0, sum(widths.values())
    for site, width in widths.items():
        found[site], at = ppl.asarray(np.eye(d)[at : at + width]), at + width
    return found


def _hessian(ppl: PPL, repeated: LogDensity, z: Latents, place: dict[str, Array]) -> Array:
    """Second derivatives of the log density, (B, d, d), all directions of all rows at once."""
    n, d = len(next(iter(z.values()))), next(iter(place.values())).shape[1]
    rows, copies = ppl.asarray(np.repeat(np.arange(n), d)), ppl.asarray(np.tile(np.arange(d), n))
    along = {site: p.swapaxes(0, 1)[copies].reshape(n * d, *z[site].shape[1:]) for site, p in place.items()}
    many = {site: a[rows] for site, a in z.items()}
    slope = lambda at: dot(ppl.value_and_grad(repeated, at, differentiable=True)[1], along)
    bent = ppl.value_and_grad(slope, many, differentiable=True)[1]
    return sum(bent[site].reshape(n, d, -1) @ p for site, p in place.items())
