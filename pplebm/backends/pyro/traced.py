"""A Pyro program as unnormalised densities, one number per datum."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger

from pplebm.backends.pyro import tracing
from pplebm.backends.pyro.arrays import split
from pplebm.backends.pyro.coordinates import to_coordinates, to_value
from pplebm.backends.pyro.graphs import compile_graph
from pplebm.backends.pyro.steps import Step, leaves, run_steps
from pplebm.backends.structure import all_there, first_or_whole, plates_of, structure_of
from pplebm.errors import PplebmError
from pplebm.ppl import How

Tensors = dict[str, torch.Tensor]


class AtLatents(Messenger):
    """Runs a model at given latents and notes, site by site, log densities and values.

    With `with_data=False` observed sites get no value of the data and no log density, so that what remains is
    the prior.
    """

    def __init__(
        self, traced: TracedProgram, z: Tensors, coordinates: str, with_data: bool, pointwise: bool = False
    ) -> None:
        super().__init__()
        self.traced, self.z, self.coordinates, self.with_data = traced, z, coordinates, with_data
        self.pointwise = pointwise
        self.terms: Tensors = {}
        self.sites: dict[str, Any] = {}  # latent sites, their values included
        self.observed: dict[str, Any] = {}
        self._log_density: Tensors = {}

    def _pyro_sample(self, msg: Any) -> None:
        name, plate = msg["name"], self.traced.structure.plate
        if name in self.z:
            u = self.z[name] if self.traced.structure.is_joint else tracing.datum_back(self.z[name], msg, plate)
            msg["value"], self._log_density[name] = to_value(msg["fn"], u, self.coordinates)
            msg["done"] = True
        elif name in self.traced.observed_names and not self.with_data:
            msg["value"], msg["done"] = torch.zeros(msg["fn"].shape(), dtype=torch.get_default_dtype()), True

    def _pyro_post_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if name in self.traced.observed_names:
            self.observed[name] = dict(msg)
        if name in self.z:
            log_density = self._log_density[name]
            self.sites[name] = dict(msg)
        elif name in self.traced.tilt_names or (self.with_data and name in self.traced.observed_names):
            log_density = fn.log_prob(msg["value"])
        else:
            return
        log_density = scale_and_mask(log_density, msg["scale"], msg["mask"])
        self.terms[name] = self._summed(log_density, msg)

    def _summed(self, log_density: torch.Tensor, site: Any) -> torch.Tensor:
        """Over all plates but the data's; in a joint program over that one as well, unless points are wanted."""
        plate, name = self.traced.structure.plate, site["name"]
        by_datum = not self.traced.structure.is_joint or (self.pointwise and name in self.traced.observed_names)
        return (
            tracing.per_datum(log_density, site, plate) if by_datum and plate in plates_of(site) else log_density.sum()
        )


class TracedProgram:
    """What `pplebm.Program` asks of a Pyro model; see `pplebm.ppl.Traced` for the contract of each method."""

    def __init__(self, model: Callable[..., Any], data: torch.Tensor, plate: str | None, seed: int) -> None:
        self.model, self.example = model, data
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self._compiled: dict[Any, Callable[..., Tensors]] = {}
        self._steps: dict[Any, Step] = {}
        with tracing.store_scope(self._store), tracing.seeded(seed), pyro.validation_enabled(True):
            trace = poutine.trace(lambda x: tracing.call(model, x)).get_trace(data)
            self.structure = structure_of(*tracing.split_trace(trace), len(data), plate, tracing.HOST)
            if not self.structure.is_joint:  # no plate of fixed size
                half = data[: len(data) // 2 + 1]
                shorter = poutine.trace(lambda x: tracing.call(model, x)).get_trace(half)
                structure_of(*tracing.split_trace(shorter), len(half), plate, tracing.HOST)
        self.tilt_names = frozenset(s.name for s in self.structure.tilts)
        self.observed_names = frozenset(s.name for s in self.structure.observed)
        self._leaves = tracing.parameters_of(trace)
        self.params = {n: leaf.detach().clone() for n, leaf in self._leaves.items()}
        self.tilt_params: frozenset[str] = frozenset()
        self.prior_params: frozenset[str] = frozenset()
        self.reached_params: frozenset[str] = frozenset()
        self.unregistered: list[tuple[int, ...]] = []
        self._sort_parameters(seed)

    def _sort_parameters(self, seed: int) -> None:
        """Find by differentiation which parameters enter the tilts, and which enter the prior."""
        z = self.draw(seed, len(self.example), self.params, "centred")
        z = {n: a[0] for n, a in z.items()} if self.structure.is_joint else z
        params = {n: p.detach().requires_grad_() for n, p in self.params.items()}
        terms = self.run(params, z, self.example, "centred").terms
        self.unregistered = tracing.unregistered_leaves(list(terms.values()), params)
        tilt = {n for name in self.tilt_names for n in _reached(terms[name], params)}
        base = {n for site in self.structure.latents for n in _reached(terms[site.name], params)}
        likelihood = {n for name in self.observed_names for n in _reached(terms[name], params)}
        self.tilt_params = frozenset(tilt - base - likelihood)
        self.prior_params = frozenset(tilt | base)
        self.reached_params = frozenset(tilt | base | likelihood)

    def run(
        self, params: Tensors, z: Tensors, x: torch.Tensor | None, coordinates: str, pointwise: bool = False
    ) -> AtLatents:
        """Run the model eagerly at latents z; without data it is called on a stand-in batch of the same size.

        In a joint program these are the latents of one chain.
        """
        handler = AtLatents(self, z, coordinates, x is not None, pointwise)
        whole = self.example if self.structure.is_joint else None
        stand_in = x if x is not None else whole if whole is not None else self.rows(len(next(iter(z.values()))))
        with self._substituted(params), handler:
            tracing.call(self.model, stand_in)
        return handler

    @contextlib.contextmanager
    def _substituted(self, params: Tensors) -> Iterator[None]:
        """The program's own parameter store, with `params` in the place of its parameters."""
        replacements = {id(leaf): params[name] for name, leaf in self._leaves.items()}
        with (
            tracing.store_scope(self._store),
            tracing.NanFactors(),
            tracing.Substitute(replacements),
            pyro.validation_enabled(False),
        ):
            yield

    def _by_chain(self, function: Callable[[Tensors], Tensors], z: Tensors) -> Tensors:
        """Apply to all rows: at once where rows are data, else chain by chain, vectorised."""
        return torch.func.vmap(function, randomness="different")(z) if self.structure.is_joint else function(z)

    def _eager(self, coordinates: str) -> Callable[[Tensors, Tensors, torch.Tensor | None], Tensors]:
        """Log density of every site by running the program."""
        return lambda params, z, x: self._by_chain(lambda z: self.run(params, z, x, coordinates).terms, z)

    def rows(self, n: int) -> torch.Tensor:
        """A batch of n data of the right shape, made by repeating the example; the data of a joint program."""
        return self.example if self.structure.is_joint else self.example[torch.arange(n) % len(self.example)]

    def terms(self, params: Tensors, z: Tensors, x: torch.Tensor | None, coordinates: str) -> Tensors:
        """Log density of every site, (B,) each, by a graph traced once per shape."""
        return self._graph(("terms", coordinates), self._eager(coordinates), params, z, x)

    def chain(
        self, kernel: Any, state: Any, keys: Any, params: Tensors, x: torch.Tensor | None, how: How
    ) -> tuple[Any, Any]:
        """Steps of a kernel by a graph of one step, made once per kernel and shape."""
        tensors = leaves((params, state, x))
        key = (kernel.settings, how, x is None, tuple((t.shape, t.dtype, t.device) for t in tensors))
        if key not in self._steps:
            terms = self._eager(how.coordinates)
            self._steps[key] = Step(terms, self.tilt_names, kernel, params, x, state, keys[0], how)
        return run_steps(self._steps[key], kernel, state, keys, params, x)

    def move(
        self, params: Tensors, z: Tensors, coordinates: str, target: str, x: torch.Tensor | None = None
    ) -> Tensors:
        """The same latents in other coordinates."""

        def eager(params: Tensors, z: Tensors, x: torch.Tensor | None) -> Tensors:
            moved = lambda z: self._moved(self.run(params, z, x, coordinates).sites, target)
            return self._by_chain(moved, z)

        return self._graph(("move", coordinates, target), eager, params, z, x)

    def _moved(self, sites: dict[str, Any], coordinates: str) -> Tensors:
        return {n: self._first(s, to_coordinates(s["fn"], s["value"], coordinates)) for n, s in sites.items()}

    def _graph(self, kind: Any, eager: Any, params: Tensors, z: Tensors, x: torch.Tensor | None) -> Tensors:
        tensors = [*z.values(), *([] if x is None else [x])]
        key = (kind, x is None, tuple((t.shape, t.dtype, t.device) for t in tensors))
        if key not in self._compiled:
            self._compiled[key] = compile_graph(eager, params, z, x)
        return self._compiled[key](params, z, x)

    def _first(self, site: Any, value: torch.Tensor) -> torch.Tensor:
        return value if self.structure.is_joint else tracing.datum_first(value, site, self.structure.plate)

    def _trace(self, model: Callable[..., Any], params: Tensors, n: int, seed: int) -> dict[str, Any]:
        """Latent sites of a forward run of `model` on a stand-in batch of n data."""
        with torch.no_grad(), self._substituted(params), tracing.seeded(seed):
            trace = poutine.trace(lambda x: tracing.call(model, x)).get_trace(self.rows(n))
        return {site.name: trace.nodes[site.name] for site in self.structure.latents}

    def draw(self, key: int, n: int, params: Tensors, coordinates: str) -> Tensors:
        """Ancestral draws of the latents, tilts ignored."""
        if self.structure.is_joint:
            runs = [self._moved(self._trace(self.model, params, 1, k), coordinates) for k in split(key, n)]
            return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
        drawn = self._moved(self._trace(self.model, params, n, key), coordinates)
        return {name: a.clone() for name, a in drawn.items()}

    def values(self, params: Tensors, z: Tensors, coordinates: str) -> Tensors:
        """Values of the latent sites in their supports, (B, *event)."""

        def values(z: Tensors) -> Tensors:
            sites = self.run(params, z, None, coordinates).sites
            return {name: self._first(site, site["value"]) for name, site in sites.items()}

        with torch.no_grad():
            return self._by_chain(values, z)

    def coordinates_of(self, params: Tensors, values: Tensors, coordinates: str) -> Tensors:
        """Coordinates of given site values: the inverse of `values`."""
        n = len(next(iter(values.values())))
        if self.structure.is_joint:
            parts = [self._placed(params, {k: v[i] for k, v in values.items()}, coordinates) for i in range(n)]
            return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return self._placed(params, values, coordinates)

    def _placed(self, params: Tensors, values: Tensors, coordinates: str) -> Tensors:
        n, plate, is_joint = len(next(iter(values.values()))), self.structure.plate, self.structure.is_joint
        placed = {}
        for name, site in self._trace(self.model, params, n, 0).items():
            placed[name] = values[name] if is_joint else tracing.datum_back(values[name], site, plate)
        return self._moved(self._trace(poutine.condition(self.model, data=placed), params, n, 0), coordinates)

    def observe(self, params: Tensors, z: Tensors, coordinates: str, key: int | None) -> Tensors:
        """Means of the observed sites given the latents, (B, *event); draws when a key is given."""
        if not self.structure.observed:
            raise PplebmError("the program has no observed site; condition one with pyro.sample(..., obs=x).")

        def observe(z: Tensors) -> Tensors:
            observed = self.run(params, z, None, coordinates).observed
            return {
                name: self._first(site, tracing.mean(site) if key is None else site["fn"].sample())
                for name, site in observed.items()
            }

        with torch.no_grad(), tracing.seeded(0 if key is None else key):
            return self._by_chain(observe, z)

    def given(self, params: Tensors, z: Tensors, x: torch.Tensor) -> Tensors:
        """Values of the observed sites when the program is called with data."""
        sites = self.run(params, z, x, "centred").observed
        return {name: self._first(site, site["value"]) for name, site in sites.items()}

    def pointwise(self, params: Tensors, z: Tensors, x: torch.Tensor, coordinates: str) -> Tensors:
        """Log density of every observed site by datum."""

        def eager(params: Tensors, z: Tensors, x: torch.Tensor | None) -> Tensors:
            terms = self._by_chain(lambda z: self.run(params, z, x, coordinates, pointwise=True).terms, z)
            return {name: terms[name] for name in terms if name in self.observed_names}

        with torch.no_grad():
            return self._graph(("pointwise", coordinates), eager, params, z, x)

    def params_of(self, values: Mapping[str, Any]) -> Tensors:
        """Parameters by name from the unconstrained ones of a parameter store."""
        found = {tracing.readable(name): leaf for name, leaf in values.items()}
        return {name: found[name] for name in all_there(self.params, found)}

    def write_back(self, params: Tensors) -> None:
        """Copy parameter values into the user's own modules and parameters."""
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                leaf.copy_(params[name])


def _reached(value: torch.Tensor, params: Tensors) -> set[str]:
    """Names of the parameters that `value` depends on."""
    if not value.requires_grad or not params:
        return set()
    grads = torch.autograd.grad(value.sum(), list(params.values()), allow_unused=True, retain_graph=True)
    return {name for name, g in zip(params, grads, strict=True) if g is not None}


def trace(model: Callable[..., Any], data: Any, plate: str | None, seed: int) -> TracedProgram:
    """Run a model once on a batch of data and see it as densities."""
    return first_or_whole(lambda x: TracedProgram(model, x, plate, seed), data)
