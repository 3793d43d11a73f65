"""Maps between a latent site's value and the coordinates a chain moves in, and the site's density there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributions import MultivariateNormal, biject_to, constraints

from pplebm.backends.pyro.tracing import noise_scale


def to_value(fn: Any, u: torch.Tensor, coordinates: str) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value of a site at coordinates u, and its log density there, :math:`\log p(z(u)) + \log|\partial z/\partial u|`.

    "centred": z is the support's own bijection of u. "noise": :math:`z = \mu + \sigma u` for (multivariate) normal
    sites, whose density in u is N(0, I) whatever μ and σ are; the centred map for all others.
    """
    normal = noise_scale(fn) if coordinates == "noise" else None
    if normal is not None:
        if isinstance(normal, MultivariateNormal):
            value = normal.loc + (normal.scale_tril @ u.unsqueeze(-1)).squeeze(-1)
        else:
            value = normal.loc + normal.scale * u
        log_density = -0.5 * (u * u) - 0.5 * math.log(2 * math.pi)
        return value, log_density.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else log_density
    if getattr(fn.support, "base_constraint", fn.support) is constraints.real:
        return u, fn.log_prob(u)
    bijection = biject_to(fn.support)
    value = bijection(u)
    return value, fn.log_prob(value) + bijection.log_abs_det_jacobian(u, value)


def to_coordinates(fn: Any, value: torch.Tensor, coordinates: str) -> torch.Tensor:
    """The inverse of `to_value`."""
    normal = noise_scale(fn) if coordinates == "noise" else None
    if isinstance(normal, MultivariateNormal):
        centred = (value - normal.loc).unsqueeze(-1)
        return torch.linalg.solve_triangular(normal.scale_tril, centred, upper=False).squeeze(-1)
    if normal is not None:
        return (value - normal.loc) / normal.scale
    return biject_to(fn.support).inv(value)
