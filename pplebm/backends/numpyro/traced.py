"""A NumPyro program as unnormalised densities, one number per datum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from pplebm.backends.numpyro import sites
from pplebm.backends.numpyro.arrays import iterate
from pplebm.backends.numpyro.devices import gather, spread
from pplebm.backends.structure import all_there, first_or_whole, plates_of, structure_of, weighed
from pplebm.errors import PplebmError
from pplebm.ppl import How

Arrays = dict[str, jax.Array]


class AtLatents(Messenger):
    """Runs a model at given latents and notes, site by site, log densities and values."""

    def __init__(
        self, traced: TracedProgram, z: Arrays, coordinates: str, with_data: bool, pointwise: bool = False
    ) -> None:
        super().__init__()
        self.traced, self.z, self.coordinates, self.with_data = traced, z, coordinates, with_data
        self.pointwise = pointwise
        self.terms: Arrays = {}
        self.sites: dict[str, Any] = {}
        self.observed: dict[str, Any] = {}
        self._log_density: Arrays = {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name in self.z:
            structure = self.traced.structure
            u = self.z[name] if structure.is_joint else sites.datum_back(self.z[name], msg, structure.plate)
            msg["value"], self._log_density[name] = sites.to_value(msg["fn"], u, self.coordinates)
        elif name in self.traced.observed_names and not self.with_data:
            msg["value"] = jnp.zeros(msg["fn"].shape())

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name in self.traced.observed_names:
            self.observed[name] = dict(msg)
        if name in self.z:
            self.sites[name], log_density = dict(msg), self._log_density[name]
        elif name in self.traced.tilt_names or (self.with_data and name in self.traced.observed_names):
            log_density = msg["fn"].log_prob(msg["value"])
        else:
            return
        self.terms[name] = self._summed(log_density, msg)

    def _summed(self, log_density: jax.Array, site: Any) -> jax.Array:
        """Over all plates but the data's; in a joint program over that one as well, unless points are wanted."""
        plate, name = self.traced.structure.plate, site["name"]
        by_datum = not self.traced.structure.is_joint or (self.pointwise and name in self.traced.observed_names)
        if site["scale"] is not None:
            log_density = site["scale"] * log_density
        return sites.per_datum(log_density, site, plate) if by_datum and plate in plates_of(site) else log_density.sum()


class TracedProgram:
    """What `pplebm.Program` asks of a NumPyro model; see `pplebm.ppl.Traced` for the contract of each method."""

    def __init__(self, model: Callable[..., Any], data: jax.Array, plate: str | None, seed: int) -> None:
        self.model, self.example = model, data
        key = jax.random.key(seed)
        trace = self._forward(model, data, key, {})
        self.structure = structure_of(*_split(trace), len(data), plate, sites.HOST)
        if not self.structure.is_joint:  # no plate of fixed size
            half = data[: len(data) // 2 + 1]
            structure_of(*_split(self._forward(model, half, key, {})), len(half), plate, sites.HOST)
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
        z = {n: a[0] for n, a in z.items()} if self.structure.is_joint else z
        reached = _dependencies(lambda p: self.run(p, z, self.example, "centred").terms, self.params)
        tilt = {n for name in self.tilt_names for n in reached[name]}
        base = {n for site in self.structure.latents for n in reached[site.name]}
        likelihood = {n for name in self.observed_names for n in reached[name]}
        self.tilt_params = frozenset(tilt - base - likelihood)
        self.prior_params = frozenset(tilt | base)
        self.reached_params = frozenset(tilt | base | likelihood)

    def params_of(self, values: Mapping[str, Any]) -> Arrays:
        """Parameters by name from constrained ones by statement."""
        return self._flatten({name: values[name] for name in all_there(self._statements, values)})

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

    def run(
        self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str, pointwise: bool = False
    ) -> AtLatents:
        """Run the model at latents z; without data it is called on a stand-in batch of the same size.

        In a joint program these are the latents of one chain.
        """
        handler = AtLatents(self, z, coordinates, x is not None, pointwise)
        with handler:
            self._call(self.model, self._stand_in(z) if x is None else x, params)
        return handler

    def rows(self, n: int) -> jax.Array:
        """A batch of n data of the right shape, made by repeating the example; the data of a joint program."""
        return self.example if self.structure.is_joint else self.example[jnp.arange(n) % len(self.example)]

    def _stand_in(self, z: Arrays) -> jax.Array:
        return self.example if self.structure.is_joint else self.rows(len(next(iter(z.values()))))

    def _by_chain(self, function: Callable[..., Arrays], *trees: Any) -> Arrays:
        """Apply to all rows: at once where rows are data, else chain by chain, vectorised."""
        return jax.vmap(function)(*trees) if self.structure.is_joint else function(*trees)

    def _run_terms(self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str) -> Arrays:
        return self._by_chain(lambda z: self.run(params, z, x, coordinates).terms, z)

    def terms(self, params: Arrays, z: Arrays, x: jax.Array | None, coordinates: str) -> Arrays:
        """Log density of every site, (B,) each, compiled once per shape and checked against a plain run."""
        leaves = jax.tree.leaves((params, z, x))
        key = (coordinates, x is None, tuple(leaf.shape for leaf in leaves))
        if key not in self._checked and not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            self._checked.add(key)
            with jax.ensure_compile_time_eval():  # numbers may be known while something else is being traced
                self._check_agreement(params, z, x, coordinates)
        work = len(next(iter(z.values()))) * sum(p.size for p in params.values())
        z, x = gather((z, x), work)
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
                def log_density(z: Arrays, tilt_strength: Any = None) -> jax.Array:
                    terms = self._run_terms(params, z, x, how.coordinates)
                    return weighed(terms, self.tilt_names, tilt_strength)

                def step(state: Any, noise: Any) -> tuple[Any, Any]:
                    return spread(kernel.move(spread(noise), state, log_density))

                return iterate(step, spread(state), keys, lambda key: spread(kernel.noise(key, state.z)))

            self._chains[kernel.settings, how] = jax.jit(chain)
        return self._chains[kernel.settings, how](state, keys, params, x)

    def _moved(self, found: dict[str, Any], coordinates: str) -> Arrays:
        return {n: self._first(s, sites.to_coordinates(s["fn"], s["value"], coordinates)) for n, s in found.items()}

    def _first(self, site: Any, value: jax.Array) -> jax.Array:
        return value if self.structure.is_joint else sites.datum_first(value, site, self.structure.plate)

    def move(self, params: Arrays, z: Arrays, coordinates: str, target: str, x: jax.Array | None = None) -> Arrays:
        """The same latents in other coordinates."""
        return self._by_chain(lambda z: self._moved(self.run(params, z, x, coordinates).sites, target), z)

    def draw(self, key: Any, n: int, params: Arrays, coordinates: str) -> Arrays:
        """Ancestral draws of the latents, tilts ignored."""

        def forward(key: Any) -> Arrays:
            return self._moved(self._latents(self._forward(self.model, self.rows(n), key, params)), coordinates)

        return self._by_chain(forward, jax.random.split(key, n) if self.structure.is_joint else key)

    def _latents(self, trace: dict[str, Any]) -> dict[str, Any]:
        return {site.name: trace[site.name] for site in self.structure.latents}

    def values(self, params: Arrays, z: Arrays, coordinates: str) -> Arrays:
        """Values of the latent sites in their supports, (B, *event)."""

        def values(z: Arrays) -> Arrays:
            found = self.run(params, z, None, coordinates).sites
            return {name: self._first(s, s["value"]) for name, s in found.items()}

        return self._by_chain(values, z)

    def coordinates_of(self, params: Arrays, values: Arrays, coordinates: str) -> Arrays:
        """Coordinates of given site values: the inverse of `values`."""
        x, key = self.rows(len(next(iter(values.values())))), jax.random.key(0)
        is_joint, plate = self.structure.is_joint, self.structure.plate

        def inverse(values: Arrays) -> Arrays:
            shapes = self._latents(self._forward(self.model, x, key, params))
            placed = {n: values[n] if is_joint else sites.datum_back(values[n], s, plate) for n, s in shapes.items()}
            given = handlers.substitute(self.model, data=placed)
            return self._moved(self._latents(self._forward(given, x, key, params)), coordinates)

        return self._by_chain(inverse, {n: jnp.asarray(v) for n, v in values.items()})

    def observe(self, params: Arrays, z: Arrays, coordinates: str, key: Any | None) -> Arrays:
        """Means of the observed sites given the latents, (B, *event); draws when a key is given."""
        if not self.structure.observed:
            raise PplebmError("the program has no observed site; condition one with numpyro.sample(..., obs=x).")

        def observe(z: Arrays, key: Any) -> Arrays:
            observed = self.run(params, z, None, coordinates).observed
            keys = [None] * len(observed) if key is None else list(jax.random.split(key, len(observed)))
            return {
                name: self._first(s, sites.mean(s) if k is None else s["fn"].sample(k))
                for (name, s), k in zip(observed.items(), keys, strict=True)
            }

        if self.structure.is_joint and key is not None:
            key = jax.random.split(key, len(next(iter(z.values()))))
        return self._by_chain(observe, z, key)

    def given(self, params: Arrays, z: Arrays, x: jax.Array) -> Arrays:
        """Values of the observed sites when the program is called with data."""
        sites = self.run(params, z, x, "centred").observed
        return {name: self._first(site, site["value"]) for name, site in sites.items()}

    def pointwise(self, params: Arrays, z: Arrays, x: jax.Array, coordinates: str) -> Arrays:
        """Log density of every observed site by datum."""
        terms = self._by_chain(lambda z: self.run(params, z, x, coordinates, pointwise=True).terms, z)
        return {name: terms[name] for name in terms if name in self.observed_names}

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
    return first_or_whole(lambda x: TracedProgram(model, x, plate, seed), data)
