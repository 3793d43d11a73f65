"""Maps between a latent site's value and the coordinates a chain moves in, with log|J|."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import biject_to

from pplebm.backends.pyro.tracing import noise_scale


def to_value(fn: Any, u: torch.Tensor, coordinates: str) -> tuple[torch.Tensor, torch.Tensor | float]:
    r"""Value of a site at coordinates u, and :math:`\log|\partial z / \partial u|` over its event.

    "centred": z is the support's own bijection of u; "noise": :math:`z = \mu + \sigma u` for (multivariate)
    normal sites, the centred map for all others.
    """
    normal = noise_scale(fn) if coordinates == "noise" else None
    if isinstance(normal, torch.distributions.MultivariateNormal):
        tril = normal.scale_tril
        value = normal.loc + (tril @ u.unsqueeze(-1)).squeeze(-1)
        jacobian = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return value, jacobian.sum(tuple(range(-fn.event_dim + 1, 0))) if fn.event_dim > 1 else jacobian
    if normal is not None:
        value = normal.loc + normal.scale * u
        log_scale = normal.scale.log().expand(value.shape)
        return value, log_scale.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else log_scale
    if fn.support is torch.distributions.constraints.real or is_real_vector(fn.support):
        return u, 0.0
    bijection = biject_to(fn.support)
    value = bijection(u)
    return value, bijection.log_abs_det_jacobian(u, value)


def to_coordinates(fn: Any, value: torch.Tensor, coordinates: str) -> torch.Tensor:
    """The inverse of `to_value`."""
    normal = noise_scale(fn) if coordinates == "noise" else None
    if isinstance(normal, torch.distributions.MultivariateNormal):
        return torch.linalg.solve_triangular(
            normal.scale_tril, (value - normal.loc).unsqueeze(-1), upper=False
        ).squeeze(-1)
    if normal is not None:
        return (value - normal.loc) / normal.scale
    return biject_to(fn.support).inv(value)


def is_real_vector(support: Any) -> bool:
    """Whether every coordinate of the support is a free real number."""
    return getattr(support, "base_constraint", support) is torch.distributions.constraints.real
