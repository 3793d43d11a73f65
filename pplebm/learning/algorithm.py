r"""The owner of an algorithm: a page, on a program, with hyperparameters. Everything that learns or draws asks it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import flat, override
from pplebm.gallery.pages import page_name
from pplebm.guides.guide import Guide
from pplebm.guides.shared import guide_of
from pplebm.learning.adjusted import AdjustedPool
from pplebm.learning.given import given
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.samples import Samples
from pplebm.learning.sources import STEPPED, Amortized, BaseDraws, Source, with_n_steps
from pplebm.ppl.language import PPL, Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows
from pplebm.program import Program

SLOWER, LONGER = 0.5, 1.5  # factors of the tilt's rate and of the prior chain's length, at every back-off
MAX_LONGER = 4  # back-offs that lengthen the chain; further ones lower the rate only

REPORTED = {
    "tilt_gap": "E f(z⁺) - E f(z⁻), nats: what the tilt still has to learn",
    "log_likelihood": "E log p(x|z⁺), nats per datum",
    "tilt_positive": "E f(z⁺), nats",
    "tilt_negative": "E f(z⁻), nats",
    "tilt_penalty": "value of the tilt's penalty in the loss",
    "tilt_saturation": "share of tilt values at their bound",
    "grad_norm": "length of the gradient of all parameters, before clipping",
    "grad_norm_tilt": "length of the gradient of the tilts' parameters",
    "clipped": "1 if the gradient was shortened to clip_norm",
    "divergent_positive": "share of posterior chains with a non-finite step",
    "divergent_negative": "share of prior chains with a non-finite step",
    "accepted_positive": "mean acceptance of posterior steps; 1 where steps are not adjusted",
    "accepted_negative": "mean acceptance of prior steps; 1 where steps are not adjusted",
}


class State(NamedTuple):
    """State of learning: all that the next update needs."""

    params: Params  # of the program, its guide, and whatever else learns
    optimizer: Any
    update: Any  # number of updates done
    positive: Any = ()  # chains of the posterior that live on
    negative: Any = ()  # chains of the prior that live on


Info = dict[str, Array]  # what a person wants to see of an update, by name; scalars
Loss = tuple[Array, Any]  # a scalar that falls, and what is reported of it, by name; see `named`


class Algorithm:
    r"""A page on a program with hyperparameters.

    A page states where positive samples come from (`Hyper.posterior`), where negative ones come from (`Hyper.prior`),
    and the loss, `loss(algorithm, key, params, x, positive, negative)`, whose gradient learns:

    .. math:: \Delta\theta \propto -\nabla_\theta\, \mathrm{loss}(\theta; x, z^+, z^-), \qquad
              z^+ \sim p(z \mid x), \quad z^- \sim \tilde p(z) / Z

    Where its paper does something else it has functions of its own: `positive(algorithm, key, params, x)` and
    `negative(algorithm, key, params, rows)` that give `Samples`; `rates(algorithm, state)`, factors of learning rates
    by parameter; `init(algorithm, key, x, n_data)` that gives a `State`; `step(algorithm, key, state, x, index)`.

    Args:
        page: of `pplebm.load`, or any object with such names.
        program: the tilted program.
        hyper: hyperparameters, the page's `Hyper`; its defaults if left out.

    Raises:
        PplebmError: for a learning rate of a guide, where the page learns none.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> algorithm = Algorithm(pplebm.load("short_run_mle"), program)
        >>> x = torch.ones(8, 3)
        >>> state, info = algorithm.step(1, algorithm.init(0, x), x)
        >>> state.update, sorted(info)[:3]
        (1, ['accepted_negative', 'accepted_positive', 'clipped'])
    """

    def __init__(self, page: ModuleType | Any, program: Program, hyper: Any = None) -> None:
        self.page, self.program = page, program
        self.hyper = page.Hyper() if hyper is None else hyper
        self.name = page_name(page) if isinstance(page, ModuleType) else type(page).__name__
        self._compiled: dict[Any, Callable[..., Latents]] = {}
        rate = lambda hyper: getattr(hyper, "optimizer", Optimizer()).learning_rate_guide
        if rate(self.hyper) != rate(page.Hyper()) and not self.has_guide:
            raise PplebmError(f"algorithm '{self.name}' learns no guide; leave learning_rate_guide out.")

    def __repr__(self) -> str:
        return f"Algorithm({self.name} on {self.program!r})"

    @property
    def ppl(self) -> PPL:
        """The backend."""
        return self.program.ppl

    @functools.cached_property
    def centered(self) -> Program:
        """The program in centered coordinates."""
        return self.program.with_coordinates("centered")

    @functools.cached_property
    def noncentered(self) -> Program:
        """The program in noncentered coordinates."""
        return self.program.with_coordinates("noncentered")

    # --- what the page states

    def source(self, phase: str) -> Source | None:
        """Source of samples of the "posterior" or the "prior", as data; None if the page has its own way."""
        return getattr(self.hyper, phase, None)

    @property
    def optimizer(self) -> Optimizer:
        """Optimizer, by which parameters follow their gradients."""
        return self.hyper.optimizer

    @property
    def averaging(self) -> float:
        r"""Power k of the average of the parameters that is the estimate, with weights about :math:`t^k`; 0: none.

        Source: Shamir, Zhang (ICML 2013), polynomial-decay averaging.
        """
        return float(getattr(self.hyper, "averaging", 0.0))

    def has_arrived(self, state: Any) -> bool:
        """Whether learning is to end before its last update, as the page judges."""
        return hasattr(self.page, "arrived") and bool(self.ppl.to_numpy(self.page.arrived(self, state)))

    @property
    def follows_chains(self) -> bool:
        """Whether a tilt learns from chains of the prior that have to keep up with it, without weights that do."""
        moves = bool(self.program.tilts) and getattr(self.hyper, "optimizer", Optimizer()).learning_rate_tilt > 0
        return moves and not isinstance(self.source("prior"), BaseDraws | AdjustedPool)

    @property
    def keeps_rows(self) -> bool:
        """Whether something is kept for every training datum, so that updates must know which data they see."""
        return getattr(self.page, "KEEPS_ROWS", False) or any(map(self._lives, PHASES))

    def _lives(self, phase: str) -> bool:
        """Whether chains of a phase live on between updates; none of the prior without a tilt, nor of what is given."""
        needs = not self.program.given if phase == "posterior" else bool(self.program.tilts)
        return hasattr(self.source(phase), "begin") and needs

    @property
    def guide(self) -> Guide:
        """The guide that the page learns, the program's own or one derived from it.

        Raises:
            PplebmError: if it learns none.
        """
        settings = next((field for field in self.hyper if isinstance(field, Amortized)), None)
        if settings is None:
            raise PplebmError(f"algorithm '{self.name}' learns no guide; choose one that does (`pplebm list`).")
        return guide_of(self.program, **settings._asdict())

    @property
    def has_guide(self) -> bool:
        """Whether the page learns a guide."""
        return any(isinstance(field, Amortized) for field in self.hyper)

    @functools.cached_property
    def guide_params(self) -> frozenset[str]:
        """Names of the parameters that are the guide's alone; those that it shares with the model are the model's."""
        return frozenset(self.guide.params) - frozenset(self.program.params) if self.has_guide else frozenset()

    @property
    def reports(self) -> dict[str, str]:
        """Meanings of the figures of an update, by name."""
        return REPORTED | getattr(self.page, "REPORTS", {})

    # --- the same algorithm, changed

    def with_changes(self, program: Program | None = None, hyper: Any = None) -> Algorithm:
        """The same page on another program or with other hyperparameters."""
        return Algorithm(self.page, program or self.program, self.hyper if hyper is None else hyper)

    def with_n_steps(self, phase: str, n: int) -> Algorithm:
        """The same algorithm, its fresh chains of a phase n steps long.

        Raises:
            PplebmError: where samples of the phase do not come from chains, or for a number that is not positive.
        """
        chain = self.source(phase)
        if not isinstance(chain, STEPPED):
            raise PplebmError(f"the {phase} draws of algorithm '{self.name}' come from no chain; leave n_steps out.")
        if not isinstance(n, int) or n < 1:
            raise PplebmError(f"n_steps must be a positive integer, got {n!r}.")
        return self.with_changes(hyper=self.hyper._replace(**{phase: with_n_steps(chain, n)}))

    def back_off(self, n: int) -> Algorithm:
        """The algorithm after n interventions: a slower tilt, and a longer prior chain to follow it.

        >>> import pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> hyper = Algorithm(pplebm.load("short_run_mle"), program).back_off(1).hyper
        >>> hyper.optimizer.learning_rate_tilt, hyper.prior.n_steps
        (0.0005, 45)
        """
        changes: dict[str, Any] = {}
        if (optimizer := getattr(self.hyper, "optimizer", None)) is not None:
            changes["optimizer"] = optimizer._replace(learning_rate_tilt=optimizer.learning_rate_tilt * SLOWER**n)
        if isinstance(chain := self.source("prior"), STEPPED):
            changes["prior"] = chain._replace(n_steps=math.ceil(chain.n_steps * LONGER ** min(n, MAX_LONGER)))
        return self.with_changes(hyper=self.hyper._replace(**changes)) if n else self

    def differences(self, other: Algorithm) -> str:
        """Hyperparameters in which another one differs, in words; empty if none do."""
        mine, its = flat(self.hyper), flat(other.hyper)
        return ", ".join(f"{name} {mine[name]:g} -> {its[name]:g}" for name in mine if mine[name] != its[name])

    # --- learning

    def init(self, key: Any, x: Data, n_data: int | None = None) -> Any:
        """State before the first update.

        Args:
            key: of the backend.
            x: a batch.
            n_data: training data; the rows of the batch if left out.

        Raises:
            PplebmError: for a program with latents outside the data plate.
        """
        n_data = n_rows(x) if n_data is None else n_data
        if hasattr(self.page, "init"):
            return self.page.init(self, key, x, n_data)
        return self.begin(key, n_data)

    def begin(self, key: Any, n_data: int, params: Params | None = None) -> State:
        """The state that most pages begin with: the program's parameters and the guide's, chains at their start.

        Args:
            key: of the backend.
            n_data: training data.
            params: further ones that the page learns.
        """
        self.program.refuse_global_latents(self.name)
        params = self.program.params | (self.guide.params if self.has_guide else {}) | (params or {})
        kept = [
            self.source(phase).begin(self, k, params, n_data) if self._lives(phase) else ()  # type: ignore[union-attr]
            for phase, k in zip(PHASES, self.ppl.split(key), strict=True)
        ]
        return State(params, self.optimizer.init(self.ppl, params), 0, *kept)

    def step(self, key: Any, state: Any, x: Data, index: Array | None = None) -> tuple[Any, Info]:
        """One update on a batch: a new state, the old one unchanged, and what a person wants to see.

        Args:
            key: of the backend.
            state: of `init`, or of the update before.
            x: the batch.
            index: numbers of its data among all, where chains live on; the first ones if left out.
        """
        index = self.ppl.asarray(range(n_rows(x))) if index is None else index
        if hasattr(self.page, "step"):
            return self.page.step(self, key, state, x, index)
        k_positive, k_negative, k_loss = self.ppl.split(key, 3)
        positive, negative = self.both_phases((k_positive, k_negative), state, x, index)
        return self.follow(k_loss, state, x, positive, negative)

    def both_phases(self, keys: tuple[Any, Any], state: Any, x: Data, index: Array) -> tuple[Samples, Samples | None]:
        """Samples of an update: of the posterior, and of the prior where there is a tilt."""
        positive = self._advance("posterior", keys[0], state.params, x, state.positive, index)
        if not self.program.tilts:
            return positive, None
        return positive, self._advance(
            "prior", keys[1], state.params, self.program.prior_rows(x), state.negative, index
        )

    def follow(
        self, key: Any, state: Any, x: Data, positive: Samples, negative: Samples | None, **given: Any
    ) -> tuple[Any, Info]:
        """The state after parameters have followed the gradient of the page's loss at samples of both phases.

        Args:
            given: further arguments of the page's loss, by name.
        """
        ppl, of_tilt = self.ppl, () if negative is None else negative.z
        gradient, seen = self._whole(self._gradient)(key, state.params, x, positive.z, of_tilt, given)
        runs = (positive.info, None if negative is None else negative.info)
        gradient, seen, runs = ppl.average((gradient, seen, runs))
        rest = state._replace(params=(), positive=(), negative=(), update=())
        new = self._move(key, state.params, gradient, rest, ppl.asarray(state.update))
        if hasattr(self.page, "after"):
            state = self.page.after(self, state, new.params, gradient)
        kept = {"positive": positive.kept, "negative": state.negative if negative is None else negative.kept}
        after = state._replace(params=new.params, optimizer=new.state, update=state.update + 1, **kept)
        return after, _info(seen, runs, new)

    def _gradient(self, key: Any, params: Params, x: Data, positive: Latents, negative: Any, given: Any) -> Any:
        """Gradient of the loss at samples of both phases, and what is reported of it."""

        def loss(params: Params) -> tuple[Array, Any]:
            return self.page.loss(self, key, params, x, positive, negative or None, **given)

        (_, seen), gradient = self.ppl.value_and_grad(loss, params, has_aux=True)
        return gradient, named(seen)

    @functools.cached_property
    def _move(self) -> Callable[..., Any]:
        return self._whole(self._moved) if self.optimizer.is_graph(self.ppl) else self._moved

    def _moved(self, key: Any, params: Params, gradient: Params, rest: Any, update: Array) -> Any:
        """Parameters after they have followed their gradients, in the state with the rest of it."""
        state = rest._replace(params=params, update=update)
        factors = self.page.rates(self, state) if hasattr(self.page, "rates") else None
        return self.optimizer.update(
            self.program, params, gradient, rest.optimizer, update, self.hyper.updates, factors, self.guide_params
        )

    def _whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A part of an update as one graph, made once."""
        name = function.__name__
        if name not in self._compiled:
            self._compiled[name] = self.ppl.compiled(function, whole=self.program.options)
        return self._compiled[name]

    def _advance(self, phase: str, key: Any, params: Params, rows: Any, kept: Any, index: Any) -> Samples:
        """Samples of a phase within an update."""
        own, source = getattr(self.page, SAMPLES[phase], None), self.source(phase)
        if phase == "posterior" and self.program.given:
            return given(self, source, params, rows)
        if own is not None:
            return own(self, key, params, rows)
        assert source is not None
        return source.advance(self, key, params, rows, phase == "posterior", kept, index)

    # --- what losses and rates of pages in two stages need

    def held(self, params: Params) -> Params:
        """Parameters of which all but those that enter tilts alone are constants."""
        held = self.ppl.stop_gradient(params)
        return {name: params[name] if name in self.program.tilt_params else held[name] for name in params}

    def factors(self, state: Any, tilts: Any = 1.0, others: Any = 1.0) -> dict[str, Any]:
        """Factors of learning rates by parameter: those of the tilts alone, and all others."""
        return {name: tilts if name in self.program.tilt_params else others for name in state.params}

    # --- draws, in learning and after it

    def positive(self, key: Any, params: Params, x: Data) -> Samples:
        """One fresh draw of the posterior for every row of data, centered."""
        return self._fresh("posterior", key, params, x)

    def negative(self, key: Any, params: Params, rows: Data | int) -> Samples:
        """So many fresh draws of the tilted prior, or one at the covariates of every row; centered."""
        return self._fresh("prior", key, params, rows)

    def _fresh(self, phase: str, key: Any, params: Params, rows: Any) -> Samples:
        own, source = getattr(self.page, SAMPLES[phase], None), self.source(phase)
        if phase == "posterior" and self.program.given:
            return given(self, source, params, rows)
        if own is not None:
            return own(self, key, params, rows)
        assert source is not None
        return source.draw(self, key, params, rows, phase == "posterior")

    def posterior_latents(self, key: Any, params: Params, x: Data) -> Latents:
        """The latents of `positive`, compiled once per shape of the data."""
        name = "posterior"
        if name not in self._compiled:
            self._compiled[name] = self.ppl.compiled(lambda key, params, x: self.positive(key, params, x).z)
        return self._compiled[name](key, params, x)

    def prior_latents(self, key: Any, params: Params, rows: Data | int) -> Latents:
        """The latents of `negative`, compiled once per number or shape."""
        name = rows if isinstance(rows, int) else "given"
        if name not in self._compiled:
            draw = lambda key, params, given: self.negative(key, params, rows if given is None else given).z
            self._compiled[name] = self.ppl.compiled(draw)
        return self._compiled[name](key, params, None if isinstance(rows, int) else rows)


PHASES = ("posterior", "prior")
SAMPLES = {"posterior": "positive", "prior": "negative"}  # a page's own functions


def algorithm_of(page: ModuleType, program: Program, changes: Mapping[str, Any] | None = None) -> Algorithm:
    """An algorithm with some hyperparameters changed.

    Raises:
        PplebmError: for a hyperparameter that the page does not have, or a value outside its range.
    """
    return Algorithm(page, program, override(page.Hyper(), changes or {}, f"algorithm '{page_name(page)}'"))


def named(*parts: Any, **more: Array) -> dict[str, Array]:
    """By-products of a loss by name: those of NamedTuples and mappings, inner ones included, and some more.

    >>> class Seen(NamedTuple):
    ...     bound: float
    >>> named(Seen(1.0), {"nce": 2.0}, total=3.0)
    {'bound': 1.0, 'nce': 2.0, 'total': 3.0}
    """
    found: dict[str, Array] = {}
    for part in (*parts, more):
        fields = part._asdict() if hasattr(part, "_asdict") else part
        for name, value in fields.items():
            found |= named(value) if hasattr(value, "_asdict") else {name: value}
    return found


def _info(seen: dict[str, Array], runs: tuple[Any, Any], new: Any) -> Info:
    """All that is reported of an update."""
    found = {"tilt_gap": seen["tilt_positive"] - seen["tilt_negative"]} if "tilt_positive" in seen else {}
    found |= seen | {"grad_norm": new.grad_norm, "grad_norm_tilt": new.grad_norm_tilt, "clipped": new.clipped}
    for phase, run in zip(("positive", "negative"), runs, strict=True):
        found |= {} if run is None else {f"{name}_{phase}": share for name, share in run._asdict().items()}
    return found
