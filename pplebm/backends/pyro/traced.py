"""A Pyro program as unnormalised densities: how its models run, and how functions of them are made fast."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch.distributions import constraints, transform_to

from pplebm.backends.pyro import sites, tracing
from pplebm.backends.pyro.following import NotFollowed, made_of
from pplebm.backends.pyro.graphs import compile_graph
from pplebm.backends.pyro.keys import seeded, split
from pplebm.backends.pyro.precision import check_bf16
from pplebm.backends.pyro.steps import Step, as_latents, run_steps
from pplebm.backends.pyro.trajectories import Ends, run_trajectories
from pplebm.backends.rows import first_or_whole
from pplebm.backends.structure import all_there, structure_of
from pplebm.backends.traced import Traced
from pplebm.backends.visit import At, Visit
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.language import PPL, ChainOptions, Data
from pplebm.ppl.trees import n_rows, take_rows, tree_fill, tree_leaves, tree_values

Tensors = dict[str, torch.Tensor]


class Handler(Messenger):
    """Hands every sample statement to a `Visit`."""

    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit = visit

    def _pyro_sample(self, msg: Any) -> None:
        msg["fn"] = sites.unvalidated(msg["fn"])
        self.visit.enter(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        self.visit.leave(msg)


class TracedProgram(Traced):
    """What `pplebm.Program` asks of a Pyro model."""

    ppl_name, first_key = "pyro", 0
    to_value = staticmethod(sites.to_value)
    density_at = staticmethod(sites.density_at)
    to_coordinates = staticmethod(sites.to_coordinates)
    density = staticmethod(sites.density)
    plain_density = staticmethod(sites.plain_density)
    mean = staticmethod(sites.mean)
    masks_of = staticmethod(sites.masks_of)
    counted = staticmethod(sites.counted)
    off_gradient = staticmethod(torch.no_grad)
    splits = staticmethod(split)
    as_latents = staticmethod(as_latents)

    def __init__(
        self,
        model: Callable[..., Any],
        data: Data,
        others: Callable[[], list[Data]] | None,
        plate: str | None,
        seed: int,
    ) -> None:
        super().__init__(model, data, others)
        self._loops = self._draws_one_by_one = False
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self._compiled: dict[Any, Callable[..., Tensors]] = {}
        self._steps: dict[Any, Any] = {}
        with tracing.store_scope(self._store), seeded(seed), pyro.validation_enabled(True):
            trace = poutine.trace(self._called).get_trace(data)
            self.structure = structure_of(*tracing.split_trace(trace), n_rows(data), plate, sites.BACKEND)
            if not self.structure.has_global_latents:  # no plate of fixed size
                half = take_rows(data, slice(0, n_rows(data) // 2 + 1))
                shorter = poutine.trace(self._called).get_trace(half)
                structure_of(*tracing.split_trace(shorter), n_rows(half), plate, sites.BACKEND)
        self._leaves = tracing.parameters_of(trace)
        self.params = {n: leaf.detach().clone() for n, leaf in self._leaves.items()}
        found = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
        self.note(found)
        with torch.no_grad():
            z = self.moved(Visit(self, At(), found), "centered")
            self.find(z, {site.name: found[site.name]["value"] for site in self.structure.observed})
        self._choose_loop(z)
        self._follow_parameters(z)

    def _called(self, data: Data) -> Any:
        with tracing.Starts():
            return tracing.call(self.model, data)

    def _choose_loop(self, z: Tensors) -> None:
        """Chains of a joint program run at once where the model's code can be vectorised, else one after another."""
        if not self.structure.has_global_latents:
            return
        two = {name: torch.stack([a, a]) for name, a in z.items()}
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torch on what it vectorises slowly
                self.eager("centered", True)(self.params, two, self.example)
        except PplebmError as error:
            self._loops = True
            self.eager("centered", True)(self.params, two, self.example)  # what is wrong all the same is told now
            what = str(error).partition(": ")[2][:160]
            warnings.warn(
                f"the model's code cannot be vectorised over chains, which run one after another: {what}",
                PplebmWarning,
                stacklevel=2,
            )

    def _follow_parameters(self, z: Tensors) -> None:
        """Find by differentiation which parameters enter which terms."""
        params = {n: p.detach().requires_grad_() for n, p in self.params.items()}
        terms = self.run(params, self.example, At(z)).terms
        self.unregistered = tracing.unregistered_leaves(list(terms.values()), params)
        self.sort_parameters({name: _reached(term, params) for name, term in terms.items()})

    # --- runs

    def run(self, params: Tensors, data: Data, at: At, key: int | None = None) -> Visit:
        """Run the model eagerly; randomness comes from the key, or where none is given from torch's generator."""
        visit = Visit(self, at)
        with self._substituted(params), Handler(visit), contextlib.ExitStack() as stack:
            if key is not None:
                stack.enter_context(seeded(key))
            if at.start and self.improper:
                stack.enter_context(tracing.Starts())
            tracing.call(self.model, data)
        return visit

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

    def unobserve(self, msg: Any) -> None:
        """Let an observed statement draw."""
        msg["is_observed"], msg["value"], msg["done"] = False, None, False

    def by_chain(self, function: Callable[..., Any], *trees: Any) -> Any:
        """Apply to all rows: at once where rows are data, else chain by chain, vectorised if the model allows it."""
        if not self.structure.has_global_latents:
            return function(*trees)
        if self._loops:
            return self._one_by_one(function, *trees)
        return torch.func.vmap(function, randomness="different")(*trees)

    def _one_by_one(self, function: Callable[..., Any], *trees: Any) -> Any:
        runs = [function(*(take_rows(tree, i) for tree in trees)) for i in range(n_rows(trees[0]))]
        return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}

    def with_keys(self, function: Callable[..., Any], z: Tensors, key: int) -> Any:
        """Apply a function of latents and a key; what draws from distributions of its own may not be vectorised."""
        run = lambda z: function(z, None)
        with seeded(key):
            if not self.structure.has_global_latents:
                return run(z)
            if not self._draws_one_by_one and not self._loops:
                try:
                    return self.by_chain(run, z)
                except PplebmError:
                    self._draws_one_by_one = True
        with seeded(key):
            return self._one_by_one(run, z)

    def graph(self, kind: Any, eager: Callable[..., Tensors], params: Tensors, z: Tensors, data: Data) -> Tensors:
        """Evaluate by a graph traced once per shape."""
        tensors = [*z.values(), *tree_values(data)]
        key = (kind, tuple((t.shape, t.dtype, t.device) for t in tensors))
        if key not in self._compiled:
            self._compiled[key] = compile_graph(eager, params, z, data)
        return self._compiled[key](params, z, data)

    def chain(
        self,
        ppl: PPL,
        kernel: Any,
        state: Any,
        keys: Any,
        params: Tensors,
        data: Data,
        options: ChainOptions,
        observed: bool,
    ) -> tuple[Any, Any]:
        """Steps of a kernel by a graph of one step, or of one leapfrog step, made once per kernel and shape."""

        def kept(kernel: Any, made: Callable[[], Any], *trees: Any) -> Any:
            key = (kernel.settings, options, observed, tuple((t.shape, t.dtype, t.device) for t in tree_values(trees)))
            if key not in self._steps:
                self._steps[key] = made()
            return self._steps[key]

        def step(kernel: Any, state: Any) -> Step:
            terms = self.eager(options.coordinates, observed)
            made = lambda: Step(ppl, terms, self.structure, kernel, params, data, state, keys[0], options)
            return kept(kernel, made, params, state, data)

        if kernel.trajectory is None:
            return run_steps(ppl, step(kernel, state), kernel, state, keys, params, data)
        ends = lambda noise: kept(kernel, lambda: Ends(ppl, kernel.trajectory, noise, state), noise, state)
        return run_trajectories(ppl, step, ends, kernel, state, keys, params, data)

    def dependencies(self, function: Callable[[Any], Tensors], data: Data) -> dict[str, set[str]] | None:
        """By result, paths of the data that it was made of; None where the model cannot be traced."""
        try:
            return made_of(lambda leaves: function(tree_fill(data, leaves)), dict(tree_leaves(data)))
        except NotFollowed:
            return None

    def evaluator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is."""
        return function

    def shapes(self, function: Callable[..., Tensors], *trees: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the results of a function."""
        return {name: tuple(a.shape) for name, a in function(*trees).items()}

    def check_bf16(self) -> None:
        """Refuse bfloat16 on a CPU without units for it."""
        check_bf16(tree_values(self.example)[0].device)

    # --- arrays

    def moved_axis(self, a: torch.Tensor, source: int, target: int) -> torch.Tensor:
        return a.movedim(source, target)

    def stacked(self, arrays: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(arrays)

    def averaged(self, function: Callable[[Any], dict[str, torch.Tensor]], keys: Any) -> dict[str, torch.Tensor]:
        total = {name: a / len(keys) for name, a in function(keys[0]).items()}
        for key in keys[1:]:
            total = {name: total[name] + a / len(keys) for name, a in function(key).items()}
        return total

    def index(self, rows: Any) -> torch.Tensor:
        return torch.as_tensor(rows)

    def numpy(self, a: torch.Tensor) -> np.ndarray:
        return a.detach().cpu().numpy()

    def like(self, a: np.ndarray, of: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(a)).to(of)

    def inside(self, msg: Any) -> torch.Tensor:
        """Whether values lie in their support, (batch shape)."""
        return sites.unmasked(msg["fn"]).support.check(msg["value"])

    # --- parameters

    def params_of(self, values: Mapping[str, Any]) -> Tensors:
        """Parameters by name from the unconstrained ones of a parameter store."""
        found = {tracing.readable(name): leaf for name, leaf in values.items()}
        return {name: found[name] for name in all_there(self.params, found)}

    def params_in_supports(self, params: Tensors) -> Tensors:
        """Values of parameters that were declared with a constraint, which the store remembers."""
        declared = {tracing.readable(name): constraint for name, constraint in self._store["constraints"].items()}
        supports = {name: declared.get(name, constraints.real) for name in self.params}
        return {n: transform_to(c)(params[n]) for n, c in supports.items() if c is not constraints.real}

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


def trace(model: Callable[..., Any], data: Data, plate: str | None, seed: int) -> TracedProgram:
    """Run a model once on a few rows of the data, or on all of them, and see it as densities."""
    return first_or_whole(lambda part, others: TracedProgram(model, part, others, plate, seed), data)
