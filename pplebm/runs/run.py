"""A finished or unfinished run, opened from its folder: samples, reconstructions, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.data import Dataset, Scaling, Windows, columns, load_for
from pplebm.errors import PplebmError
from pplebm.estimation.table import Estimates
from pplebm.evidence.estimate import Evidence
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.language import Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves, tree_map
from pplebm.program import Program
from pplebm.runs import anomaly, estimates, evidence, files, series
from pplebm.runs.manifest import Manifest
from pplebm.runs.opening import data_of, opened
from pplebm.sampling.sampler import sample
from pplebm.sampling.to_arviz import to_arviz
from pplebm.scores.scoring import Score

CHUNK = 512  # data per pass, so that memory does not grow with the data


class Run:
    """A learned model: its folder, program, parameters, and what can be asked of it.

    All arrays are NumPy. Data are in the user's units, as they were given to `pplebm.fit`. Sampling repeats the
    chains of learning unless `n_steps` says otherwise, and is the same for the same `seed`.
    """

    def __init__(self, path: Path, manifest: Manifest, algorithm: Algorithm, params: Params) -> None:
        self.path, self.manifest, self.algorithm, self.params = path, manifest, algorithm, params
        self.scaling, self.event_shape = manifest.scaling, tuple(manifest.data.event_shape)
        self._algorithms: dict[tuple[str, int], Algorithm] = {}

    def __repr__(self) -> str:
        m = self.manifest
        return f"Run({m.model.name} by {m.inference.name}, {m.updates} updates, '{self.path}')"

    @property
    def program(self) -> Program:
        """The program with its learned parameters and, where one was learned, its guide with those of it."""
        return self.algorithm.program

    @property
    def hyper(self) -> Any:
        """Hyperparameters of the algorithm."""
        return self.algorithm.hyper

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl: figures by update."""
        return files.read_metrics(self.path)

    # --- data

    def data(self, x: Any) -> Any:
        """Data in the user's units, as they were given to `pplebm.fit`, as the program's arrays in model units.

        Raises:
            PplebmError: for data of another shape or other names than the run learned from.
        """
        return self.program.data(self._in_model_units(x))

    def load(self, source: Any = None, data_dir: str | Path | None = None) -> Dataset:
        """The data set of this run, or another one as this run would have split and scaled it."""
        source, data_dir = self.manifest.source(source, data_dir)
        if source is None:
            name = self.manifest.data.name
            raise PplebmError(f"the run learned from data in memory ('{name}'), which it does not keep.")
        return data_of(self.program, self.manifest, source, data_dir)

    def held_out(self, source: Any = None, data_dir: str | Path | None = None, n: int | None = None) -> Any:
        """Held-out rows in the user's units, of the data of this run or of another set that is split as they were.

        Args:
            source, data_dir: of another set.
            n: rows, the first ones; all if left out.

        Raises:
            PplebmError: if none are held out.
        """
        data = self.load(source, data_dir)
        if data.n_held_out == 0:
            raise PplebmError(f"no rows of '{data.name}' were held out; give data that the run did not learn from.")
        return self.to_user(data.held_out if n is None else take_rows(data.held_out, slice(0, n)))

    def windows(self, source: Any) -> Windows:
        """A series as windows in model units, cut and scaled as those that the run learned from; see `point_scores`."""
        return series.windows_of(self, source)

    def point_scores(self, source: Any, score: str = "log_evidence", **settings: Any) -> np.ndarray:
        """Anomaly scores of the points of a series, (points,), by a run that learned from windows of one.

        Args:
            source: a series as in `pplebm.data.read_series`, in the user's units.
            score: of `pplebm.scores.SCORES`, averaged over windows; "reconstruction" is of the points themselves.
            settings: as in `anomaly_scores`, and those of `pplebm.runs.series.point_scores`: by_column=True for errors
                of every column of a wide series.
        """
        return series.point_scores(self, self.windows(source), score, **settings)

    def _in_model_units(self, x: Any) -> Any:
        return in_model_units(self.program, self.manifest, x)

    def site_to_user(self, site: str, a: np.ndarray) -> np.ndarray:
        """Values of an observed site in the user's units."""
        path = self.program.reads.whole.get(site)
        scaling = self.scaling if isinstance(self.scaling, Scaling) else self.scaling.of(path)
        return scaling.to_user(a) if path is not None else a

    def to_user(self, data: Any) -> Any:
        """Data in model units, as arrays of NumPy, in the user's units."""
        return self.scaling.to_user(data)

    @property
    def log_jacobian(self) -> float:
        r"""Gain of log densities of a datum, such as `log_evidence`, in the user's units, nats.

        .. math:: \log p(x_{user}) = \log p(x_{model}) + \log |\partial x_{model} / \partial x_{user}|
        """
        shapes = {path: tuple(shape) for path, shape in self.manifest.data.shapes.items()}
        if isinstance(self.scaling, Scaling):
            return self.scaling.log_jacobian(self.event_shape)
        return sum(self.scaling.of(path).log_jacobian(shape) for path, shape in shapes.items())

    # --- latents in coordinates, for those who go on with the program themselves

    def prior_latents(
        self, n: int, seed: int = 0, base: bool = False, n_steps: int | None = None, given: Any = None
    ) -> Latents:
        """n latents of the tilted prior (or of its base) as the program's own arrays, centered coordinates.

        Args:
            n: how many; the number of rows where data are given.
            seed: of the chains.
            base: of the base.
            n_steps: of the chains; those of learning by default.
            given: rows with the covariates that the prior reads, as the program's arrays in model units.
        """
        rows = self._rows(n, given)
        key = self.program.ppl.key(seed)
        if base or not self.program.tilts:
            return self.program.draw_base(key, rows, self.params)
        return self._of("prior", n_steps).prior_latents(key, self.params, rows)

    def _rows(self, n: int, given: Any) -> Any:
        if not self.program.prior_reads:
            return n
        if given is None:
            raise PplebmError(
                f"the prior reads the covariates {', '.join(self.program.covariates)}, so it is another one in every "
                f"row; give given= the rows it is wanted at."
            )
        return given

    def posterior_latents(self, x: Any, seed: int = 0, n_steps: int | None = None) -> Latents:
        """One latent per datum of the posterior, centered coordinates; x in model units."""
        ppl, x = self.program.ppl, tree_map(lambda a: self.program.ppl.asarray(a, keep=True), x)
        return self._of("posterior", n_steps).posterior_latents(ppl.key(seed), self.params, x)

    # --- what most people want

    def sample_prior(
        self, n: int | None = None, seed: int = 0, base: bool = False, n_steps: int | None = None, given: Any = None
    ) -> dict[str, np.ndarray]:
        """Draw n latents of the tilted prior, by site; with `base=True`, of its base, tilts ignored.

        Args:
            n: how many; may be left out where data are given.
            seed, base, n_steps: as in `prior_latents`.
            given: data in the user's units, whose covariates the prior is given: one draw for every row.
        """
        data, n = self._given(n, given)
        return self._numpy(self.program.constrain(self.params, self.prior_latents(n, seed, base, n_steps, data), data))

    def sample_posterior(self, x: Any, seed: int = 0, n_steps: int | None = None) -> dict[str, np.ndarray]:
        """Draw one latent per datum given data x, by site."""

        def values(x: Any, seed: int) -> Any:
            return self.program.constrain(self.params, self.posterior_latents(x, seed, n_steps), x)

        return self._by_chunks(values, x, seed)

    def reconstruct(self, x: Any, seed: int = 0, n_steps: int | None = None) -> Any:
        """Mean of the data given a posterior draw of their latents, (B, *event); by site where there are several."""

        def means(x: Any, seed: int) -> Any:
            return self.program.predict(self.params, self.posterior_latents(x, seed, n_steps), data=x)

        return self._observations(self._by_chunks(means, x, seed))

    def sample_data(
        self,
        n: int | None = None,
        seed: int = 0,
        base: bool = False,
        mean: bool = False,
        n_steps: int | None = None,
        given: Any = None,
    ) -> Any:
        """Draw n data of the model, (n, *event); with `mean=True` without observation noise.

        Args:
            n: how many; may be left out where data are given.
            seed, base, n_steps: as in `prior_latents`.
            mean: means in the place of draws.
            given: data in the user's units, at whose covariates to draw, one datum for every row.

        Returns:
            The values of the observed site, or of several by name, in the user's units.
        """
        data, n = self._given(n, given)
        z = self.prior_latents(n, seed, base, n_steps, data)
        key = None if mean else self.program.ppl.split(self.program.ppl.key(seed), 2)[1]
        return self._observations(self._numpy(self.program.predict(self.params, z, key, data)))

    def anomaly_score(
        self, x: Any, seed: int = 0, n_draws: int | None = None, score: str = "log_evidence", **settings: Any
    ) -> np.ndarray:
        r"""Score data, (n,); higher is more anomalous. By default :math:`-\log p(x)`, nats in model units.

        Args:
            x: data in the user's units.
            seed: of all random numbers.
            n_draws: of each posterior chain, for scores that draw from posteriors.
            score: name of one in `pplebm.scores.SCORES`, such as "log_joint", the unnormalised log posterior of Cui et
                al. (CVPR 2023), or "reconstruction".
            settings: as in `anomaly_scores`.
        """
        found = anomaly.anomaly_scores(self, x, (score,), seed=seed, n_draws=n_draws, **settings)
        return found[score].value

    def anomaly_scores(self, x: Any, names: Sequence[str] = ("log_evidence",), **settings: Any) -> dict[str, Score]:
        """Several scores of data from the same draws, each with its Monte Carlo error.

        Args:
            x: data in the user's units.
            names: of `pplebm.scores.SCORES`, with a number in the place of k.
            settings: `posterior="learned"` for the short runs or guide of learning in the place of chains that accept
                and reject; `normal`, data known to be normal, in the user's units; and those of
                `pplebm.anomaly_scores`.
        """
        return anomaly.anomaly_scores(self, x, names, **settings)

    def log_z(self, given: Any = None, **settings: Any) -> Evidence:
        """Log normalising constant of the tilted prior with its error; computed once, and kept in the run's folder.

        Args:
            given: data in the user's units with the covariates that the prior reads.
            settings: of `pplebm.log_z`: `method`, `n_particles`, `seed`, `rows_at_once`, `progress`.
        """
        return evidence.log_z(self, given, **settings)

    def log_evidence(self, x: Any, base: bool = False, **settings: Any) -> Evidence:
        """Log p(x) of every datum with its error, nats in model units; kept, and gone on with after an interruption.

        Args:
            x: data in the user's units.
            base: under the base of the model, tilts ignored.
            settings: of `pplebm.log_evidence`: `method`, `n_particles`, `seed`, `rows_at_once`, `progress`.
        """
        return evidence.log_evidence(self, x, base=base, **settings)

    def estimates(self, x: Any = None, names: Sequence[str] | None = None, **settings: Any) -> Estimates:
        """Learned parameters with standard errors and intervals, and whether they are at a maximum of the likelihood.

        Args:
            x: data in the user's units, all that the run learned from; found by themselves where they have a name or a
                file. Parameters are those of data in model units.
            names: of parameters that count as estimated, the others held; all by default, up to 300 numbers.
            settings: of `pplebm.estimates`: `level`, `n_chains`, `n_draws`, `n_warmup`, `seed`, `progress`.
        """
        return estimates.estimates(self, x, names=names, **settings)

    def to_arviz(self, x: Any = None, seed: int = 0, evidence: Evidence | None = None, **settings: Any) -> Any:
        """Sample prior and, given data x, their posteriors by adjusted chains, and put them into ArviZ's container.

        The chains are those of `pplebm.sample`, of its default kernel in noncentered coordinates, not the short runs of
        learning; how the two differ is what `pplebm diagnose` shows. Data are in model units there. A prior that reads
        covariates is drawn at those of x.

        Args:
            x: data in the user's units.
            seed: of the chains.
            evidence: of `run.log_evidence(x)`, for a log likelihood that data may be left out by.
            settings: of `pplebm.sample`: `kernel`, `n_chains`, `n_draws`, `n_warmup`, `thin`, `progress`.

        Raises:
            PplebmError: for settings that `pplebm.sample` refuses, or data of another shape.
        """
        program = self.program.with_coordinates("noncentered")
        settings = {"seed": seed, "params": self.params, **settings}
        data = None if x is None else self._in_model_units(x)
        posterior = None if data is None else sample(program, data=data, **settings)
        given = data if program.prior_reads else None
        return to_arviz(posterior, sample(program, given=given, **settings), evidence=evidence, seed=seed)

    # --- helpers

    def _given(self, n: int | None, given: Any) -> tuple[Any, int]:
        """Rows in model units if there are any, and how many draws are wanted."""
        if given is None:
            return None, _count(n)
        data = self.data(given)
        return data, n_rows(data)

    def _observations(self, found: dict[str, np.ndarray]) -> Any:
        """Values of observed sites in the user's units: those of the only one, or of several by name."""
        values = {name: self.site_to_user(name, a) for name, a in found.items()}
        return values if len(values) > 1 else next(iter(values.values()))

    def _of(self, phase: str, n_steps: int | None) -> Algorithm:
        """The algorithm with fresh chains of that length, made once."""
        if n_steps is None:
            return self.algorithm
        if (phase, n_steps) not in self._algorithms:
            self._algorithms[phase, n_steps] = self.algorithm.with_n_steps(phase, n_steps)
        return self._algorithms[phase, n_steps]

    def _by_chunks(self, function: Callable[[Any, int], Any], x: Any, seed: int) -> dict[str, np.ndarray]:
        """Apply to data in the user's units, chunk by chunk; short chunks are filled up so that shapes repeat."""
        x = self._in_model_units(x)
        n, parts = n_rows(x), []
        for i, start in enumerate(range(0, n, size := min(CHUNK, n))):
            rows = np.arange(start, start + size) % n
            part = self._numpy(function(self.program.data(take_rows(x, rows)), seed + 104729 * i))
            parts.append({name: a[: n - start] for name, a in part.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _numpy(self, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: self.program.ppl.to_numpy(a) for name, a in arrays.items()}


def in_model_units(program: Program, manifest: Manifest, x: Any) -> Any:
    """Data in the user's units as arrays in model units, of the shapes that a run learned from."""
    entry, scaling = manifest.data, manifest.scaling
    if not manifest.model.is_own:
        assert isinstance(scaling, Scaling)
        return load_for(scaling, tuple(entry.event_shape), x)
    tree = columns.read(x, program.signature, program.levels)[0]
    tree = tree_map(lambda a: np.asarray(a.detach().cpu() if hasattr(a, "detach") else a), tree)
    for path, shape in {path: list(a.shape[1:]) for path, a in tree_leaves(tree)}.items():
        if entry.shapes.get(path) != shape:
            raise PplebmError(
                f"'{path or 'x'}' has rows of shape {tuple(shape)}, and the run learned from "
                f"{entry.shapes.get(path, 'no such array')}; give data like those."
            )
    return scaling.to_model(tree)


def open_run(
    path: str | Path,
    model: Callable[..., Any] | None = None,
    backend: str | None = None,
    guide: Callable[..., Any] | None = None,
    trust: bool = False,
) -> Run:
    """Open a run folder; pages are taken from the copies in it, nothing is unpickled.

    A page is code. Those that ship with pplebm, and those that you fitted on this machine, are run; others only with
    `trust=True`. All files have checksums; a damaged checkpoint gives way to the one before it, with a warning.

    Args:
        path: folder that `pplebm.fit` or `pplebm fit --out` wrote.
        model: the callable, for a run that was fitted on a callable instead of a page or file; its own modules
            take the learned weights.
        backend: open a run of a gallery page on the other backend. Weights, hyperparameters and scaling carry over;
            the random numbers, and so single draws, do not.
        guide: the callable, for a run that was fitted with one of its own.
        trust: run the page copies in the folder, whoever wrote them.

    Raises:
        PplebmError: if there is no run or no checkpoint, a file was changed, pages and checkpoint do not match, or a
            page is a stranger's.
    """
    return Run(*opened(path, model, backend, guide, trust))


def _count(n: Any) -> int:
    if not isinstance(n, int) or n < 1:
        raise PplebmError(f"the number of draws must be a positive integer, got {n!r}.")
    return n
