"""A NumPyro program as unnormalised densities: how its models run, and how functions of them are compiled."""

from __future__ import annotations

import contextlib
import re
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
from pplebm.backends.numpyro.following import made_of
from pplebm.backends.numpyro.messengers import Checks, Handler, Starts
from pplebm.backends.numpyro.parameters import Parameters
from pplebm.backends.rows import first_or_whole, shapes_of
from pplebm.backends.structure import structure_of, weighed
from pplebm.backends.traced import Traced
from pplebm.backends.visit import At, Visit
from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import PPL, ChainOptions, Data
from pplebm.ppl.trees import n_rows, take_rows, tree_map

Arrays = dict[str, jax.Array]
UNTRACEABLE = (PplebmError, jax.errors.JAXTypeError)  # the model looks at values; or it is refused, if traced or not
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile, not to run


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
        self._parameters = Parameters({})
        self._checked: set[Any] = set()
        self._chains: dict[Any, Callable[..., Any]] = {}
        self._jitted: dict[Any, Callable[..., Arrays]] = {}
        self.unregistered = []  # a pure function can only use what it is given
        key = jax.random.key(seed)
        z, observed = self._first_run(data, key, plate)
        if not self.structure.has_global_latents:  # no plate of fixed size
            self._shorter_run(data, key, plate)
        self.find(z, observed)
        self._sort_parameters(z)

    def _first_run(self, data: Any, key: Any, plate: str | None) -> tuple[Arrays, Arrays]:
        """Note structure and parameters; coordinates of the latents, and values of the observed sites.

        Compiled as a whole, because operations one by one take seconds. A compiled run only says whether all is well:
        where it is not, or cannot be told, a plain run follows, which refuses by name.
        """
        known: Arrays = {}

        def run(data: Any, key: Any) -> tuple[Any, ...]:
            checks = Checks()
            with checks:
                trace = self._forward(data, key)
            found = self._note(trace, n_rows(data), plate)
            statements = {n: s for n, s in trace.items() if s["type"] == "param"}
            self._parameters = Parameters(statements)
            params = self._parameters.flat({n: s["value"] for n, s in statements.items()})
            known.update({n: a for n, a in params.items() if not _is_traced(a)})
            z = self.moved(Visit(self, At(), found), "centered")
            observed = {site.name: found[site.name]["value"] for site in self.structure.observed}
            self.params = params
            return z, observed, {n: a for n, a in params.items() if n not in known}, checks.all()

        def compiled(data: Any, key: Any) -> tuple[Any, ...]:
            with jax.ensure_compile_time_eval():  # what the model keeps for later runs must be numbers
                found = run(data, key)
            if any(map(_is_traced, jax.tree.leaves((self._parameters.constraints, self.supports)))):
                raise PplebmError("a constraint depends on data.")
            return found

        try:
            z, observed, params, is_well = jax.jit(compiled, compiler_options=QUICK)(data, key)
            if not is_well:
                raise PplebmError("an argument is out of range.")
        except UNTRACEABLE:
            known.clear()
            z, observed, params, _ = run(data, key)
        self.params = {name: known.get(name, params.get(name)) for name in self.params}
        return z, observed

    def _note(self, trace: dict[str, Any], n: int, plate: str | None) -> dict[str, Any]:
        """Structure of the program, and what else is the same in every run; statements by name."""
        self.structure = structure_of(*_split(trace), n, plate, sites.HOST)
        found = {name: msg for name, msg in trace.items() if msg["type"] in ("sample", "deterministic")}
        self.note(found)
        looped = [site.name for site in self.structure.latents if site.name in self.looped]
        self.supports = {name: found[name]["fn"].support for name in looped}
        return found

    def _shorter_run(self, data: Any, key: Any, plate: str | None) -> None:
        """Refuse a structure that does not follow the number of data; numbers are only looked at if they must be."""

        def run(data: Any, key: Any) -> None:
            half = take_rows(data, slice(0, n_rows(data) // 2 + 1))
            structure_of(*_split(self._forward(half, key)), n_rows(half), plate, sites.HOST)

        try:
            jax.eval_shape(run, data, key)
        except UNTRACEABLE:
            run(data, key)

    # --- parameters

    def _sort_parameters(self, z: Arrays) -> None:
        """Find which parameters enter which terms, by following the operations of the density."""
        s = self.structure
        found = made_of(lambda p: self.run(p, self.example, At(z)).terms, self.params)
        tilt = {n for site in s.tilts for n in found[site.name]}
        base = {n for site in s.latents for n in found[site.name]}
        likelihood = {n for site in (*s.observed, *s.factors) for n in found[site.name]}
        self.tilt_params = frozenset(tilt - base - likelihood)
        self.prior_params = frozenset(tilt | base)
        self.reached_params = frozenset(tilt | base | likelihood)

    def params_of(self, values: Mapping[str, Any]) -> Arrays:
        """Parameters by name from constrained ones by statement."""
        return self._parameters.flat(values)

    def write_back(self, params: Arrays) -> None:
        """Nothing to do: a NumPyro program holds no weights of its own."""

    # --- runs

    def _call(self, data: Any, params: Arrays) -> Any:
        values = self._parameters.constrained(params) if params else {}
        try:
            return columns.call(handlers.substitute(self.model, data=values), data)
        except PplebmError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}".replace("\n", " ")
            raise PplebmError(
                f"the model failed on {shapes_of(data)}: {what} (pplebm calls the model with data: an array alone, a "
                f"mapping by keyword, a tuple by position; rows first.)"
            ) from error

    def _forward(self, data: Any, key: Any) -> dict[str, Any]:
        """Statements by name of a first run."""
        with handlers.trace() as trace, Starts(), handlers.seed(rng_seed=key):
            self._call(data, {})
        return trace

    def run(self, params: Arrays, data: Any, at: At, key: Any = None) -> Visit:
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

    def graph(self, kind: Any, eager: Callable[..., Arrays], params: Arrays, z: Arrays, data: Any) -> Arrays:
        """Evaluate, compiled once per shape and checked against a plain run."""
        jitted = self._jitted.setdefault(kind, jax.jit(eager))
        leaves = jax.tree.leaves((params, z, data))
        key = (kind, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self._checked and not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            self._checked.add(key)
            with jax.ensure_compile_time_eval():  # numbers may be known while something else is being traced
                _check_agreement(jitted, eager, params, z, data)
        return jitted(params, z, data)

    def terms(self, params: Arrays, z: Arrays, data: Any, coordinates: str, observed: bool) -> Arrays:
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
        data: Any,
        options: ChainOptions,
        observed: bool,
    ) -> tuple[Any, Any]:
        """Steps of a kernel as one scan, compiled once per kernel and shape."""
        name = (kernel.settings, options, observed)
        if name not in self._chains:
            eager, tilts = self.eager(options.coordinates, observed), frozenset(s.name for s in self.structure.tilts)

            def chain(state: Any, keys: jax.Array, params: Arrays, data: Any) -> tuple[Any, Any]:
                def log_density(z: Arrays, tilt_strength: Any = None) -> jax.Array:
                    return weighed(eager(params, z, data), tilts, tilt_strength)

                def step(state: Any, noise: Any) -> tuple[Any, Any]:
                    return spread(kernel.move(ppl, spread(noise), state, log_density))

                return iterate(step, spread(state), keys, lambda key: spread(kernel.noise(ppl, key, state.z)))

            self._chains[name] = jax.jit(chain)
        return self._chains[name](state, keys, params, data)

    def dependencies(self, function: Callable[[Any], Arrays], data: Any) -> dict[str, set[str]] | None:
        """By result, paths of the data that it was made of; None where the model cannot be traced."""
        try:
            return made_of(function, data)
        except PplebmError:  # control flow on values
            return None

    def evaluator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function compiled as a whole; as it is where it cannot be, or where a plain run would refuse."""
        is_joint = self.structure.has_global_latents  # vectorised, where plain runs look at no arguments either

        def checked(*trees: Any) -> tuple[Any, Any]:
            checks = Checks()
            with contextlib.nullcontext() if is_joint else checks:
                found = function(*trees)
            return found, checks.all()

        compiled = jax.jit(checked, compiler_options=QUICK)

        def evaluate(*trees: Any) -> Any:
            if any(map(_is_traced, jax.tree.leaves((trees, jnp.zeros(()))))):  # inside what is being compiled
                return function(*trees)
            with contextlib.suppress(*UNTRACEABLE):
                found, is_well = compiled(*trees)
                if is_well:
                    return found
            return function(*trees)

        return evaluate

    def shapes(self, function: Callable[..., Arrays], *trees: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the results of a function, which is not computed if it need not be."""
        try:
            found = jax.eval_shape(function, *trees)
        except UNTRACEABLE:
            found = function(*trees)
        return {name: tuple(a.shape) for name, a in found.items()}

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

    def like(self, a: np.ndarray, of: jax.Array) -> jax.Array:
        return asarray(a.astype(of.dtype), keep=True)

    def inside(self, msg: Any) -> jax.Array:
        """Whether values lie in their support, (batch shape)."""
        return sites.unmasked(msg["fn"]).support(msg["value"])


def _check_agreement(jitted: Any, eager: Any, params: Arrays, z: Arrays, data: Any) -> None:
    """Trace twice: state kept by the model, frozen into the compiled density, is another one the second time.

    Where operations differ, values are compared with a plain run, at other inputs.
    """
    first, second = jitted.trace(params, z, data).jaxpr, jax.make_jaxpr(lambda *trees: eager(*trees))(params, z, data)
    if _same_operations(first, second):
        return
    jitted(params, z, data)
    z, data = {n: 0.9 * v + 0.1 for n, v in z.items()}, tree_map(lambda a: jnp.roll(a, 1, 0), data)
    expected, got = eager(params, z, data), jitted(params, z, data)
    for name, value in expected.items():
        error = jnp.abs(jnp.nan_to_num(got[name]) - jnp.nan_to_num(value)) / (1 + jnp.abs(jnp.nan_to_num(value)))
        if float(error.max()) > (1e-3 if value.dtype == jnp.float32 else 1e-8):
            raise PplebmError(
                f"the compiled log density of site '{name}' disagrees with a plain run (relative difference "
                f"{float(error.max()):.1e}): the model keeps state between calls; make it a pure function."
            )


def _same_operations(first: Any, second: Any) -> bool:
    """Whether two traces are the same, constants included; addresses of functions in them are no part of it."""
    text, other = (re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr)) for closed in (first, second))
    pairs = zip(first.consts, second.consts)
    return text == other and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _is_traced(a: Any) -> bool:
    return isinstance(a, jax.core.Tracer)


def _split(trace: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Sample and deterministic statements in program order, and the full sizes of plates."""
    full_sizes = {name: site["args"][0] for name, site in trace.items() if site["type"] == "plate"}
    return [site for site in trace.values() if site["type"] in ("sample", "deterministic")], full_sizes


def trace(model: Callable[..., Any], data: Any, plate: str | None, seed: int) -> TracedProgram:
    """Run a model once on a few rows of the data, or on all of them, and see it as densities."""
    return first_or_whole(lambda part, others: TracedProgram(model, part, others, plate, seed), data)
