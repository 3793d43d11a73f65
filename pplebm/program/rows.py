"""Data of a program: what a user gives, as rows of arrays in the structure that the model is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import Data, Latents
from pplebm.ppl.trees import n_rows, tree_map
from pplebm.program.found import Found


class Rows(Found):
    """The part of a program that reads data and sees that rows are there where they are needed."""

    signature: columns.Signature
    levels: dict[str, tuple[str, ...]]  # of columns of text

    def data(self, source: Any) -> Data:
        """What a user gives, as arrays of the backend in the structure that the model is called with; dtypes are kept.

        Args:
            source: an array of NumPy, torch or JAX, a mapping of names to arrays, a data frame, or a tuple. Columns of
                text become codes of the levels they had in the first data, `program.levels`.

        Raises:
            PplebmError: for names or levels that are not known, or arrays of different numbers of rows.
        """
        tree, levels = columns.read(source, self.signature, self.levels)
        self.levels = levels | self.levels
        return tree_map(lambda a: self.ppl.asarray(a, keep=True), tree)

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Data:
        """Arguments of a call of the model, such as those the backend's SVI makes, as data of this program."""
        names = dict(zip(self.signature.names, args, strict=False)) | dict(kwargs)
        if isinstance(self.example, Mapping):
            return self.data({name: names[name] for name in self.example if name in names})
        found = tuple(names.values()) if names else args
        return self.data(found[: len(self.example)] if isinstance(self.example, tuple) else found[0])

    def prior_rows(self, data: Data) -> Data | int:
        """What draws of the prior need to know of data: the data where the prior reads covariates, else how many."""
        return data if self.prior_reads else n_rows(data)

    def _data_for(self, rows: Data | int | None, z: Latents | None, what: str, reads: bool) -> Data:
        """Data that a run reads; where it reads none, any rows, as many as are wanted or as there are latents."""
        if rows is None:
            assert z is not None
            rows = len(next(iter(z.values())))
        if not isinstance(rows, int):
            return rows
        if reads:
            sites = (
                sorted(self.reads.prior) if self.prior_reads and what != "simulate" else sorted(self.reads.generator)
            )
            raise PplebmError(
                f"{what} needs the covariates {', '.join(self.covariates) or 'of the data'}, which site "
                f"'{(sites or ['?'])[0]}' reads; give the data they are in, one row for every row wanted."
            )
        return self._traced.rows(rows)

    @property
    def _needs_data(self) -> bool:
        """Whether values of latents depend on data: in noncentered coordinates, where the prior does."""
        return self.prior_reads and self.coordinates != "centered"

    def _check_latents(self, z: Latents, data: Data | None) -> None:
        n = None if data is None or self.has_global_latents else n_rows(data)
        for site in self.latents:
            if site.name not in z:
                raise PplebmError(f"latents lack site '{site.name}'; got {sorted(z)}.")
            shape = tuple(z[site.name].shape)
            n = shape[0] if n is None and shape else n
            if shape != (n, *site.shape):
                raise PplebmError(f"latent '{site.name}' has shape {shape}; expected {(n, *site.shape)}.")
