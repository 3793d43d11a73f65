"""A program as unnormalised densities, one number per datum: what is the same for every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pplebm.backends import dependence
from pplebm.backends.model_runs import ModelRuns
from pplebm.backends.rows import JointOnPart
from pplebm.backends.structure import coordinate_axis, plates_of, row_axis
from pplebm.backends.visit import At, Visit
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows

N_MEAN = 1000  # draws in the mean of an observed site that another one feeds


class Traced(ModelRuns):
    """What `pplebm.Program` asks of a model; see `pplebm.ppl.language.Traced` for the contract of each method."""

    def note(self, sites: dict[str, Any]) -> None:
        """Kinds and axes of the sites of a first run.

        Raises:
            JointOnPart: for a joint program that was not run on all of its data.
        """
        s = self.structure
        if s.has_global_latents and self.others is not None:
            raise JointOnPart
        groups = {"latent": s.latents, "observed": s.observed, "tilt": s.tilts, "factor": s.factors}
        self.kinds = {site.name: kind for kind, group in groups.items() for site in group}
        self.kinds |= {site.name: "deterministic" for site in s.deterministic}
        local = [site.name for site in (*s.latents, *s.observed) if site.is_local]
        self.coordinate_axes = {} if s.has_global_latents else {n: coordinate_axis(sites[n], s.plate) for n in local}
        self.looped = frozenset(n for n in self.kinds if sites[n].get("_control_flow_done"))
        self.improper = frozenset(n for n in self.kinds if sites[n].get("is_improper"))

    def find(self, z: Latents, observed: dict[str, Array]) -> None:
        """Note which data the sites read, from latents and observed values of a first run."""
        self.dtypes = {name: self.numpy(u).dtype for name, u in z.items()}
        self.row_axes: dict[str, int | None] = {}
        dependence.find_reads(self, z, observed)

    def sort_parameters(self, found: dict[str, set[str]]) -> None:
        """Note which parameters enter the tilts alone, the prior, and any density, from those that each site reads."""
        s = self.structure
        tilt, base, likelihood = (
            frozenset().union(*(found[site.name] for site in group))
            for group in (s.tilts, s.latents, (*s.observed, *s.factors))
        )
        self.tilt_params = tilt - base - likelihood
        self.prior_params = tilt | base
        self.reached_params = tilt | base | likelihood

    def site(self, name: str) -> Any:
        """The latent of that name."""
        return next(site for site in self.structure.latents if site.name == name)

    def placed(self, a: Array, axis: int | None) -> Array:
        """Rows first, (B, ...), to where a site has them; nothing to do in a joint program."""
        return a if axis is None or self.structure.has_global_latents else self.moved_axis(a, 0, axis)

    def first(self, msg: Any, value: Array) -> Array:
        """A site's value with rows first."""
        plate = self.structure.plate
        if self.structure.has_global_latents:
            return value
        if self.kinds.get(msg["name"]) == "deterministic":
            axis = self.row_axes[msg["name"]]
            return value if axis is None else self.moved_axis(value, axis, 0)
        return self.moved_axis(value, row_axis(value.ndim, msg, plate), 0)

    def rows(self, n: int) -> Data:
        """n rows for runs that read none of them; the whole data of a joint program."""
        if self.structure.has_global_latents:
            return self.example
        size = n_rows(self.example)
        if n == size:
            return self.example
        return self.evaluate(
            ("rows", n), lambda data: take_rows(data, self.index([i % size for i in range(n)])), self.example
        )

    # --- densities

    def terms(self, params: Params, z: Latents, data: Data, coordinates: str, observed: bool) -> dict[str, Array]:
        """Log density of every site, (B,) each."""
        return self.graph(("terms", coordinates, observed), self.eager(coordinates, observed), params, z, data)

    def eager(self, coordinates: str, observed: bool) -> Callable[[Params, Latents, Data], dict[str, Array]]:
        """The same by running the program."""

        def eager(params: Params, z: Latents, data: Data) -> dict[str, Array]:
            return self.by_chain(lambda z: self.run(params, data, At(z, coordinates, observed)).terms, z)

        return eager

    def pointwise(self, params: Params, z: Latents, data: Data, coordinates: str) -> dict[str, Array]:
        """Log density of every observed site by datum."""
        names = [site.name for site in self.structure.observed]

        def eager(params: Params, z: Latents, data: Data) -> dict[str, Array]:
            terms = self.by_chain(lambda z: self.run(params, data, At(z, coordinates, by_datum=True)).terms, z)
            return {name: terms[name] for name in names}

        with self.off_gradient():
            return self.graph(("pointwise", coordinates), eager, params, z, data)

    # --- latents: draws, values, coordinates

    def draw(self, key: Any, n: int, params: Params, data: Data, coordinates: str, start: bool = False) -> Latents:
        """Ancestral draws that ignore the tilts; n of a joint program, one per row of the data otherwise."""
        at = At(observed=False, generate=bool(self.reads.fed_latents), start=start)

        def drawn(keys: Any, params: Params, data: Data) -> Latents:
            one = lambda key: self.moved(self.run(params, data, at, key), coordinates)
            return self.draw_chains(one, keys) if self.structure.has_global_latents else one(keys)

        keys = self.splits(key, n) if self.structure.has_global_latents else key
        with self.off_gradient():
            return self.evaluate(("draw", coordinates, start), drawn, keys, params, data)

    def draw_chains(self, drawn: Callable[[Any], Latents], keys: Any) -> Latents:
        """One draw per key."""
        runs = [drawn(key) for key in keys]
        return {name: self.stacked([run[name] for run in runs]) for name in runs[0]}

    def moved(self, visit: Visit, coordinates: str) -> Latents:
        """Coordinates of the latents that a run passed, rows first."""
        found = {}
        for site in self.structure.latents:
            msg = visit.sites[site.name]
            u = self.to_coordinates(msg, coordinates)
            axis = self.coordinate_axes.get(site.name)
            found[site.name] = u if axis is None else self.moved_axis(u, axis, 0)
        return found

    def given(self, params: Params, data: Data, coordinates: str) -> Latents:
        """Coordinates of the latents that data are values of."""
        eager = lambda params, data: self.moved(self.run(params, data, At(given=True, observed=False)), coordinates)
        with self.off_gradient():
            return self.evaluate(("given", coordinates), eager, params, data)

    def given_terms(self, params: Params, data: Data) -> dict[str, Array]:
        """Log density of every site at these values, in their own supports, (B,) each."""
        eager = lambda params, data: self.run(params, data, At(given=True)).terms
        with self.off_gradient():
            return self.evaluate("given terms", eager, params, data)

    def move(self, params: Params, z: Latents, data: Data, coordinates: str, target: str) -> Latents:
        """The same latents in other coordinates."""

        def eager(params: Params, z: Latents, data: Data) -> Latents:
            run = lambda z: self.run(params, data, At(z, coordinates, observed=False))
            return self.by_chain(lambda z: self.moved(run(z), target), z)

        return self.graph(("move", coordinates, target), eager, params, z, data)

    def constrain(self, params: Params, z: Latents, data: Data, coordinates: str) -> dict[str, Array]:
        """Values of the latents and of the deterministic sites, rows first.

        Deterministic sites that depend on an observed value which the data lack are left out.
        """

        def values(params: Params, z: Latents, data: Data) -> dict[str, Array]:
            sites = self.run(params, data, At(z, coordinates, observed=False)).sites
            is_known = lambda name: all(sites[of]["is_observed"] for of in self.reads.derived[name])
            known = [s.name for s in self.structure.deterministic if self.has_rows(s.name) and is_known(s.name)]
            names = [*(s.name for s in self.structure.latents), *known]
            return {name: self.first(sites[name], sites[name]["value"]) for name in names}

        by_chain = lambda params, z, data: self.by_chain(lambda z: values(params, z, data), z)
        with self.off_gradient():
            return self.evaluate(("constrain", coordinates), by_chain, params, z, data)

    def has_rows(self, name: str) -> bool:
        """Whether a site has a value for every datum: a deterministic one outside the data plate may have none."""
        return self.structure.has_global_latents or self.row_axes.get(name, 0) is not None

    def unconstrain(self, params: Params, values: dict[str, Array], data: Data, coordinates: str) -> Latents:
        """Coordinates of given site values: the inverse of `values`."""
        axes = {s.name: self.coordinate_axes.get(s.name) for s in self.structure.latents}

        def inverse(params: Params, values: dict[str, Array], data: Data) -> Latents:
            placed = {name: self.placed(values[name], axis) for name, axis in axes.items()}
            return self.moved(self.run(params, data, At(values=placed, observed=False)), coordinates)

        by_chain = lambda params, values, data: self.by_chain(lambda values: inverse(params, values, data), values)
        return self.evaluate(("unconstrain", coordinates), by_chain, params, {n: values[n] for n in axes}, data)

    # --- observations

    def predict(
        self, params: Params, z: Latents, data: Data, coordinates: str, key: Any, fixed: list[str]
    ) -> dict[str, Array]:
        """Draws of the observed sites given the latents, or means without a key; deterministic sites of the run."""
        if not self.structure.observed:
            raise PplebmError(
                f"the program has no observed site; condition one with {self.ppl_name}.sample(..., obs=x)."
            )
        with self.off_gradient():
            fixed = [name for name in fixed if self.has_rows(name)]
            if key is not None:
                return self._generated(params, z, data, coordinates, key, False, fixed)
            with_means = lambda key: self._generated(params, z, data, coordinates, key, True, fixed)
            found = with_means(self.first_key)
            if fed := self.reads.fed | {
                name for name in fixed if self.reads.derived[name]
            }:  # the mean over what feeds them
                some = lambda key: {name: with_means(key)[name] for name in fed}
                found |= self.averaged(some, self.splits(self.first_key, N_MEAN))
            return found

    def _generated(
        self,
        params: Params,
        z: Latents,
        data: Data,
        coordinates: str,
        key: Any,
        means: bool,
        fixed: list[str],
    ) -> dict[str, Array]:
        observed = [site.name for site in self.structure.observed]

        def one(params: Params, z: Latents, data: Data, key: Any) -> dict[str, Array]:
            sites = self.run(params, data, At(z, coordinates, generate=True), key).sites
            seen = {name: self.mean(sites[name]) if means else sites[name]["value"] for name in observed}
            seen |= {name: sites[name]["value"] for name in fixed}
            return {name: self.first(sites[name], a) for name, a in seen.items()}

        with_keys = lambda params, z, data, key: self.with_keys(lambda z, key: one(params, z, data, key), z, key)
        return self.evaluate(("generate", coordinates, means, *fixed), with_keys, params, z, data, key)

    def observed_data(self, params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Values of the observed sites when the program is called with data, rows first."""
        given = self.structure.given

        def values(params: Params, z: Latents, data: Data) -> dict[str, Array]:
            sites = self.run(params, data, At(given=True, observed=False) if given else At(z)).sites
            names = given or [site.name for site in self.structure.observed]
            return {name: self.first(sites[name], sites[name]["value"]) for name in names}

        return self.evaluate("observed data", values, params, z, data)

    def observed_masks(self, params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Which numbers of the observed sites count, rows first; sites that no mask touches are left out."""

        def masks(params: Params, z: Latents, data: Data) -> dict[str, Array]:
            sites = self.run(params, data, At(z)).sites
            found = {site.name: self.counted(sites[site.name]) for site in self.structure.observed}
            return {name: self.first(sites[name], mask) for name, mask in found.items() if mask is not None}

        return self.evaluate("observed masks", masks, params, z, data)

    def faults(self, params: Params, z: Latents, data: Data) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By observed site, rows with values that are NaN, and rows with values off the support, where they count."""

        given = self.structure.given

        def faults(params: Params, z: Latents, data: Data) -> dict[str, tuple[Array, Array]]:
            sites = self.run(params, data, At(given=True, observed=False) if given else At(z)).sites
            return {name: self._faults_of(sites[name]) for name in given or [o.name for o in self.structure.observed]}

        with self.off_gradient():
            found = self.evaluate("faults", faults, params, z, data)
        return {name: (self.numpy(is_nan), self.numpy(is_outside)) for name, (is_nan, is_outside) in found.items()}

    def _faults_of(self, msg: Any) -> tuple[Array, Array]:
        inside, mask, n_event = self.inside(msg), self.masks_of(msg), msg["fn"].event_dim
        is_nan = msg["value"] != msg["value"]
        is_nan = is_nan.reshape(*is_nan.shape[: is_nan.ndim - n_event], -1).any(-1)
        counts = (inside == inside) if mask is None else mask
        return self._by_row(msg, is_nan & counts), self._by_row(msg, ~inside & counts)

    def _by_row(self, msg: Any, a: Array) -> Array:
        plate = self.structure.plate
        if plate in plates_of(msg):
            a = self.moved_axis(a, plates_of(msg)[plate].dim, 0)
        return a.reshape(len(a), -1).any(1) if a.ndim else a.reshape(1)
