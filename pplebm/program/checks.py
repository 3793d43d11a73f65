"""Checks of data: what observed sites get, and what NaN would do to a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves
from pplebm.program.densities import Densities

Flags = np.ndarray[Any, np.dtype[np.bool_]]
CHECKED, FEW, MANY = 4096, 256, 50_000  # rows that are checked at once: of many rows, or of fewer; how many are many


class Checks(Densities):
    """The part of a program that looks at data before they are used."""

    def check_data(self, data: Data, params: Params | None = None) -> None:
        """Raise if an observed site gets NaN, or a value outside its support, where it is not masked.

        Args:
            data: as `data` takes them, in the structure of the model; they may be mapped from a file.
            params: of the program; its own if left out.

        Raises:
            PplebmError: naming the site, how many rows, the first of them, and the remedies.
        """
        params, n = self._own(self.params if params is None else params), n_rows(data)
        size = n if self.has_global_latents else min(n, CHECKED if n > MANY else FEW)
        found: dict[str, list[tuple[Flags, Flags]]] = {}
        with_holes = []
        for at in range(0, n, size):
            part = self.data(take_rows(data, np.arange(at, at + size) % n))  # filled up, so that shapes repeat
            z = self._traced.draw(self.ppl.key(self.seed), 1, params, part, "centered", True)  # one draw, or one a row
            one = {name: a[0] for name, a in z.items()} if self.has_global_latents else z
            for site, flags in self._traced.faults(params, one, part).items():
                found.setdefault(site, []).append(flags)
            if self._holes(part):
                with_holes.append((z, part))
        for site, parts in found.items():
            is_nan, is_outside = (np.concatenate(flags)[:n] for flags in zip(*parts, strict=True))
            self._refuse_values(site, is_nan, is_outside)
        for z, part in with_holes:
            self._check_gradient(params, z, part)

    def _refuse_values(self, site: str, is_nan: Flags, is_outside: Flags) -> None:
        if is_nan.any():
            raise PplebmError(
                f"observed site '{site}' is NaN in {_counted(is_nan)}; give {self.ppl.name}.sample('{site}', ..., "
                f"obs_mask=) with the NaN filled by any number, which imputes them as latents, or leave them out by a "
                f"mask."
            )
        if is_outside.any():
            distribution = next(s for s in (*self.observed, *self.latents) if s.name == site)
            raise PplebmError(
                f"the data of observed site '{site}' leave its support ({distribution.distribution} on "
                f"{distribution.support}) in {_counted(is_outside)}; check units and scaling, or choose another "
                f"distribution."
            )

    def _holes(self, part: Data) -> list[str]:
        """Paths of the arrays that hold NaN."""
        arrays = [(path, self.ppl.to_numpy(a)) for path, a in tree_leaves(part)]
        return [path for path, a in arrays if a.dtype.kind == "f" and _has_nan(a)]

    def _check_gradient(self, params: Params, z: Latents, part: Data) -> None:
        """NaN that a mask hides from the density still spoils its gradient."""
        ppl, holes = self.ppl, self._holes(part)
        _, gradient = ppl.value_and_grad(self.log_density(params, part), z)
        if any(_has_nan(ppl.to_numpy(g)) for g in gradient.values()):
            name = self.reads.names.get(holes[0], holes[0])
            raise PplebmError(
                f"'{name}' holds NaN that makes the gradient of the log density NaN, masked or not; fill it with any "
                f"number where it is masked, for instance where(observed, {name}, 0), before it reaches the model."
            )


def _counted(rows: Flags) -> str:
    return f"{int(rows.sum())} of {len(rows)} rows, the first of them row {int(rows.argmax())}"


def _has_nan(a: Any) -> bool:
    return bool((a != a).any())
