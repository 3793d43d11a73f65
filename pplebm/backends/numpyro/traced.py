"""A NumPyro program as unnormalised densities, one number per datum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from pplebm.backends.numpyro import sites
from pplebm.backends.numpyro.arrays import iterate
from pplebm.backends.numpyro.devices import spread
from pplebm.backends.structure import structure_of
from pplebm.errors import PplebmError
from pplebm.ppl import How

Arrays = dict[str, jax.Array]


class AtLatents(Messenger):
    """Runs a model at given latents and notes, site by site, log densities and values."""

    def __init__(self, traced: TracedProgram, z: Arrays, coordinates: str, with_data: bool) -> None:
        super().__init__()
        self.traced, self.z, self.coordinates, self.with_data = traced, z, coordinates, with_data
        self.terms: Arrays = {}
        self.sites: dict[str, Any] = {}
        self.observed: dict[str, Any] = {}
        self._log_density: Arrays = {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name in self.z:
            u = sites.datum_back(self.z[name], msg, self.traced.structure.plate)
            msg["value"], self._log_density[name] = sites.to_value(msg["fn"], u, self.coordinates)
        elif name in self.traced.observed_names and not self.with_data:
            msg["value"] = jnp.zeros(msg["fn"].shape())

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name in self.z:
            self.sites[name], log_density = dict(msg), self._log_density[name]
        elif name in self.traced.tilt_names or (self.with_data and name in self.traced.observed_names):
            log_density = msg["fn"].log_prob(msg["value"])
        else:
            if name in self.traced.observed_names:
                self.observed[name] = dict(msg)
            return
        self.terms[name] = sites.per_datum(log_density, msg, self.traced.structure.plate)


class TracedProgram:
    """What `pplebm.Program` asks of a NumPyro model; see `pplebm.ppl.Traced` for the contract of each method."""

    def __init__(self, model: Callable[..., Any], data: jax.Array, plate: str | None, seed: int) -> None:
        self.model, self.example = model, data
        key = jax.random.key(seed)
        trace, shorter = (self._forward(model, x, key, {}) for x in (data, data[: len(data) // 2 + 1]))
        self.structure = structure_of(*_split(trace), len(data), plate, sites.HOST)
        structure_of(*_split(shorter), len(data) // 2 + 1, plate, sites.HOST)  # no plate of fixed size
        self.tilt_names = frozenset(s.name for s in self.structure.tilts)
        self.observed_names = frozenset(s.name for s in self.structure.observed)
        self._statements = {n: s for n, s in trace.items() if s["type"] == "param"}
        self.params = self._flatten({n: s["value"] for n, s in self._statements.items()})
        self.tilt_params: frozenset[str] = frozenset()
        self.prior_params: frozenset[str] = frozenset()
        self.reached_params: frozenset[str] = frozenset()
        self.unregistered: list[tuple[int, ...]] = []  # a pure function can only use what it is given
        self._checked: set[Any] = set()
        self._chains: dict[Any, Callable[..., Any]] = {}
        self._jitted = jax.jit(self._run_terms, static_argnums=3)
        if all(site.is_local for site in self.structure.latents):
            self._sort_parameters(key)

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

    def _sort_parameters(self, key: Any) -> None:
        """Find which parameters enter which terms, by following the operations of the density."""
        z = self.draw(key, len(self.example), self.params, "centred")
        reached = _dependencies(lambda p: self._run_terms(p, z, self.example, "centred"), self.params)
        tilt = {n for name in self.tilt_names for n in reached[name]}
        base = {n for site in self.structure.latents for n in reached[site.name]}
        likelihood = {n for name in self.observed_names for n in reached[name]}
        self.tilt_params = frozenset(tilt - base - likelihood)
        self.prior_params = frozenset(tilt | base)
        self.reached_params = frozenset(tilt | base | likelihood)

    # --- running the model

    def _call(self, model: Callable[..., Any], x: jax.Array, params: Arrays) -> Any:
        values = self._constrained(params) if params else {}
        try:
            return handlers.substitute(model, data=values)(x)
        except PplebmError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}".replace("\n", " ")
            raise PplebmError(
                f"the model failed on a batch of shape {tuple(x.shape)}: {what} (pplebm calls the model with one "
                f"argument, a batch of data of shape (B, ...).)"
            ) from error

    def _forward(self, model: Callable[..., Any], x: jax.Array, key: Any, params: Arrays) -> dict[str, Any]:
        return handlers.trace(handlers.seed(lambda x: self._call(model, x, params), key)).get_trace(x)

    def run(self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str) -> AtLatents:
        """Run the model at latents z; without data it is called on a stand-in batch of the same size."""
        handler = AtLatents(self, z, coordinates, with_data=x is not None)
        with handler:
            self._call(self.model, self.rows(len(next(iter(z.values())))) if x is None else x, params)
        return handler

    def rows(self, n: int) -> jax.Array:
        """A batch of n data of the right shape, made by repeating the example."""
        return self.example[jnp.arange(n) % len(self.example)]

    def _run_terms(self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str) -> Arrays:
        return self.run(params, z, x, coordinates).terms

    def terms(self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str) -> Arrays:
        """Log density of every site, (B,) each, compiled once per shape and checked against a plain run."""
        leaves = jax.tree.leaves((params, z, x))
        key = (coordinates, x is None, tuple(leaf.shape for leaf in leaves))
        if key not in self._checked and not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            self._checked.add(key)
            self._check_agreement(params, z, x, coordinates)
        return self._jitted(params, z, x, coordinates)

    def _check_agreement(self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str) -> None:
        """Compile at these inputs, compare at others: state kept by the model is frozen into the compiled density."""
        self._jitted(params, z, x, coordinates)
        z, x = {n: 0.9 * v + 0.1 for n, v in z.items()}, None if x is None else jnp.roll(x, 1, 0)
        expected, got = self._run_terms(params, z, x, coordinates), self._jitted(params, z, x, coordinates)
        for name, value in expected.items():
            error = jnp.abs(jnp.nan_to_num(got[name]) - jnp.nan_to_num(value)) / (1 + jnp.abs(jnp.nan_to_num(value)))
            if float(error.max()) > (1e-3 if value.dtype == jnp.float32 else 1e-8):
                raise PplebmError(
                    f"the compiled log density of site '{name}' disagrees with a plain run (relative difference "
                    f"{float(error.max()):.1e}): the model keeps state between calls; make it a pure function."
                )

    def chain(
        self, kernel: Any, state: Any, keys: jax.Array, params: Arrays, x: jax.Array | None, how: How
    ) -> tuple[Any, Any]:
        """Steps of a kernel as one scan, compiled once per kernel and shape."""
        if (kernel.settings, how) not in self._chains:

            def chain(state: Any, keys: jax.Array, params: Arrays, x: jax.Array | None) -> tuple[Any, Any]:
                def log_density(z: Arrays) -> jax.Array:
                    terms = list(self._run_terms(params, z, x, how.coordinates).values())
                    return sum(terms[1:], terms[0])

                def step(state: Any, noise: Any) -> tuple[Any, Any]:
                    return spread(kernel.move(spread(noise), state, log_density))

                return iterate(step, spread(state), keys, lambda key: spread(kernel.noise(key, state.z)))

            self._chains[kernel.settings, how] = jax.jit(chain)
        return self._chains[kernel.settings, how](state, keys, params, x)

    def _moved(self, found: dict[str, Any], coordinates: str) -> Arrays:
        plate = self.structure.plate
        return {
            name: sites.datum_first(sites.to_coordinates(s["fn"], s["value"], coordinates), s, plate)
            for name, s in found.items()
        }

    def move(self, params: Arrays, z: Arrays, coordinates: str, target: str) -> Arrays:
        """The same latents in other coordinates."""
        return self._moved(self.run(params, z, None, coordinates).sites, target)

    def draw(self, key: Any, n: int, params: Arrays, coordinates: str) -> Arrays:
        """Ancestral draws of the latents, tilts ignored."""
        return self._moved(self._latents(self._forward(self.model, self.rows(n), key, params)), coordinates)

    def _latents(self, trace: dict[str, Any]) -> dict[str, Any]:
        return {site.name: trace[site.name] for site in self.structure.latents}

    def values(self, params: Arrays, z: Arrays, coordinates: str) -> Arrays:
        """Values of the latent sites in their supports, (B, *event)."""
        found = self.run(params, z, None, coordinates).sites
        return {name: sites.datum_first(s["value"], s, self.structure.plate) for name, s in found.items()}

    def coordinates_of(self, params: Arrays, values: Arrays, coordinates: str) -> Arrays:
        """Coordinates of given site values: the inverse of `values`."""
        x, key = self.rows(len(next(iter(values.values())))), jax.random.key(0)
        shapes = self._latents(self._forward(self.model, x, key, params))
        placed = {n: sites.datum_back(jnp.asarray(values[n]), s, self.structure.plate) for n, s in shapes.items()}
        given = handlers.substitute(self.model, data=placed)
        return self._moved(self._latents(self._forward(given, x, key, params)), coordinates)

    def observe(self, params: Arrays, z: Arrays, coordinates: str, key: Any | None) -> Arrays:
        """Means of the observed sites given the latents, (B, *event); draws when a key is given."""
        observed = self.run(params, z, None, coordinates).observed
        if not observed:
            raise PplebmError("the program has no observed site; condition one with numpyro.sample(..., obs=x).")
        keys = [None] * len(observed) if key is None else list(jax.random.split(key, len(observed)))
        plate = self.structure.plate
        return {
            name: sites.datum_first(sites.mean(s) if k is None else s["fn"].sample(k), s, plate)
            for (name, s), k in zip(observed.items(), keys, strict=True)
        }

    def write_back(self, params: Arrays) -> None:
        """Nothing to do: a NumPyro program holds no weights of its own."""


def _split(trace: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Sample statements in program order, and the full sizes of plates."""
    full_sizes = {name: site["args"][0] for name, site in trace.items() if site["type"] == "plate"}
    return [site for site in trace.values() if site["type"] == "sample"], full_sizes


def _readable(name: str, path: Any) -> str:
    """ "net$params" and the path of a leaf become "net.path"; a plain array keeps its name."""
    parts = [str(getattr(step, "key", getattr(step, "name", getattr(step, "idx", step)))) for step in path]
    return ".".join([name.removesuffix("$params"), *parts])


def _dependencies(function: Callable[[Arrays], Arrays], params: Arrays) -> dict[str, set[str]]:
    """Which parameters each output depends on."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(params)
    names = [_readable("", path)[1:] for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    known: dict[Any, set[str]] = {v: {n} for v, n in zip(closed.jaxpr.invars, names, strict=True)}
    for equation in closed.jaxpr.eqns:
        inputs = [v for v in equation.invars if not hasattr(v, "val")]
        reached = set().union(*(known.get(v, set()) for v in inputs))
        known.update(dict.fromkeys(equation.outvars, reached))
    outputs = zip(jax.tree_util.tree_flatten_with_path(shapes)[0], closed.jaxpr.outvars, strict=True)
    return {path[0].key: known.get(v, set()) if not hasattr(v, "val") else set() for (path, _), v in outputs}


def trace(model: Callable[..., Any], data: Any, plate: str | None, seed: int) -> TracedProgram:
    """Run a model once on a batch of data and see it as densities."""
    return TracedProgram(model, data, plate, seed)
