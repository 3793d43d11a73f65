"""What can be wrong with a model: looked at step by step on one small batch."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pplebm.backends.rows import shapes_of
from pplebm.checking.curvature import largest_curvature
from pplebm.checking.findings import Checklist, Verdict
from pplebm.checking.precision import bf16_gradient_error
from pplebm.data import Dataset
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning import loop
from pplebm.learning.adjusted import AdjustedChains, AdjustedPool
from pplebm.learning.algorithm import Algorithm
from pplebm.learning.samples import Samples
from pplebm.learning.sources import CHAINS, UNADJUSTED, coordinates_of
from pplebm.ppl.language import Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_map
from pplebm.program import Program
from pplebm.runs.modelling import program_on
from pplebm.sampling import chains

BATCH = 64  # chains at once
WIDE = 5.0  # standard deviations at which a tilt is tried besides base draws
OUTWARD = (10.0, 100.0)  # and where the tilted prior must fall off
LEAST_ACCEPTED = 0.05  # mean acceptance of adjusted steps below which chains stand still
MUCH = 0.05  # relative error of a bf16 gradient; a Langevin step's own noise is far above it
LEFT_OF_RUN = "the model failed on"


class Start(NamedTuple):
    """A model, and its data before they are scaled."""

    model: Any  # None for one that did not load
    data: Dataset
    scaling: str
    is_own: bool
    seed: int
    backend: str


def check(items: Checklist, start: Start, page: ModuleType, hyper: Any) -> None:
    """Add the findings on a model to a checklist."""
    m = _Model(start, page, hyper)
    items.look("runs", m.runs, essential=True)
    items.look("sites", m.sites, essential=True)
    items.look("global latents", m.global_latents, essential=True)
    items.look("batch sizes", m.batch_sizes, essential=True)
    items.look("density", m.density, essential=True)
    items.look("finite", m.finite)
    items.look("data shape", m.data_shape)
    items.look("parameters", m.parameters)
    items.look("tilt", m.tilt)
    items.look("normalisable", m.normalisable)
    items.look("posterior chain", m.posterior_chain)
    items.look("prior chain", m.prior_chain)
    items.look("half precision", m.half_precision)
    items.look("update", m.update)


def _of_batch(hyper: Any, n: int) -> Any:
    """Hyperparameters for a batch of n data, and for a pool of prior chains that is no larger."""
    hyper, prior = hyper._replace(batch_size=n), getattr(hyper, "prior", None)
    if not isinstance(prior, AdjustedPool):
        return hyper
    return hyper._replace(prior=prior._replace(pool=min(n, prior.pool), moved=min(n, prior.moved)))


class _Model:
    """A model on a batch of data; every method looks at one thing."""

    def __init__(self, start: Start, page: ModuleType, hyper: Any) -> None:
        self.start, self.page, self.data, self.seed = start, page, start.data, start.seed
        n = min(BATCH, hyper.batch_size, start.data.n_train)
        self.hyper, self.n = _of_batch(hyper, n), n
        self.refused: PplebmError | None = None  # by the structure of the program, told under "sites"
        self.program: Program
        self.x: Any
        self.z: Latents  # draws of the base
        self.params: Params

    def _keys(self, n: int) -> Any:
        return self.program.ppl.split(self.program.ppl.key(self.seed), n)

    # --- structure

    def runs(self) -> Verdict:
        try:
            s = self.start
            self.program, self.data = program_on(s.model, s.data, s.scaling, s.is_own, s.seed, s.backend)
            if not self.program.plate:
                self.program.refuse_global_latents("learning")
        except PplebmError as error:
            if str(error).startswith(LEFT_OF_RUN):
                raise
            self.refused = error
        return True, f"on {shapes_of(take_rows(self.data.train, slice(0, 5)))}"

    def sites(self) -> Verdict:
        if self.refused is not None:
            raise self.refused
        p = self.program
        latents = []
        for s in p.latents:
            noise = "noncentered coordinates" if p.has_noncentered[s.name] else "centered coordinates only"
            latents.append(f"{s.name} {s.shape} {s.distribution} on {s.support}, {noise}")
        observed = ", ".join(f"{s.name} {s.shape} {s.distribution}" for s in p.observed) or "nothing"
        tilts = ", ".join(s.name for s in p.tilts) or "none"
        sentence = f"latents: {'; '.join(latents)}. Observed: {observed}. Tilts: {tilts}. Data plate: '{p.plate}'."
        if p.factors:
            sentence += f" Factors of the likelihood: {', '.join(s.name for s in p.factors)}."
        if p.covariates:
            readers = ", ".join(sorted(p.reads.prior)) or "the likelihood alone"
            sentence += f" Covariates: {', '.join(p.covariates)}; read by {readers}."
        if p.given:
            return True, sentence + f" Data are the values of {', '.join(p.given)}, so there is nothing to infer."
        return True, sentence

    def global_latents(self) -> Verdict:
        self.program.refuse_global_latents(self.page.__name__.rsplit(".", 1)[-1])
        ppl = self.program.ppl
        rows = take_rows(self.data.train, slice(0, self.n))
        self.params, self.x = self.program.params, tree_map(lambda a: ppl.asarray(a, keep=True), rows)
        return True, f"none: every latent stands in the plate '{self.program.plate}'"

    def batch_sizes(self) -> Verdict:
        few = self.program.data(take_rows(self.data.train, slice(0, 3)))
        drawn = self.program.draw_start(self._keys(1)[0], self.program.prior_rows(few))
        self.program.log_terms(self.params, drawn, few, True)
        self.z = self.program.draw_start(self._keys(1)[0], self.program.prior_rows(self.x))
        return True, f"runs on 3, 5 and {self.n} data alike"

    # --- densities

    def density(self) -> Verdict:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PplebmWarning)
            self.program.log_joint(self.params, self.z, self.x)
            self.program.log_prior(self.params, self.z, self.x)
        slow = [str(w.message) for w in caught if issubclass(w.category, PplebmWarning)]
        return True, slow[0] if slow else "compiled, and equal to a run of the model itself"

    def finite(self) -> Verdict:
        terms = self._terms(self.z, observed=True)
        bad = {name: int((~np.isfinite(v)).sum()) for name, v in terms.items()}
        where = ", ".join(f"site '{name}' at {k} of {self.n} base draws" for name, k in bad.items() if k)
        if where:
            return (
                False,
                f"the log density is not finite: {where}; keep scales away from 0 and arguments in their domain",
            )
        joint = sum(terms.values())
        return True, f"log densities are, at base draws: log p̃(x, z) is {np.median(joint):.4g} nats in the median"

    def data_shape(self) -> Verdict:
        drawn = self.program.predict(self.params, self.z, self._keys(7)[6], self.x)
        there, faults = self.program.observed_data(self.x), []
        for name, a in drawn.items():
            if tuple(a.shape) != tuple(there[name].shape):
                faults.append(
                    f"draws of observed site '{name}' have shape {tuple(a.shape[1:])} and its data "
                    f"{tuple(there[name].shape[1:])}; reshape the mean, not the data"
                )
        shapes = {name: tuple(a.shape[1:]) for name, a in there.items()}
        return not faults, "; ".join(faults) or f"draws of observed sites have the data's: {shapes}"

    def _terms(self, z: Latents, observed: bool = False, params: Params | None = None) -> dict[str, np.ndarray]:
        terms = self.program.log_terms(self.params if params is None else params, z, self.x, observed)
        return {name: self.program.ppl.to_numpy(v) for name, v in terms.items()}

    def parameters(self) -> Verdict:
        p = self.program
        faults = []
        if p.unregistered:
            shapes = ", ".join(map(str, p.unregistered[:4])) + (", ..." if len(p.unregistered) > 4 else "")
            faults.append(
                f"{len(p.unregistered)} tensors of shapes {shapes} require gradients and enter the density, but are "
                f"not registered and would never learn: write pyro.module('name', net) in the model, or freeze them"
            )
        idle = sorted(set(p.params) - p.reached_params)
        if idle:
            shown = ", ".join(idle[:4]) + (", ..." if len(idle) > 4 else "")
            faults.append(f"no gradient reaches {shown}: use them in the model, or remove them")
        _, gradient = p.ppl.value_and_grad(lambda q: p.log_joint(q, self.z, self.x).mean(), self.params)
        bad = [n for n, g in gradient.items() if not np.isfinite(p.ppl.to_numpy(g)).all()]
        if bad:
            faults.append(f"the gradient of {', '.join(bad[:4])} is not finite at base draws")
        if not p.params:
            return True, "; ".join(faults) or "the program has none: nothing will be learned"
        of_tilt = f", of which {len(p.tilt_params)} are the tilt's alone" if p.tilts else ""
        return not faults, "; ".join(faults) or f"a gradient reaches all {len(p.params)}{of_tilt}"

    # --- the tilt

    def _spread(self, size: float) -> Latents:
        noise = self.program.ppl.normal_like(self._keys(3)[2], self.z)
        return {k: size * v for k, v in noise.items()}

    def tilt(self) -> Verdict:
        names = [s.name for s in self.program.tilts]
        if not names:
            return None, "there is none: an ordinary generator, Z = 1"
        near, far = self._terms(self.z), self._terms(self._spread(WIDE))
        ranges, faults = [], []
        for name in names:
            both = np.concatenate([near[name], far[name]])
            if not np.isfinite(both).all():
                where = "base draws" if not np.isfinite(near[name]).all() else f"latents {WIDE:g} times as wide"
                faults.append(
                    f"'{name}' is not finite at {(~np.isfinite(both)).sum()} of {2 * self.n} latents ({where})"
                )
            elif np.ptp(both) == 0.0 and self._still(name):
                faults.append(
                    f"'{name}' is constant ({both[0]:.3g}), so it tilts nothing: make it a function of latents"
                )
            else:
                low, high = f"[{near[name].min():.3g}, {near[name].max():.3g}]", f"[{both.min():.3g}, {both.max():.3g}]"
                ranges.append(f"'{name}' in {low} nats at base draws, {high} at latents {WIDE:g} times as wide")
        return not faults, "; ".join(faults or ranges)

    def _still(self, name: str) -> bool:
        """Whether a tilt stays constant at other weights: one whose last layer starts at zero does not."""
        noise = self.program.ppl.normal_like(self._keys(4)[3], self.params)
        values = self._terms(self._spread(1.0), params={k: v + 0.1 * noise[k] for k, v in self.params.items()})[name]
        return bool(np.ptp(values) == 0.0)

    def normalisable(self) -> Verdict:
        if not self.program.tilts:
            return None, "there is no tilt, so the prior is as its distributions are"
        at = [sum(self._terms(self._spread(size)).values()) for size in (1.0, *OUTWARD)]
        with np.errstate(invalid="ignore"):
            growing = float(np.mean((at[2] > at[1]) & (at[1] > at[0])))
        if growing > 0.02:
            return False, (
                f"the tilted prior grows outwards in {100 * growing:.0f} % of directions (tried to {OUTWARD[1]:g} "
                f"deviations): exp(f) outgrows the base, Z is infinite; bound the tilt, tilt(..., bound=8.0)"
            )
        return True, "the tilted prior falls off in every direction tried"

    # --- the algorithm on it

    @functools.cached_property
    def algorithm(self) -> Algorithm:
        """The page on this program."""
        return Algorithm(self.page, self.program, self.hyper)

    @functools.cached_property
    def progress(self) -> loop.Progress:
        """The algorithm before its first update, which may have parameters of its own."""
        return loop.begin(self.algorithm, self.x, self.seed, n_rows(self.data.train))

    def posterior_chain(self) -> Verdict:
        if self.program.given:
            return None, "no chain is run: data are the values of all latents"
        draw = self.program.ppl.compiled(self.algorithm.positive)
        found = draw(self._keys(5)[4], self.progress.state.params, self.x)
        return self._chain(found, "posterior", lambda p, z: p.log_joint(self.params, z, self.x))

    def half_precision(self) -> Verdict:
        try:
            self.program.with_chains(precision="bf16")
        except PplebmError as refusal:
            return None, str(refusal)
        if self.program.given:
            return None, "compared on posteriors, and there are none: data are values of all latents"
        error = bf16_gradient_error(self.program, self.params, self.z, self.x)
        advice = "" if error < MUCH else "; too much for --precision bf16"
        return True, f"in bf16 the gradient along posterior chains is off by {100 * error:.2g} % of its norm{advice}"

    def prior_chain(self) -> Verdict:
        if not self.program.tilts:
            return None, "not needed without a tilt: the base is drawn directly"
        rows, params = self.program.prior_rows(self.x), self.progress.state.params
        n = rows if isinstance(rows, int) else None
        draw = self.program.ppl.compiled(lambda key, params, given: self.algorithm.negative(key, params, n or given))
        found = draw(self._keys(6)[5], params, None if n else rows)
        return self._chain(found, "prior", lambda p, z: p.log_prior(self.params, z, self.x))

    def _chain(self, found: Samples, phase: str, log_density: Callable[[Program, Latents], Any]) -> Verdict:
        ppl, z, run = self.program.ppl, found.z, found.info
        diverged, accepted = (0.0, 1.0) if run is None else (float(run.divergent), float(run.accepted))
        is_finite = all(np.isfinite(ppl.to_numpy(v)).all() for v in z.values())
        is_right, sentence = is_finite and diverged == 0.0, "no chain diverged"
        if not is_right:
            sentence = f"{100 * diverged:.0f} % of {self.n} chains diverged" if is_finite else "a latent is not finite"
        chain = self.algorithm.source(phase)
        if not isinstance(chain, (*CHAINS, AdjustedChains, AdjustedPool)):
            return is_right, sentence
        kernel = chain.kernel if isinstance(chain, CHAINS) else "hmc"
        is_adjusted = kernel not in UNADJUSTED
        if is_adjusted and run is not None:
            moves = accepted > LEAST_ACCEPTED
            advice = "" if moves else f", so that chains stand still: lower --set {phase}.step_size={chain.step_size:g}"
            return is_right and moves, f"{sentence}; {100 * accepted:.0f} % of steps were accepted{advice}"
        if not is_adjusted and kernel != "langevin":
            return is_right, f"{sentence}; steps are shorter where it is steep, and have no stability limit"
        moving = self.program.with_coordinates(coordinates_of(chain))
        begin = chains.start(moving, self._keys(1)[0], self.params, self.x)
        end = self.program.move(self.params, z, moving.coordinates, self.x)
        largest = largest_curvature(ppl, self._keys(2)[1], lambda u: log_density(moving, u), begin, end)
        if not np.isfinite(largest) or largest <= 0.0:
            return is_right, f"{sentence}; the curvature along them could not be found"
        limit, size = 2.0 / largest**0.5, chain.step_size
        share_of_limit = f"step size s={size:g} is at {100 * size / limit:.0f} % of the stability limit"
        sentence += f"; {share_of_limit} 2/sqrt(lambda) = {limit:.3g}"
        if size > limit:
            sentence += f": lower it (--set {phase}.step_size={limit / 2:.2g}), or widen the scale of the sharpest site"
        return is_right and size <= limit, sentence

    def update(self) -> Verdict:
        progress, (event,) = next(loop.updates(self.algorithm, self.data.train, self.seed, self.progress, at_most=1))
        if event.rolled_back_to is not None:
            bad = ", ".join(n for n, v in event.metrics.items() if not np.isfinite(v)) or "a parameter"
            return False, f"one update ended non-finite ({bad}); see the findings above, or lower the learning rate"
        ppl, after = self.program.ppl, progress.state.params
        still = [n for n in self.params if np.array_equal(ppl.to_numpy(after[n]), ppl.to_numpy(self.params[n]))]
        sentence = f"one is finite, and {len(self.params) - len(still)} of {len(self.params)} parameters moved"
        return True, sentence + (f" (not {', '.join(still[:4])})" if still else "")
