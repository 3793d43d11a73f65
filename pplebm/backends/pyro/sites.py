"""Pyro's statements seen from a chain: coordinates, densities, and what the structure of a program asks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import Categorical, Cauchy, Delta, HalfCauchy
from pyro.distributions.util import scale_and_mask
from torch.distributions import biject_to, constraints

from pplebm.backends.pyro.noise import noise_of, unmasked, unwrap
from pplebm.backends.structure import BackendSites, support_name
from pplebm.errors import PplebmError

NO_MEAN = (Categorical, Cauchy, HalfCauchy)  # for which the library gives what is not a number, or not finite


def to_value(msg: Any, u: torch.Tensor, coordinates: str) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value of a latent at coordinates u, and its log density there.

    .. math:: s\,m \log p(z(u)) + \log|\partial z/\partial u|

    with s, m the scale and the mask of handlers around the statement: they belong to the density, never to the change
    of variables. "centered": z is the support's own bijection of u. "noncentered": :math:`z = \mu + \sigma u` for
    (multivariate) normal sites, and bijections of it for bijections of these; unscaled, their density in u is N(0, I).
    The centered map for all others.
    """
    fn, is_plain = msg["fn"], _is_plain(msg)
    noise = noise_of(fn) if coordinates == "noncentered" else None
    if noise is not None:
        value = noise.to_value(u)
        standard = -0.5 * (u * u) - 0.5 * math.log(2 * math.pi)
        standard = standard.sum(tuple(range(-fn.event_dim, 0))) if fn.event_dim else standard
        if is_plain:
            return value, standard
        return value, _weighed(msg, fn.log_prob(value)) + standard - unmasked(fn).log_prob(value)
    if is_real(fn):
        return u, _weighed(msg, fn.log_prob(u))
    bijection = biject_to(support_of(fn))
    value = bijection(u)
    return value, _weighed(msg, fn.log_prob(value)) + bijection.log_abs_det_jacobian(u, value)


def density_at(msg: Any, u: torch.Tensor) -> torch.Tensor:
    """Log density of a latent that has its value already, which coordinates u led to by the support's bijection."""
    return density(msg) + biject_to(support_of(msg["fn"])).log_abs_det_jacobian(u, msg["value"])


def to_coordinates(msg: Any, coordinates: str) -> torch.Tensor:
    """Coordinates of a latent's value: the inverse of `to_value`."""
    noise = noise_of(msg["fn"]) if coordinates == "noncentered" else None
    if noise is not None:
        return noise.from_value(msg["value"])
    return biject_to(support_of(msg["fn"])).inv(msg["value"])


def density(msg: Any) -> torch.Tensor:
    """Log density of a statement's value, as the handlers around it have it."""
    return _weighed(msg, msg["fn"].log_prob(msg["value"]))


def plain_density(msg: Any) -> torch.Tensor:
    """The same before masks and scales."""
    return unmasked(msg["fn"]).log_prob(msg["value"])


def is_real(fn: Any) -> bool:
    """Whether coordinates and values of a distribution are the same."""
    support = support_of(fn)
    return getattr(support, "base_constraint", support) is constraints.real


def support_of(fn: Any) -> Any:
    """Support of a distribution; of a mixture that of its components, for which torch knows a bijection."""
    of_mixtures = getattr(constraints, "MixtureSameFamilyConstraint", ())  # earlier versions give that of components
    return fn.support.base_constraint if isinstance(fn.support, of_mixtures) else fn.support


def _is_plain(msg: Any) -> bool:
    scale = msg["scale"]
    return msg["mask"] is None and isinstance(scale, (int, float)) and scale == 1.0 and unmasked(msg["fn"]) is msg["fn"]


def _weighed(msg: Any, log_density: torch.Tensor) -> torch.Tensor:
    return scale_and_mask(log_density, msg["scale"], msg["mask"])


def masks_of(msg: Any) -> torch.Tensor | None:
    """Where a statement counts, if masks say so; (batch shape)."""
    shape, found = msg["fn"].batch_shape, [] if msg["mask"] is None else [torch.as_tensor(msg["mask"])]
    fn = msg["fn"]
    while hasattr(fn, "base_dist"):
        if (mask := getattr(fn, "_mask", None)) is not None:
            found.append(torch.as_tensor(mask))
        fn = fn.base_dist
    parts = [m.flatten(len(shape)).any(-1) if m.dim() > len(shape) else m for m in found]  # of parts of an event
    whole = None
    for part in parts:
        whole = part.expand(shape) if whole is None else whole & part
    return whole


def counted(msg: Any) -> torch.Tensor | None:
    """Which numbers of a statement's value count, if masks say so; (shape of the value)."""
    value, fn, whole = msg["value"], msg["fn"], None
    found = [] if msg["mask"] is None else [(msg["mask"], fn.batch_shape)]
    while hasattr(fn, "base_dist"):
        if (mask := getattr(fn, "_mask", None)) is not None:
            found.append((mask, fn.batch_shape))
        fn = fn.base_dist
    for mask, shape in found:  # the axes of a mask are the first of the value
        part = torch.as_tensor(mask).expand(shape).reshape(*shape, *(1,) * (value.dim() - len(shape)))
        whole = part.expand(value.shape) if whole is None else whole & part
    return whole


def improper_start(fn: Any, sample: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, bool]:
    """A draw, or where a distribution has none, a value at coordinates uniform in [-2, 2]; and whether it is that."""
    try:
        return sample(), False
    except NotImplementedError:
        bijection = biject_to(support_of(fn))
        shape = bijection.inverse_shape(fn.shape())
        return bijection(4.0 * torch.rand(shape) - 2.0), True


def unvalidated(fn: Any) -> Any:
    """The distribution without checks of its values: one that was made outside the model may still have them."""
    if not getattr(fn, "_validate_args", False):
        return fn
    quiet = copy.copy(fn)
    quiet._validate_args = False
    if hasattr(fn, "base_dist"):
        quiet.base_dist = unvalidated(fn.base_dist)
    return quiet


def is_deterministic(site: dict[str, Any]) -> bool:
    """Whether a statement records a value: `pyro.deterministic`, what reparametrisations leave, observed Deltas."""
    if not site["is_observed"]:
        return False
    fn = unwrap(unmasked(site["fn"]))
    if (site["infer"] or {}).get("_deterministic"):
        return True
    return isinstance(fn, Delta) and (
        site["value"] is fn.v or torch.equal(fn.v.expand_as(site["value"]), site["value"])
    )


def mean(msg: Any) -> torch.Tensor:
    """Mean of a statement's distribution.

    Raises:
        PplebmError: for a distribution that has none, such as one of classes, or of which the backend knows none.
    """
    fn = unmasked(msg["fn"])
    try:
        if isinstance(unwrap(fn), NO_MEAN):
            raise NotImplementedError
        return fn.mean
    except NotImplementedError as error:
        what = f"site '{msg['name']}' ({type(unwrap(fn)).__name__})"
        raise PplebmError(f"{what} has no mean; ask for draws, and for scores by 'likelihood'.") from error


BACKEND = BackendSites(
    name="pyro",
    unwrap=lambda fn: unwrap(unmasked(fn)),
    has_noncentered=lambda fn: noise_of(fn) is not None,
    is_discrete=lambda fn: fn.support.is_discrete,
    is_deterministic=is_deterministic,
    support_name=lambda support: support_name(support, constraints),
    unconstrained=lambda fn, value: biject_to(support_of(fn)).inv(value),
    all_finite=lambda a: bool(torch.isfinite(a).all()),
    has_mask=lambda site: masks_of(site) is not None,
)
