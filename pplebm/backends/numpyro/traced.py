"""A NumPyro program as unnormalised densities: how its models run, and how functions of them are compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers

from pplebm.backends.numpyro import sites
from pplebm.backends.numpyro.arrays import asarray, iterate
from pplebm.backends.numpyro.devices import gather, spread
from pplebm.backends.numpyro.first_run import first_run
from pplebm.backends.numpyro.following import made_of
from pplebm.backends.numpyro.graphs import UNTRACEABLE, check_agreement, is_traced, quick
from pplebm.backends.numpyro.messengers import Handler, Starts
from pplebm.backends.numpyro.parameters import Parameters
from pplebm.backends.rows import failure, first_or_whole
from pplebm.backends.structure import weighed
from pplebm.backends.traced import Traced
from pplebm.backends.visit import At, Visit
from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import PPL, ChainOptions, Data
from pplebm.ppl.trees import n_rows

Arrays = dict[str, jax.Array]


class TracedProgram(Traced):
    """What `pplebm.Program` asks of a NumPyro model."""

    ppl_name = "numpyro"
    to_value = staticmethod(sites.to_value)
    density_at = staticmethod(sites.density_at)
    to_coordinates = staticmethod(sites.to_coordinates)
    density = staticmethod(sites.density)
    plain_density = staticmethod(sites.plain_density)
    mean = staticmethod(sites.mean)
    masks_of = staticmethod(sites.masks_of)
    counted = staticmethod(sites.counted)
    off_gradient = staticmethod(contextlib.nullcontext)

    def __init__(
        self,
        model: Callable[..., Any],
        data: Data,
        others: Callable[[], list[Data]] | None,
        plate: str | None,
        seed: int,
    ) -> None:
        super().__init__(model, data, others)
        self.first_key = jax.random.key(0)
        self.parameters = Parameters({})
        self._checked: set[Any] = set()
        self._chains: dict[Any, Callable[..., Any]] = {}
        self._jitted: dict[Any, Callable[..., Arrays]] = {}
        self.unregistered = []  # a pure function can only use what it is given
        z, observed = first_run(self, data, jax.random.key(seed), plate)
        self.find(z, observed)
        self.sort_parameters(made_of(lambda params: self.run(params, data, At(z)).terms, self.params))

    # --- parameters

    def params_of(self, values: Mapping[str, Any]) -> Arrays:
        """Parameters by name from constrained ones by statement."""
        return self.parameters.flat(values)

    def params_in_supports(self, params: Arrays) -> Arrays:
        """Values of parameters that were declared with a constraint."""
        return self.parameters.in_supports(params)

    def write_back(self, params: Arrays) -> None:
        """Nothing to do: a NumPyro program holds no weights of its own."""

    # --- runs

    def _call(self, data: Data, params: Arrays) -> Any:
        values = self.parameters.constrained(params) if params else {}
        try:
            return columns.call(handlers.substitute(self.model, data=values), data)
        except PplebmError:
            raise
        except Exception as error:
            raise failure(error, data) from error

    def forward(self, data: Data, key: Any) -> dict[str, Any]:
        """Statements by name of a first run."""
        with handlers.trace() as trace, Starts(), handlers.seed(rng_seed=key):
            self._call(data, {})
        return trace

    def run(self, params: Arrays, data: Data, at: At, key: Any = None) -> Visit:
        """Run the model as it is; randomness comes from the key."""
        visit = Visit(self, at)
        with contextlib.ExitStack() as stack:
            stack.enter_context(Handler(visit))
            if at.start and self.improper:
                stack.enter_context(Starts())
            if key is not None:
                stack.enter_context(handlers.seed(rng_seed=key))
            self._call(data, params)
        return visit

    def unobserve(self, msg: Any) -> None:
        """Let an observed statement draw."""
        msg["is_observed"], msg["value"] = False, None
        if msg["kwargs"].get("rng_key") is None:
            key = numpyro.prng_key()
            msg["kwargs"]["rng_key"] = self.first_key if key is None else key

    def by_chain(self, function: Callable[..., Any], *trees: Any) -> Any:
        """Apply to all rows: at once where rows are data, else chain by chain, vectorised."""
        return jax.vmap(function)(*trees) if self.structure.has_global_latents else function(*trees)

    def draw_chains(self, drawn: Callable[[Any], Arrays], keys: Any) -> Arrays:
        """One draw per key."""
        return jax.vmap(drawn)(keys)

    def with_keys(self, function: Callable[..., Any], z: Arrays, key: Any) -> Any:
        """Apply a function of latents and a key, with a key of its own for every chain of a joint program."""
        keys = jax.random.split(key, n_rows(z)) if self.structure.has_global_latents else key
        return self.by_chain(function, z, keys)

    # --- compiled functions

    def graph(self, kind: Any, eager: Callable[..., Arrays], params: Arrays, z: Arrays, data: Data) -> Arrays:
        """Evaluate, compiled once per shape and checked against a plain run."""
        jitted = self._jitted.setdefault(kind, jax.jit(eager))
        leaves = jax.tree.leaves((params, z, data))
        key = (kind, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self._checked and not any(map(is_traced, leaves)):
            self._checked.add(key)
            with jax.ensure_compile_time_eval():  # numbers may be known while something else is being traced
                check_agreement(jitted, eager, params, z, data)
        return jitted(params, z, data)

    def terms(self, params: Arrays, z: Arrays, data: Data, coordinates: str, observed: bool) -> Arrays:
        """Log density of every site, (B,) each; what a gradient in the parameters is taken of."""
        z, data = gather((z, data), work=n_rows(z) * sum(p.size for p in params.values()))
        return super().terms(params, z, data, coordinates, observed)

    def chain(
        self,
        ppl: PPL,
        kernel: Any,
        state: Any,
        keys: jax.Array,
        params: Arrays,
        data: Data,
        options: ChainOptions,
        observed: bool,
    ) -> tuple[Any, Any]:
        """Steps of a kernel as one scan, compiled once per kernel and shape."""
        name = (kernel.settings, options, observed)
        if name not in self._chains:
            eager = self.eager(options.coordinates, observed)

            def chain(state: Any, keys: jax.Array, params: Arrays, data: Data) -> tuple[Any, Any]:
                def log_density(z: Arrays, *strengths: Any, **by_name: Any) -> jax.Array:
                    terms = eager(params, z, data)
                    return self.as_latents(weighed(terms, self.structure, *strengths, **by_name), z)

                def step(state: Any, noise: Any) -> tuple[Any, Any]:
                    return spread(kernel.move(ppl, spread(noise), state, log_density))

                return iterate(step, spread(state), keys, lambda key: spread(kernel.noise(ppl, key, state.z)))

            self._chains[name] = jax.jit(chain)
        return self._chains[name](state, keys, params, data)

    def dependencies(self, function: Callable[[Any], Arrays], data: Data) -> dict[str, set[str]] | None:
        """By result, paths of the data that it was made of; None where the model cannot be traced."""
        try:
            return made_of(function, data)
        except PplebmError:  # control flow on values
            return None

    def evaluator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function compiled as a whole; as it is where it cannot be, or where a plain run would refuse."""
        return quick(function, checks=not self.structure.has_global_latents)  # vectorised runs look at no arguments

    def shapes(self, function: Callable[..., Arrays], *trees: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the results of a function, which is not computed if it need not be."""
        try:
            found = jax.eval_shape(function, *trees)
        except UNTRACEABLE:
            found = function(*trees)
        return {name: tuple(a.shape) for name, a in found.items()}

    def check_bf16(self) -> None:
        raise PplebmError("precision 'bf16' is for the backend 'pyro'; on 'numpyro' it was slower.")

    # --- arrays

    def splits(self, key: jax.Array, n: int) -> Any:
        return jax.random.split(key, n)

    def moved_axis(self, a: jax.Array, source: int, target: int) -> jax.Array:
        return jnp.moveaxis(a, source, target)

    def stacked(self, arrays: list[jax.Array]) -> jax.Array:
        return jnp.stack(arrays)

    def averaged(self, function: Callable[[Any], Arrays], keys: Any) -> Arrays:
        """Mean over many keys, one after the other: one run is compiled."""
        run = lambda key: jax.tree.map(lambda a: a.astype(jnp.result_type(a, float)), function(key))
        first = jax.tree.map(jnp.zeros_like, jax.eval_shape(run, keys[0]))
        add = lambda total, key: (jax.tree.map(jnp.add, total, run(key)), None)
        return jax.tree.map(lambda a: a / len(keys), jax.lax.scan(add, first, keys)[0])

    def index(self, rows: Any) -> jax.Array:
        return jnp.asarray(rows)

    def numpy(self, a: jax.Array) -> np.ndarray:
        return np.asarray(a)

    def as_latents(self, value: jax.Array, z: Arrays) -> jax.Array:
        """A log density in the precision of the latents: data may have another, and a chain keeps its own."""
        return value.astype(next(iter(z.values())).dtype)

    def like(self, a: np.ndarray, of: jax.Array) -> jax.Array:
        return asarray(a.astype(of.dtype), keep=True)

    def inside(self, msg: Any) -> jax.Array:
        """Whether values lie in their support, (batch shape)."""
        return sites.unmasked(msg["fn"]).support(msg["value"])


def trace(model: Callable[..., Any], data: Data, plate: str | None, seed: int) -> TracedProgram:
    """Run a model once on a few rows of the data, or on all of them, and see it as densities."""
    return first_or_whole(lambda part, others: TracedProgram(model, part, others, plate, seed), data)
