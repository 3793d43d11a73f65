"""Densities of a program, (B,) each, and chains that move in them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params, Site
from pplebm.program.rows import Rows

T = TypeVar("T")


class Densities(Rows):
    """The part of a program that learning and kernels use."""

    _kept: dict[Any, Any]

    def log_terms(
        self, params: Params, z: Latents, data: Data | None = None, observed: bool | None = None
    ) -> dict[str, Array]:
        """Log density of every site, (B,) each.

        Args:
            params: where they are wanted.
            z: latents, (B, *event) by site.
            data: as `program.data` gives them; may be left out if no observed site is wanted and the prior reads none.
            observed: whether observed sites are wanted; by default if there are data.
        """
        if self._found is None and data is not None:
            self._trace(data)
        observed = data is not None if observed is None else observed
        if data is None and observed:
            raise PplebmError("the densities of observed sites need data.")
        self._check_latents(z, data)
        data = self._data_for(data if observed or self.prior_reads else None, z, "log p̃(z)", self.prior_reads)
        return self._traced.terms(self._own(params), z, data, self.coordinates, observed)

    def log_joint(self, params: Params, z: Latents, data: Data) -> Array:
        """log p̃(x, z), (B,): every latent and observed site and every tilt; normalised only up to -log Z."""
        return self.total(self.log_terms(params, z, data))

    def log_prior(self, params: Params, z: Latents, data: Data | None = None) -> Array:
        """log p̃(z), (B,): latent sites and tilts, without the observed sites; data where it reads covariates."""
        return self.total(self.log_terms(params, z, data, observed=False))

    def log_base(self, params: Params, z: Latents, data: Data | None = None) -> Array:
        """log p₀(z), (B,): latent sites without the tilts."""
        return self.total(self.log_terms(params, z, data, observed=False), self.latents)

    def log_tilt(self, params: Params, z: Latents, data: Data | None = None) -> Array:
        """Sum of the tilts f(z), (B,); zero for a program without tilt."""
        return self.total(self.log_terms(params, z, data, observed=False), self.tilts)

    def log_likelihood(self, params: Params, z: Latents, data: Data) -> Array:
        """log p(x|z), (B,): the observed sites and the factors of the likelihood."""
        return self.total(self.log_terms(params, z, data), (*self.observed, *self.factors))

    def log_given(self, params: Params, data: Data, base: bool = False) -> Array:
        """log p̃(x), (B,), of data that are values of all latents, or log p₀(x); in their own supports, without |J|."""
        terms = self._traced.given_terms(self._own(params), data)
        return self.total(terms, self.latents if base else None)

    def log_density(
        self, params: Params, data: Data | None = None, observed: bool | None = None
    ) -> Callable[..., Array]:
        """What kernels move in: log p̃(x, z), or without observed sites log p̃(z), as a function of z.

        The function takes `tilt_strength` and `likelihood_strength` as well, each a number or one per row: they
        multiply the tilts, and the observed sites and factors of the likelihood. Its values have the precision of the
        latents, whatever that of the data is.
        """
        if data is not None and observed is not False:
            self.refuse_given("a chain or an estimator")

        def log_density(z: Latents, tilt_strength: Any = None, likelihood_strength: Any = None) -> Array:
            terms = self.log_terms(params, z, data, observed)
            for strength, group in (
                (tilt_strength, self.tilts),
                (likelihood_strength, (*self.observed, *self.factors)),
            ):
                if strength is not None:
                    terms = terms | {site.name: strength * terms[site.name] for site in group if site.name in terms}
            return self._traced.as_latents(self.total(terms), z)

        return log_density

    def pointwise(self, params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Log density of every observed site by datum, (B,); (n_chains, data) in a joint program."""
        self._check_latents(z, data)
        return self._traced.pointwise(self._own(params), z, data, self.coordinates)

    def total(self, terms: dict[str, Array], sites: tuple[Site, ...] | None = None) -> Array:
        """Sum of the result of `log_terms` over all its sites or some of them, (B,); zero over none."""
        names = list(terms) if sites is None else [site.name for site in sites]
        if not names:
            return 0.0 * next(iter(terms.values()))
        total = terms[names[0]]
        for name in names[1:]:
            total = total + terms[name]
        return total

    def chain(
        self,
        kernel: Any,
        state: Any,
        keys: Any,
        params: Params,
        data: Data | None = None,
        observed: bool | None = None,
    ) -> tuple[Any, Any]:
        """One step of a kernel per key towards p(z|x), or the tilted prior; last state, and infos by step.

        Arguments as in `log_terms`: with data and `observed=False` the chains are those of the prior given covariates.
        """
        observed = data is not None if observed is None else observed
        if observed:
            self.refuse_given("a chain")
        self._check_latents(state.z, data)
        needed = data if observed or self.prior_reads else None
        data = self._data_for(needed, state.z, "a chain of the prior", self.prior_reads)
        return self._traced.chain(self.ppl, kernel, state, keys, self._own(params), data, self.options, observed)

    def compiled(self, name: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
        """A pure function of arrays, compiled by the backend once for all calls that give the same name.

        Whatever the function depends on must be in its arguments, in the name, or in how this program's chains run.
        """
        return self.cached((name, self.options), lambda: self.ppl.compiled(function))

    def cached(self, name: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call with this name and kept with the program."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept
