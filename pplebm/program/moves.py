"""Latents of a program: in other coordinates, and as values in their own supports."""

from __future__ import annotations

import numpy as np

from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.program.rows import Rows


class Moves(Rows):
    """The part of a program that changes coordinates."""

    def zeros(self, n: int) -> Latents:
        """n latents at the origin of their coordinates."""
        dtypes = self._traced.dtypes
        return {s.name: self.ppl.asarray(np.zeros((n, *s.shape), dtypes[s.name]), keep=True) for s in self.latents}

    def move(self, params: Params, z: Latents, target: str, data: Data | None = None) -> Latents:
        """The same latents in the coordinates `target`, for use with `with_coordinates(target)`.

        Data are needed where the prior reads them, as that of a guide does.
        """
        if target == self.coordinates:
            return z
        self._check_latents(z, data)
        data = self._data_for(data if self.prior_reads else None, z, "a change of coordinates", self.prior_reads)
        return self._traced.move(self._own(params), z, data, self.coordinates, target)

    def given_latents(self, params: Params, data: Data) -> Latents:
        """Coordinates of the latents that data are values of, see `given`; constants to a gradient."""
        return self._traced.given(self._own(params), data, self.coordinates)

    def constrain(self, params: Params, z: Latents, data: Data | None = None) -> dict[str, Array]:
        """Values of the latent sites in their own supports, and of the deterministic sites.

        Deterministic sites are left out where they depend on data, or observed values, that are not given.
        """
        self._check_latents(z, data)
        rows = self._data_for(data, z, "the values of latents", self._needs_data)
        found = self._traced.constrain(self._own(params), z, rows, self.coordinates)
        unknown = self.reads.deterministic | {name for name, of in self.reads.derived.items() if of}
        return found if data is not None else {k: v for k, v in found.items() if k not in unknown}

    def unconstrain(self, params: Params, values: dict[str, Array], data: Data | None = None) -> Latents:
        """Coordinates of given site values: the inverse of `constrain`."""
        first = {self.latents[0].name: values[self.latents[0].name]}
        rows = self._data_for(data, first, "the coordinates of values", self._needs_data)
        values = {name: self.ppl.asarray(a) for name, a in values.items()}
        return self._traced.unconstrain(self._own(params), values, rows, self.coordinates)
