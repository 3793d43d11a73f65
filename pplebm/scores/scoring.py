r"""What scores are made of, for the data of one call: averages by datum, made when a score first asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.estimators import log_evidence, log_z
from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.blocks import batch_seed, block_seed
from pplebm.sampling.wide import batch_rows
from pplebm.scores.conditional import conditional_draws, layers_of
from pplebm.scores.posterior import SQUARED_ERROR, ByChain, Posterior, adjusted, averages, of_all
from pplebm.scores.settings import Settings


class Score(NamedTuple):
    """Scores of data, (n,), higher the more anomalous, and their Monte Carlo errors; nats unless the score says not."""

    name: str
    value: np.ndarray
    error: np.ndarray  # standard error of the estimator; NaN with the value where that cannot be trusted

    @property
    def is_trusted(self) -> np.ndarray:
        """Which scores are there, (n,)."""
        return np.isfinite(self.value)


class Constants(NamedTuple):
    """How log p(x) of all data of a call, and log Z at them, are found."""

    log_evidence: Callable[[Data], Evidence]
    log_z: Callable[[Data | None], Evidence]


def estimated(program: Program, params: Params, how: Settings) -> Constants:
    """Constants by the estimators of `pplebm.log_evidence` and `pplebm.log_z`."""
    common: dict[str, Any] = {"params": params} | how.of_evidence
    of_prior = {name: value for name, value in common.items() if name != "n_particles"}
    return Constants(
        lambda data: log_evidence(program, data, **common),
        lambda data: log_z(program, data, **of_prior),
    )


class Scoring:
    """Averages over latents of every datum, for the scores of one call.

    Args:
        program: any without global latents.
        data: n rows, as the program's arrays.
        params: of the program.
        how: settings.
        posterior: where latents given data come from; adjusted chains if left out.
        constants: where log p(x) and log Z come from; estimators if left out.
        normal: the same for data known to be normal, which typicality needs.
        squares: whether squared errors of reconstruction are wanted.

    Raises:
        PplebmError: for global latents, or data that leave the support.
    """

    def __init__(
        self,
        program: Program,
        data: Data,
        params: Params,
        how: Settings,
        posterior: Posterior | None = None,
        constants: Constants | None = None,
        normal: Scoring | None = None,
        squares: bool = False,
    ) -> None:
        program.refuse_global_latents("a score of every datum")
        program.check_data(data, params)
        self.program, self.data, self.params, self.how, self.normal = program, data, params, how, normal
        self.posterior = posterior or adjusted(program, params, how)
        self.constants = constants or estimated(program, params, how)
        self.squares = squares
        if squares:
            self._refuse_imputed()
        self._last: list[dict[str, np.ndarray]] = []  # the last draw of every chain, by batch
        self._above: dict[int, ByChain] = {}

    @cached_property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """Layers of latents, next to the data first."""
        return layers_of(self.program, self.how.layers)

    # --- averages

    @cached_property
    def terms(self) -> ByChain:
        """Posterior means of the log density of every site, tilt and factor, (chains, n)."""
        parts = []
        for i, part, n in self._batches():
            latents = self.posterior(part, batch_seed(self.how.seed, i))
            self._last.append(of_all(latents, -1))
            found = averages(self.program, self.params, part, latents, self.squares)
            parts.append({name: a[:, :n] for name, a in found.items()})
        return _joined(parts)

    @property
    def squared_error(self) -> np.ndarray:
        """Posterior mean of the squared distance between data and their mean given z, (chains, n).

        Raises:
            PplebmError: for data that have no mean given z, such as those of a Student law of one degree of freedom.
        """
        if SQUARED_ERROR not in self.terms:
            raise PplebmError("squared errors are of a Scoring that was made with squares=True.")
        found = self.terms[SQUARED_ERROR]
        if bad := int((~np.isfinite(found)).any(0).sum()):
            raise PplebmError(
                f"the mean given the latents of {bad} of {found.shape[1]} data is not finite, so there is no squared "
                f"error; score by 'likelihood'."
            )
        return found

    def above(self, k: int) -> ByChain:
        """Means with z above layer k from the posterior, and the layers below from the tilted prior given these.

        Raises:
            PplebmError: for k that is none of 1 to one less than there are layers.
        """
        if not 1 <= k < len(self.layers):
            raise PplebmError(
                f"k = {k} leaves no layer below or above: the program has {len(self.layers)} layers, "
                f"{', '.join('+'.join(layer) for layer in self.layers)}, next to the data first."
            )
        if k not in self._above:
            _ = self.terms  # whose chains end where these begin
            held = [site for layer in self.layers[k:] for site in layer]
            parts = []
            for i, part, n in self._batches():
                found = self._lower(part, self._last[i], held, block_seed(batch_seed(self.how.seed, i), k))
                parts.append({name: a[:, :n] for name, a in found.items()})
            self._above[k] = _joined(parts)
        return self._above[k]

    def _lower(self, part: Data, last: dict[str, np.ndarray], held: list[str], seed: int) -> ByChain:
        ppl, how = self.program.ppl, self.how
        n_chains, n = next(iter(last.values())).shape[:2]
        z = {site: ppl.asarray(a.reshape(-1, *a.shape[2:]), keep=True) for site, a in last.items()}
        rows = take_rows(part, ppl.asarray(np.tile(np.arange(n), n_chains)))
        draws = conditional_draws(
            self.program, self.params, z, held, rows, n_draws=how.n_draws_lower, n_warmup=how.n_warmup_lower, seed=seed
        )
        by_chain = lambda a: ppl.to_numpy(a).reshape(n_chains, n, *a.shape[1:])
        latents = {site: np.stack([by_chain(draw[site]) for draw in draws], 1) for site in last}
        return averages(self.program, self.params, part, latents, False)

    # --- sums of them, (chains, n)

    def likelihood(self, terms: ByChain | None = None) -> np.ndarray:
        """log p(x|z), factors of the likelihood included."""
        return self._sum(terms, (*self.program.observed, *self.program.factors))

    def base(self, terms: ByChain | None = None) -> np.ndarray:
        """log p₀(z)."""
        return self._sum(terms, self.program.latents)

    def tilt(self, terms: ByChain | None = None) -> np.ndarray:
        """Sum of the tilts f(z)."""
        return self._sum(terms, self.program.tilts)

    def log_joint(self, terms: ByChain | None = None) -> np.ndarray:
        """log p(x|z) + log p₀(z) + f(z)."""
        return self.likelihood(terms) + self.base(terms) + self.tilt(terms)

    def _sum(self, terms: ByChain | None, sites: Any) -> np.ndarray:
        found = self.terms if terms is None else terms
        zero = 0.0 * next(iter(found.values()))
        return sum((found[site.name] for site in sites), zero)

    # --- constants

    @cached_property
    def evidence(self) -> Evidence:
        """log p(x) of every datum."""
        return self.constants.log_evidence(self.data)

    @cached_property
    def log_z(self) -> Evidence:
        """log Z, one or one for every row."""
        return self.constants.log_z(self.data if self.program.prior_reads else None)

    # --- helpers

    def _batches(self) -> Iterator[tuple[int, Data, int]]:
        """Number, rows, and how many of these count; the last batch is filled up, so that shapes repeat."""
        n = n_rows(self.data)
        size = batch_rows(self.program, self.data, self.how.n_chains, n, self.how.rows_at_once) // self.how.n_chains
        for i, at in enumerate(range(0, n, size)):
            rows = np.arange(at, at + size) % n
            yield i, take_rows(self.data, self.program.ppl.asarray(rows)), n - at

    def _refuse_imputed(self) -> None:
        """A squared error over numbers that are missing would be one to what fills their place."""
        names = {site.name for site in self.program.latents}
        for site in self.program.observed:
            if site.name.endswith("_observed") and f"{site.name.removesuffix('_observed')}_unobserved" in names:
                raise PplebmError(
                    f"observed site '{site.name}' is masked and imputed, so there is no squared error of all its "
                    f"numbers; score by 'likelihood', which leaves out what is missing."
                )


def _joined(parts: list[ByChain]) -> ByChain:
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
