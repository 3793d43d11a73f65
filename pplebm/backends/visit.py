"""One run of a model: where its latents are, what it is asked for, and what was met on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pplebm.backends.structure import plates_of
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Latents

if TYPE_CHECKING:
    from pplebm.backends.traced import Traced


class At(NamedTuple):
    """How a model is to be run."""

    z: Latents | None = None  # coordinates of the latents; None: they are drawn by the model
    coordinates: str = "centered"
    observed: bool = True  # score observed sites and factors of the likelihood
    by_datum: bool = False  # score observed sites by datum in joint programs too
    generate: bool = False  # observed statements draw from their own distribution, in order
    fixed: Mapping[str, Array] = {}  # values of observed sites, whatever the data are
    plain: bool = False  # observed sites are scored before masks and scales
    values: Mapping[str, Array] | None = None  # of latents, where a site has its rows; in the place of coordinates
    given: bool = False  # latents that data are values of keep these, and their densities are those of the values
    start: bool = False  # latents without draws of their own are started somewhere instead of refused


class Visit:
    """One run of a model: sets the values of latents as it passes, and notes densities and values by site.

    `enter` and `leave` are called by the backend's handler before and after a statement, which is a dict with the same
    fields in both backends.
    """

    def __init__(self, traced: Traced, at: At, sites: dict[str, Any] | None = None) -> None:
        self.traced, self.at = traced, at
        self.terms: dict[str, Array] = {}
        self.sites = {} if sites is None else sites  # statements, their values included
        self._log_density: dict[str, Array] = {}

    def enter(self, msg: Any) -> None:
        """Give a statement its value."""
        traced, at, name = self.traced, self.at, msg["name"]
        kind = traced.kinds.get(name)
        if name in traced.structure.given:
            if at.given:
                return
            traced.unobserve(msg)
        if kind == "latent" and at.z is not None:
            u = traced.placed(at.z[name], traced.coordinate_axes.get(name))
            if name in traced.looped:  # its value was set inside the loop
                self._log_density[name] = traced.density_at(msg, u)
            else:
                msg["value"], self._log_density[name] = traced.to_value(msg, u, at.coordinates)
                msg["done"] = True
        elif kind == "latent" and at.values is not None:
            msg["value"], msg["done"] = at.values[name], True
        elif kind == "latent" and name in traced.improper and not at.start:
            raise PplebmError(
                f"latent '{name}' has an improper distribution, {traced.site(name).distribution}, which cannot be "
                f"drawn from; give it a proper prior, or sample posteriors only."
            )
        elif kind == "observed" and name in at.fixed:
            msg["value"], msg["done"] = at.fixed[name], True
        elif kind == "observed" and name not in traced.looped and (at.generate or msg["value"] is None):
            traced.unobserve(msg)  # a value that the data lack is drawn as well; it must not be scored

    def leave(self, msg: Any) -> None:
        """Note what a statement did."""
        traced, at, name = self.traced, self.at, msg["name"]
        kind = traced.kinds.get(name)
        if kind is None:
            return
        self.sites[name] = dict(msg)
        if kind == "deterministic" or (kind in ("observed", "factor") and not at.observed):
            return
        if kind == "latent" and at.given:
            if not at.observed:
                return
            log_density = traced.density(msg)
        elif kind == "latent":
            if at.z is None:
                return
            log_density = self._log_density[name]
        elif kind == "observed" and not (msg["is_observed"] or at.generate or name in at.fixed):
            raise PplebmError(f"the data lack the value of observed site '{name}', whose density is asked for.")
        elif kind == "observed" and at.plain:
            log_density = traced.plain_density(msg)
        else:
            log_density = traced.density(msg)
        self.terms[name] = self._summed(log_density, msg, kind)

    def _summed(self, log_density: Array, msg: Any, kind: str) -> Array:
        """Over all plates but the data's; in a joint program over that one as well, unless points are wanted."""
        plate = self.traced.structure.plate
        by_datum = not self.traced.structure.has_global_latents or (self.at.by_datum and kind == "observed")
        if not by_datum or plate not in plates_of(msg):
            return log_density.sum()
        front = self.traced.moved_axis(log_density, plates_of(msg)[plate].dim, 0)
        return front.reshape(len(front), -1).sum(1) if front.ndim > 1 else front
