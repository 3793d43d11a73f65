"""Maps between a latent site's value and the coordinates a chain moves in, and the site's density there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributions import biject_to, constraints

from pplebm.backends.pyro.noise import noise_of


def to_value(fn: Any, u: torch.Tensor, coordinates: str) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value of a site at coordinates u, and its log density there, :math:`\log p(z(u)) + \log|\partial z/\partial u|`.

    "centred": z is the support's own bijection of u. "noise": :math:`z = \mu + \sigma u` for (multivariate) normal
    sites, and bijections of it for bijections of these; their density in u is N(0, I). The centred map for all others.
    """
    noise = noise_of(fn) if coordinates == "noise" else None
    if noise is not None:
        value = noise.to_value(u)
        log_density = -0.5 * (u * u) - 0.5 * math.log(2 * math.pi)
        return value, log_density.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else log_density
    if getattr(fn.support, "base_constraint", fn.support) is constraints.real:
        return u, fn.log_prob(u)
    bijection = biject_to(fn.support)
    value = bijection(u)
    return value, fn.log_prob(value) + bijection.log_abs_det_jacobian(u, value)


def to_coordinates(fn: Any, value: torch.Tensor, coordinates: str) -> torch.Tensor:
    """The inverse of `to_value`."""
    noise = noise_of(fn) if coordinates == "noise" else None
    if noise is not None:
        return noise.from_value(value)
    return biject_to(fn.support).inv(value)
