"""A NumPyro program as unnormalised densities: how its models run, and how functions of them are compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.interpreters.partial_eval import dce_jaxpr
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from pplebm.backends.numpyro import sites
from pplebm.backends.numpyro.arrays import iterate
from pplebm.backends.numpyro.devices import gather, spread
from pplebm.backends.structure import all_there, first_or_whole, structure_of, weighed
from pplebm.backends.traced import At, Traced, Visit, few_rows, other_rows, shapes_of
from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import PPL, ChainOptions
from pplebm.ppl.trees import n_rows, take_rows, tree_map

Arrays = dict[str, jax.Array]


class Handler(Messenger):
    """Hands every sample and deterministic statement to a `Visit`, those inside loops after the loop."""

    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit = visit

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            self._enter_loop(msg)
        elif msg["type"] == "sample":
            self.visit.enter(msg)

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] in ("sample", "deterministic"):
            self.visit.leave(msg)

    def _enter_loop(self, msg: Any) -> None:
        """Statements inside a scan cannot be met one by one: their values are handed in as series."""
        traced, at = self.visit.traced, self.visit.at
        series = {name: at.values[name] for name in traced.looped if at.values is not None and name in at.values}
        for name in traced.looped if at.z is not None else ():
            if traced.kinds[name] == "latent":
                u = traced.placed(at.z[name], traced.coordinate_axes.get(name))  # type: ignore[index]
                series[name] = biject_to(traced.supports[name])(u)
        if series:
            msg["kwargs"]["substitute_stack"].append(("substitute", series))
        if at.generate:
            step, *rest = msg["args"]
            msg["args"] = (handlers.uncondition(step), *rest)


class Starts(Messenger):
    """Gives latents whose distribution has no draws a value, and marks them."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["value"] is None and not msg["is_observed"]:
            key = msg["kwargs"].get("rng_key")
            msg["value"], msg["is_improper"] = sites.improper_start(msg["fn"], key)


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

    def __init__(self, model: Callable[..., Any], data: Any, others: list[Any], plate: str | None, seed: int) -> None:
        self.model, self.example, self.first_key = model, data, jax.random.key(0)
        self._statements: dict[str, Any] = {}
        key = jax.random.key(seed)
        trace = self._forward(data, key)
        self._statements = {n: s for n, s in trace.items() if s["type"] == "param"}
        self.params = self._flatten({n: s["value"] for n, s in self._statements.items()})
        self.structure = structure_of(*_split(trace), n_rows(data), plate, sites.HOST)
        if not self.structure.has_global_latents:  # no plate of fixed size
            half = take_rows(data, slice(0, n_rows(data) // 2 + 1))
            structure_of(*_split(self._forward(half, key)), n_rows(half), plate, sites.HOST)
        self.unregistered = []  # a pure function can only use what it is given
        self._checked: set[Any] = set()
        self._chains: dict[Any, Callable[..., Any]] = {}
        self._jitted: dict[Any, Callable[..., Arrays]] = {}
        found = {name: site for name, site in trace.items() if site["type"] in ("sample", "deterministic")}
        self.supports = {s.name: found[s.name]["fn"].support for s in self.structure.latents}
        self.find(found, data, others, key)
        visit = Visit(self, At())
        visit.sites = found
        self._sort_parameters(self.moved(visit, "centered"))

    # --- parameters: pytrees of constrained values in the host, flat and unconstrained here

    def _constraint(self, name: str) -> Any:
        return self._statements[name]["kwargs"].get("constraint", constraints.real)

    def _flatten(self, values: dict[str, Any]) -> Arrays:
        flat = {}
        for name, value in values.items():
            for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
                is_free = self._constraint(name) is constraints.real
                free = leaf if is_free else biject_to(self._constraint(name)).inv(leaf)
                flat[_readable(name, path)] = jnp.asarray(free)
        return flat

    def _constrained(self, params: Arrays) -> dict[str, Any]:
        values = {}
        for name, statement in self._statements.items():
            paths, structure = jax.tree_util.tree_flatten_with_path(statement["value"])
            leaves = [params[_readable(name, path)] for path, _ in paths]
            if self._constraint(name) is not constraints.real:
                leaves = [biject_to(self._constraint(name))(leaf) for leaf in leaves]
            values[name] = jax.tree_util.tree_unflatten(structure, leaves)
        return values

    def _sort_parameters(self, z: Arrays) -> None:
        """Find which parameters enter which terms, by following the operations of the density."""
        s = self.structure
        found = _followed(lambda p: self.run(p, self.example, At(z)).terms, self.params)
        tilt = {n for site in s.tilts for n in found[site.name]}
        base = {n for site in s.latents for n in found[site.name]}
        likelihood = {n for site in (*s.observed, *s.factors) for n in found[site.name]}
        self.tilt_params = frozenset(tilt - base - likelihood)
        self.prior_params = frozenset(tilt | base)
        self.reached_params = frozenset(tilt | base | likelihood)

    def params_of(self, values: Mapping[str, Any]) -> Arrays:
        """Parameters by name from constrained ones by statement."""
        return self._flatten({name: values[name] for name in all_there(self._statements, values)})

    def write_back(self, params: Arrays) -> None:
        """Nothing to do: a NumPyro program holds no weights of its own."""

    # --- runs

    def _call(self, data: Any, params: Arrays) -> Any:
        values = self._constrained(params) if params else {}
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
            return _followed(function, data)
        except PplebmError:  # control flow on values
            return None

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
        return jnp.asarray(a, jnp.asarray(of).dtype)

    def inside(self, msg: Any) -> jax.Array:
        """Whether values lie in their support, (batch shape)."""
        return sites.unmasked(msg["fn"]).support(msg["value"])


def _check_agreement(jitted: Any, eager: Any, params: Arrays, z: Arrays, data: Any) -> None:
    """Compile at these inputs, compare at others: state kept by the model is frozen into the compiled density."""
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


def _split(trace: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Sample and deterministic statements in program order, and the full sizes of plates."""
    full_sizes = {name: site["args"][0] for name, site in trace.items() if site["type"] == "plate"}
    return [site for site in trace.values() if site["type"] in ("sample", "deterministic")], full_sizes


def _readable(name: str, path: Any) -> str:
    """ "net$params" and the path of a leaf become "net.path"; a plain array keeps its name."""
    parts = [str(getattr(step, "key", getattr(step, "name", getattr(step, "idx", step)))) for step in path]
    return ".".join([name.removesuffix("$params"), *parts])


def _followed(function: Callable[[Any], Arrays], tree: Any) -> dict[str, set[str]]:
    """By output, paths of the leaves of the input that it was made of."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(tree)
    paths = [
        "/".join(_readable("", [p])[1:] for p in path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
    names = [path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]
    found = {}
    for i, name in enumerate(names):
        _, used = dce_jaxpr(closed.jaxpr, [j == i for j in range(len(names))])
        found[name] = {path for path, is_used in zip(paths, used, strict=True) if is_used}
    return found


def trace(model: Callable[..., Any], data: Any, plate: str | None, seed: int) -> TracedProgram:
    """Run a model once on a few rows of the data, or on all of them, and see it as densities."""
    n, others = n_rows(data), other_rows(data)
    of = lambda x: TracedProgram(model, x, others if n_rows(x) < n else [], plate, seed)
    return first_or_whole(of, data, few_rows, n)
