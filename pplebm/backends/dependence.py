"""Which data the sites of a program read: followed through its operations, and by changing rows; never guessed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pplebm.backends.rows import check_rows, differ, row_axes
from pplebm.backends.structure import refuse_bare_factor
from pplebm.backends.visit import At
from pplebm.data.columns import names_of, signature_of
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params, Reads
from pplebm.ppl.trees import n_rows, tree_fill, tree_leaves

if TYPE_CHECKING:
    from pplebm.backends.traced import Traced

MAX_NUMBERS = 64  # of a datum; beyond, an array of mixed use counts as observed whole
Parts = dict[str, np.ndarray]  # path of an array -> which numbers of a datum
Found = dict[str, np.ndarray]


def find_reads(traced: Traced, z: Latents, observed: dict[str, Array]) -> None:
    """Set `traced.reads` and `traced.row_axes`.

    Args:
        traced: its structure, kinds and axes are known.
        z: latents of a first run on its example.
        observed: values of the observed sites there.

    Raises:
        PplebmError: for a tilt or a latent that reads an observed value, a bare factor that reads no data, and rows
            that interact.
    """
    _Finder(traced, z, observed).find()


class _Finder:
    def __init__(self, traced: Traced, z: Latents, observed: dict[str, Array]) -> None:
        self.traced, self.data, self.z = traced, traced.example, z
        self.leaves = dict(tree_leaves(self.data))
        self.names = names_of(self.data, signature_of(traced.model))
        self.params = _elsewhere(traced, traced.params)
        self.fixed = {name: a for name, a in observed.items() if name not in traced.looped}
        self._probe_at, self._run_values = self._with_numpy(self._probe), self._with_numpy(self._values)
        self._run_probe = lambda data: self._probe_at(data, self.fixed)

    def find(self) -> None:
        traced, s = self.traced, self.traced.structure
        traced.row_axes = row_axes(traced, self.params, self.z, self.data)
        check_rows(traced, self.params, self.z, self.data)
        parts = self._observed_parts()
        reads = self._reads(lambda data: self._probe(data, self.fixed), self._run_probe)
        prior = [site.name for site in (*s.latents, *s.tilts)]
        for name in (*prior, *(o.name for o in s.observed)):
            reads[name] = self._covariates_of(name, reads[name], parts, name in prior)
        for factor in s.factors:
            if factor.distribution == "factor" and not reads[factor.name]:
                raise refuse_bare_factor(factor.name, traced.ppl_name)
        fed = self._fed()
        self._refuse_fed(fed)
        generator = {o.name for o in s.observed if reads[o.name]}
        covariates = [n for path, name in self.names.items() for n in self._unobserved(path, name, parts)]
        looped = traced.looped & {o.name for o in s.observed}  # what they feed is not found out, so it may be all
        fed_sites = {o.name for o in s.observed if fed.get(o.name)} | looped
        traced.reads = Reads(
            prior=frozenset(name for name in prior if reads[name]),
            generator=frozenset(generator),
            deterministic=frozenset(d.name for d in s.deterministic if reads[d.name]),
            derived={d.name: frozenset(fed.get(d.name, set()) | looped) for d in s.deterministic},
            fed=frozenset(fed_sites),
            fed_latents=frozenset(site.name for site in s.latents if fed.get(site.name)),
            covariates=tuple(covariates),
            names={path: self.names[path] for path in self.leaves},
            parts={path: bool(mask.all()) for path, mask in parts.items()},
            whole=self._whole,
        )

    # --- runs

    def _probe(self, data: Data, fixed: Mapping[str, Array]) -> dict[str, Array]:
        """Everything that could read data, the values of observed sites held."""
        looped = any(site.name in self.traced.looped for site in self.traced.structure.observed)
        at = At(self.z, fixed=fixed, plain=True, generate=looped)  # values inside a loop cannot be held: they draw
        visit = self._run(data, at, self.traced.first_key if looped else None)
        values = {d.name: visit.sites[d.name]["value"] for d in self.traced.structure.deterministic}
        return visit.terms | values

    def _values(self, data: Data) -> dict[str, Array]:
        """What observed sites get."""
        s = self.traced.structure
        visit = self._run(data, At(given=True, observed=False) if s.given else At(self.z))
        return {name: visit.sites[name]["value"] for name in s.given or [site.name for site in s.observed]}

    def _with_numpy(self, function: Callable[..., dict[str, Array]]) -> Callable[..., Found]:
        """The function with results of NumPy."""
        evaluate = self.traced.evaluator(function)
        return lambda *trees: {name: self.traced.numpy(a) for name, a in evaluate(*trees).items()}

    def _run(self, data: Data, at: Any, key: Any = None) -> Any:
        """A run on exchanged data, which may leave supports: backends warn of that."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.traced.run(self.params, data, at, key)

    def _changed(self, run: Callable[[Data], Found], parts: Parts) -> set[str]:
        """Results of a run that change when these numbers are exchanged; all of them if the model then fails."""
        before, found = run(self.data), set[str]()
        for data in self._exchanged(parts):
            try:
                after = run(data)
            except PplebmError:
                return set(before)
            found |= {name for name in before if differ(before[name], after[name])}
        return found

    def _exchanged(self, parts: Parts) -> Iterator[Data]:
        """The data with these numbers taken from other rows; where all rows agree, with other numbers."""
        mine = {path: self.traced.numpy(self.leaves[path]) for path in parts}
        options = [{path: np.roll(a, -1, 0) for path, a in mine.items()}] if n_rows(self.data) > 1 else []
        others = [] if self.traced.others is None else self.traced.others()
        options += [{path: self.traced.numpy(a) for path, a in tree_leaves(other)} for other in others]
        fresh = {path: a.copy() for path, a in mine.items()}
        moved = {path: np.zeros(a.shape[1:], bool) for path, a in mine.items()}
        for option in options:
            new = {}
            for path, mask in parts.items():
                moved[path] |= (option[path] != mine[path]).any(0)
                new[path] = np.where(mask, option[path], mine[path])
            yield self._filled(new)
        if any((mask & ~moved[path]).any() for path, mask in parts.items()):
            for path, mask in parts.items():
                fresh[path] = np.where(mask & ~moved[path], _other_numbers(mine[path]), mine[path])
            yield self._filled(fresh)

    def _filled(self, new: Parts) -> Data:
        arrays = {path: self.traced.like(new[path], self.leaves[path]) for path in new}
        return tree_fill(self.data, self.leaves | arrays)

    # --- what is read

    def _reads(self, function: Callable[[Data], Any], run: Callable[[Data], Found]) -> dict[str, set[str]]:
        """By result of a function, paths of the arrays it may depend on: through operations, else by exchanging rows.

        A `run` is the function with results of NumPy.
        """
        followed = self.traced.dependencies(function, self.data)
        if followed is not None:
            return followed
        whole = {path: np.ones(tuple(a.shape[1:]), bool) for path, a in self.leaves.items()}
        by_path = {path: self._changed(run, {path: mask}) for path, mask in whole.items()}
        return {name: {p for p, changed in by_path.items() if name in changed} for name in run(self.data)}

    def _observed_parts(self) -> Parts:
        """By array, which of its numbers observed sites get as their values."""
        found: Parts = {}
        self._whole: dict[str, str] = {}  # observed site -> the array it is, number by number
        values = self._run_values(self.data) if self.traced.structure.observed or self.traced.structure.given else {}
        reads = self._reads(self._values, self._run_values) if values else {}
        for site, value in values.items():
            for path in reads[site]:
                leaf = self.traced.numpy(self.leaves[path])
                if value.size == leaf.size and _equal(self._rows_first(site, value), leaf):
                    self._whole[site] = path
                    mask = np.ones(leaf.shape[1:], bool)
                elif leaf.dtype == bool and value.dtype != bool:
                    continue  # it says which values are taken, and is none of them
                else:
                    mask = self._numbers_of(site, path, leaf.shape[1:])
                found[path] = found.get(path, np.zeros(leaf.shape[1:], bool)) | mask
        return found

    def _rows_first(self, site: str, value: np.ndarray) -> np.ndarray:
        axis = self.traced.coordinate_axes.get(site)
        return value if axis is None or value.ndim <= axis else np.moveaxis(value, axis, 0)

    def _numbers_of(self, site: str, path: str, shape: tuple[int, ...]) -> np.ndarray:
        mask = np.ones(shape, bool)
        if mask.size == 1 or mask.size > MAX_NUMBERS:
            return mask
        for index in np.ndindex(shape):
            one = np.zeros(shape, bool)
            one[index] = True
            mask[index] = site in self._changed(self._run_values, {path: one})
        return mask

    def _covariates_of(self, site: str, paths: set[str], parts: Parts, is_prior: bool) -> set[str]:
        """Of the arrays that a site reads, those of which it reads more than observed numbers, if these at all."""
        kept = set()
        for path in paths:
            mask = parts.get(path)
            if mask is not None and mask.any():
                reads_observed = site in self._changed(self._run_probe, {path: mask})
                if reads_observed and is_prior:
                    raise self._refusal(site, self.names[path])
                if mask.all() and not reads_observed:
                    continue  # its shape alone, or times zero
            kept.add(path)
        return kept

    def _refusal(self, site: str, of: str) -> PplebmError:
        s = self.traced.structure
        what = "tilt" if site in {t.name for t in s.tilts} else "latent"
        return PplebmError(
            f"{what} '{site}' reads the observed value of '{of}', so it would be a likelihood and no prior; write "
            f"likelihood_factor('{site}', ...) or an observed sample statement, or give what it reads as a covariate "
            f"of its own."
        )

    def _fed(self) -> dict[str, set[str]]:
        """By site, the observed sites whose values its operations take in, itself left out.

        Where they cannot be followed, a deterministic site may depend on any.
        """
        followed = self.traced.dependencies(lambda fixed: self._probe(self.data, fixed), self.fixed)
        if followed is not None:
            return {site: of - {site} for site, of in followed.items()}
        return self._fed_by_change() | {d.name: set(self.fixed) for d in self.traced.structure.deterministic}

    def _fed_by_change(self) -> dict[str, set[str]]:
        """By site, the observed sites whose values change it: a value that is taken in for its shape alone does not."""
        found: dict[str, set[str]] = {}
        before = self._probe_at(self.data, self.fixed)
        for name, value in self.fixed.items():
            a = self.traced.numpy(value)
            other = self.traced.like(np.roll(a, 1, 0) if a.ndim and len(a) > 1 else a, value)
            if not differ(a, self.traced.numpy(other)):
                other = self.traced.like(_other_numbers(a), value)
            after = self._probe_at(self.data, self.fixed | {name: other})
            for site in before:
                if site != name and differ(before[site], after[site]):
                    found.setdefault(site, set()).add(name)
        return found

    def _refuse_fed(self, fed: dict[str, set[str]]) -> None:
        s = self.traced.structure
        fed_sites = [site.name for site in (*s.tilts, *(s.latents if s.tilts else ())) if fed.get(site.name)]
        changed = self._fed_by_change() if fed_sites else {}
        for site in fed_sites:
            if changed.get(site):
                raise self._refusal(site, sorted(changed[site])[0])

    def _unobserved(self, path: str, name: str, parts: Parts) -> list[str]:
        """What of an array is a covariate, as a person calls it."""
        mask = parts.get(path)
        if mask is None:
            return [name]
        if mask.all():
            return []
        return [f"{name}[{','.join(map(str, index))}]" for index in np.argwhere(~mask).tolist()]


def _elsewhere(traced: Traced, params: Params) -> Params:
    """Parameters near the given ones, at which nothing is 0 by its start alone."""
    rng, found = np.random.default_rng(0), {}
    for name, p in params.items():
        a = traced.numpy(p)
        found[name] = traced.like(a + 0.1 * rng.normal(size=a.shape), p)
    return found


def _other_numbers(a: np.ndarray) -> np.ndarray:
    if a.dtype == bool:
        return ~a
    return a + 1 if a.dtype.kind in "iu" else a + 0.37 * (1.0 + np.abs(a))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a.ravel().astype(float), b.ravel().astype(float), equal_nan=True))
