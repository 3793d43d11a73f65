"""Draws of a program: of latents without the tilts, and of observations given latents."""

from __future__ import annotations

from typing import Any

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import tree_fill, tree_leaves
from pplebm.program.rows import Rows


class Draws(Rows):
    """The part of a program that runs its model forward."""

    def draw_base(self, key: Any, rows: Data | int, params: Params | None = None, given: Data | None = None) -> Latents:
        """Draw latents ancestrally, tilts ignored: draws of the base, not of the prior.

        Args:
            key: of the backend.
            rows: how many; or data, for one draw at the covariates of every row.
            params: the program's own if left out.
            given: data for any number of draws of a joint program, whose whole data are one datum.

        Raises:
            PplebmError: for a number of rows where the prior reads covariates, or an improper latent.
        """
        return self._drawn(key, rows, params, given, start=False)

    def draw_start(
        self, key: Any, rows: Data | int, params: Params | None = None, given: Data | None = None
    ) -> Latents:
        """The same as a start of chains: latents without draws of their own start uniformly in [-2, 2]."""
        return self._drawn(key, rows, params, given, start=True)

    def _drawn(self, key: Any, rows: Data | int, params: Params | None, given: Data | None, start: bool) -> Latents:
        params = self._own(self.params if params is None else params)
        n = rows if isinstance(rows, int) else 1
        if given is None or not isinstance(rows, int):
            reads = self.prior_reads or bool(self.reads.fed_latents)
            given = self._data_for(rows, None, "a draw of the prior", reads)
        return self._traced.draw(key, n, params, given, self.coordinates, start)

    def simulate(
        self, key: Any, rows: Data | int, params: Params | None = None, base: bool = False
    ) -> dict[str, Array]:
        """Simulate data forward from the program: observed sites, (n, *event), in the model's own order.

        Args:
            key: of the backend.
            rows: how many; or data whose covariates to simulate at, their observed values left alone.
            params: the program's own if left out.
            base: ignore the tilts.

        Raises:
            PplebmError: for a tilted program unless `base=True`, because forward simulation ignores tilts; for a number
                of rows where a site reads covariates.
        """
        if self.tilts and not base:
            names = ", ".join(f"'{t.name}'" for t in self.tilts)
            raise PplebmError(
                f"forward simulation would ignore the tilt {names}; draw from the tilted prior with a chain "
                f"(run.sample_data), or ask for the base with base=True."
            )
        params = self.params if params is None else params
        k_latents, k_data = self.ppl.split(key)
        z = self.draw_base(k_latents, rows, params)
        return self.predict(params, z, k_data, None if isinstance(rows, int) else rows)

    def predict(self, params: Params, z: Latents, key: Any | None = None, data: Data | None = None) -> dict[str, Array]:
        """Means of the observed sites given latents, (B, *event); draws when a key is given.

        The mean of a site that reads the value of another observed site is the mean over a thousand draws of that one.

        Args:
            params: of the program.
            z: latents, (B, *event).
            key: of the backend.
            data: with the covariates of these rows, where an observed site or the prior reads any; what is observed in
                them is not looked at, unless the model itself reads it.
        """
        return self._observed(params, z, key, data, [])

    def generate(
        self, params: Params, z: Latents, key: Any | None = None, data: Data | None = None
    ) -> dict[str, Array]:
        """What `predict` gives, and the deterministic sites of the same run; those that read data need them."""
        unknown = frozenset() if data is not None else self.reads.deterministic
        return self._observed(params, z, key, data, [d.name for d in self.deterministic if d.name not in unknown])

    def _observed(
        self, params: Params, z: Latents, key: Any | None, data: Data | None, fixed: list[str]
    ) -> dict[str, Array]:
        self._check_latents(z, data)
        if self.given:
            return self._traced.constrain(self._own(params), z, self._data_for(data, z, "simulate", self.prior_reads),
                                          self.coordinates)  # fmt: skip
        rows = self._data_for(data, z, "simulate", self.generator_reads or self._needs_data)
        return self._traced.predict(self._own(params), z, rows, self.coordinates, key, fixed)

    def with_observed(self, values: dict[str, Array], rows: Data | int) -> Data:
        """Data in the structure of the model whose observed sites have other values, such as simulated ones.

        Args:
            values: of every observed site, as `predict` gives them.
            rows: data whose other arrays stay as they are; or how many rows, where all arrays are observed.

        Raises:
            PplebmError: for a site whose value is a part of an array, or made of several; or data that lack arrays.
        """
        tree = self._traced.rows(rows) if isinstance(rows, int) else rows
        leaves = dict(tree_leaves(tree))
        for site in self.observed:
            if site.name not in self.reads.whole:
                raise PplebmError(
                    f"observed site '{site.name}' is no array of the data, number by number, so that simulated values "
                    f"have no place in them; give the model that array as an argument of its own."
                )
            path = self.reads.whole[site.name]
            leaves[path] = values[site.name].reshape(leaves[path].shape)
        observed = {self.reads.whole[site.name] for site in self.observed}
        if isinstance(rows, int) and (others := sorted(set(leaves) - observed)):
            names = ", ".join(self.reads.names.get(path, path) for path in others)
            raise PplebmError(f"data have {names} beside what is observed; give the rows that these are to be of.")
        return tree_fill(tree, leaves)

    def observed_data(self, data: Data) -> dict[str, Array]:
        """Values of the observed sites when the program is called with data: the data, or what it makes of them."""
        return self._traced.observed_data(self._own(self.params), self._some_latents(data), data)

    def observed_masks(self, data: Data) -> dict[str, Array]:
        """Which of these values count, by observed site that is masked, of the same shapes."""
        return {} if self.given else self._traced.observed_masks(self._own(self.params), self._some_latents(data), data)

    def _some_latents(self, data: Data) -> Latents:
        z = self._traced.draw(self.ppl.key(0), 1, self._own(self.params), data, "centered", True)
        return {name: a[0] for name, a in z.items()} if self.has_global_latents else z
