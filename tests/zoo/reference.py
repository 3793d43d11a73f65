"""What the hosts themselves say of a program: one run with their own handlers, and draws forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.entries import Entry
from zoo.hosts import Host, Unobserved, host

RADIUS = 1.5  # of coordinates
Tree = Mapping[str, Any]


class Statement(NamedTuple):
    """A statement of one run, in the host's own layout."""

    kind: str  # "latent", "scored" (observed, tilt or factor) or "deterministic"
    value: Any
    u: Any  # unconstrained, of latents
    log_density: Any  # by batch, under scales and masks
    log_det: Any  # of the bijection, by batch
    axis: int | None  # of the data
    dim: int | None  # the same in log densities, from the right


class Reference(NamedTuple):
    """The same with rows first, or chains first in a joint program."""

    z: Tree
    values: Tree  # of latents and deterministic sites
    terms: Tree  # (rows,) or (chains,)
    axes: dict[str, int]  # of the data in latents that have them


def call(model: Callable[..., Any], data: Any) -> Any:
    """A mapping by keyword, a tuple by position, an array alone."""
    return model(**data) if isinstance(data, Mapping) else model(*(data if isinstance(data, tuple) else (data,)))


def mapped(function: Callable[[Any], Any], data: Any) -> Any:
    """A function of every array of the data."""
    if isinstance(data, Mapping):
        return {name: function(a) for name, a in data.items()}
    return tuple(function(a) for a in data) if isinstance(data, tuple) else function(data)


def n_rows(data: Any) -> int:
    """How many rows."""
    return len(next(iter(data.values())) if isinstance(data, Mapping) else data[0] if isinstance(data, tuple) else data)


def numpy(a: Any) -> np.ndarray:
    """An array of either host."""
    return np.asarray(a.detach() if hasattr(a, "detach") else a)


# --- one run


def _rows_first(a: Any, axis: int | None) -> Any:
    return a if axis is None else (a.movedim(axis, 0) if hasattr(a, "movedim") else np.moveaxis(a, axis, 0))


def _axes_of(site: Any, plate: str | None) -> tuple[int | None, int | None]:
    dims = {frame.name: frame.dim for frame in site["cond_indep_stack"]}
    if plate not in dims or "fn" not in site:
        return None, None
    return len(site["fn"].batch_shape) + dims[plate], dims[plate]


def _pyro_run(h: Host, model: Any, data: Any, seed: int, plate: str | None) -> dict[str, Statement]:
    import torch
    from pyro.poutine.messenger import Messenger
    from pyro.poutine.util import site_is_subsample
    from torch.distributions import biject_to

    rng, coordinates = np.random.default_rng(seed), {}

    class Start(Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if msg["is_observed"] or site_is_subsample(msg):
                return
            bijection = biject_to(msg["fn"].support)
            u = torch.as_tensor(rng.uniform(-RADIUS, RADIUS, bijection.inverse_shape(msg["fn"].shape())))
            coordinates[msg["name"]] = u
            msg["value"], msg["done"] = bijection(u), True

    with h.package.get_param_store().scope(), Start():
        trace = call(h.handlers.trace(model).get_trace, data)
        trace.compute_log_prob()
    found = {}
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        axis, dim = _axes_of(site, plate)
        u, fn, value = coordinates.get(name), site["fn"], site["value"]
        if u is None:
            fixed = site["infer"].get("_deterministic") or type(getattr(fn, "base_dist", fn)).__name__ == "Delta"
            kind = "deterministic" if fixed else "scored"
            found[name] = Statement(kind, value, None, site["log_prob"], 0.0, axis, dim)
            continue
        log_det = biject_to(fn.support).log_abs_det_jacobian(u, value)
        found[name] = Statement("latent", value, u, site["log_prob"], log_det, axis, dim)
    return found


def _numpyro_runs(h: Host, model: Any, data: Any, seeds: list[int], plate: str | None) -> list[dict[str, Statement]]:
    import jax
    from numpyro.distributions import biject_to

    found: dict[str, Statement] = {}
    scans = "scan" in getattr(getattr(model, "__code__", None), "co_freevars", ())

    def arrays(coordinates: Any, key: Any) -> Any:
        used = {}

        def start(site: Any) -> Any:
            name = site["name"]
            if site["type"] != "sample" or site["is_observed"]:
                return None
            bijection = biject_to(site["fn"].support)
            shape = bijection.inverse_shape(site["fn"].shape())
            used[name] = h.xp.zeros(shape) if coordinates is None else coordinates[name]
            return bijection(used[name])

        started = model if scans else h.handlers.substitute(model, substitute_fn=start)
        trace = call(h.handlers.trace(h.handlers.seed(started, key)).get_trace, data)
        for name, site in trace.items():
            if site["type"] == "deterministic":
                found[name] = Statement("deterministic", site["value"], None, 0.0, 0.0, None, None)
            if site["type"] != "sample":
                continue
            (axis, dim), fn, value = _axes_of(site, plate), site["fn"], site["value"]
            log_density = fn.log_prob(value) * (1.0 if site["scale"] is None else site["scale"])
            if site["is_observed"]:
                kind = "deterministic" if type(getattr(fn, "base_dist", fn)).__name__ == "Delta" else "scored"
                found[name] = Statement(kind, value, None, log_density, 0.0, axis, dim)
                continue
            bijection = biject_to(fn.support)
            u = used[name] if name in used else bijection.inv(value)
            log_det = bijection.log_abs_det_jacobian(u, value)
            found[name] = Statement("latent", value, u, log_density, log_det, axis, dim)
        return {name: (s.value, s.u, s.log_density, s.log_det) for name, s in found.items()}

    key, runs = jax.random.key(0), []
    shapes = {name: a[1].shape for name, a in jax.eval_shape(arrays, None, key).items() if a[1] is not None}
    jitted = jax.jit(arrays)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        z = {name: h.array(rng.uniform(-RADIUS, RADIUS, shape)) for name, shape in shapes.items()}
        made = jitted(z, jax.random.key(seed))
        runs.append({name: Statement(s.kind, *made[name], s.axis, s.dim) for name, s in found.items()})
    return runs


def runs_of(h: Host, model: Any, data: Any, seeds: list[int], plate: str | None) -> list[dict[str, Statement]]:
    """Runs at coordinates drawn uniformly, one per seed, all statements by name."""
    if h.name == "pyro":
        return [_pyro_run(h, model, data, seed, plate) for seed in seeds]
    return _numpyro_runs(h, model, data, seeds, plate)


def _term(s: Statement, joint: bool) -> np.ndarray:
    total = numpy(s.log_density) + numpy(s.log_det)
    if joint:
        return total.sum()
    rows = np.moveaxis(np.broadcast_to(total, np.shape(total)), s.dim, 0)
    return rows.reshape(len(rows), -1).sum(1)


def reference(entry: Entry, name: str, model: Any, data: Any, seed: int, chains: int = 2) -> Reference:
    """Latents, values and log densities by the host's own account; several chains of a joint program."""
    h = host(name)
    if entry.joint:
        runs = runs_of(h, model, data, [100 * seed + i for i in range(chains)], entry.plate)
        latents = [n for n, s in runs[0].items() if s.kind == "latent"]
        stacked = lambda n, of: h.xp.stack([of(r[n]) for r in runs], 0)
        kept = [n for n, s in runs[0].items() if s.kind != "scored"]
        return Reference(
            {n: stacked(n, lambda s: s.u) for n in latents},
            {n: stacked(n, lambda s: s.value) for n in kept},
            {n: np.stack([_term(r[n], True) for r in runs]) for n, s in runs[0].items() if s.kind != "deterministic"},
            {n: runs[0][n].axis + 1 for n in latents if runs[0][n].axis is not None},
        )
    (found,), n = runs_of(h, model, data, [seed], entry.plate), n_rows(data)
    values = {}
    for site, s in found.items():
        if s.kind != "scored":
            axis = s.axis if s.axis is not None else list(s.value.shape).index(n)
            values[site] = h.xp.moveaxis(s.value, axis, 0)
    return Reference(
        {site: h.xp.moveaxis(s.u, s.axis, 0) for site, s in found.items() if s.kind == "latent"},
        values,
        {site: _term(s, False) for site, s in found.items() if s.kind != "deterministic"},
        {site: 0 for site, s in found.items() if s.kind == "latent"},
    )


# --- forward


def forward(entry: Entry, name: str, model: Any, data: Any, n: int, seed: int) -> dict[str, np.ndarray]:
    """Draws of the observed sites from the host's own prior: by row, or n of all rows in a joint program."""
    return (_pyro_forward if name == "pyro" else _numpyro_forward)(entry, host(name), model, data, n, seed)


def _pyro_forward(entry: Entry, h: Host, model: Any, data: Any, n: int, seed: int) -> dict[str, np.ndarray]:
    import torch
    from pyro.poutine.messenger import Messenger

    class Forward(Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if msg["name"] in entry.observed:
                msg["is_observed"], msg["value"], msg["done"] = False, None, False

    def once() -> dict[str, np.ndarray]:
        with Forward():
            trace = call(h.handlers.trace(model).get_trace, data)
        sites = {site: trace.nodes[site] for site in entry.observed}
        axes = {site: None if entry.joint else _axes_of(s, entry.plate)[0] for site, s in sites.items()}
        return {site: numpy(_rows_first(s["value"], axes[site])) for site, s in sites.items()}

    with h.package.get_param_store().scope(), torch.random.fork_rng(devices=[]), torch.no_grad():
        h.package.set_rng_seed(seed)
        runs = [once() for _ in range(n if entry.joint else 1)]
    return {site: np.stack([r[site] for r in runs]) if entry.joint else runs[0][site] for site in entry.observed}


def _numpyro_forward(entry: Entry, h: Host, model: Any, data: Any, n: int, seed: int) -> dict[str, np.ndarray]:
    import jax

    loops = "scan" in getattr(getattr(model, "__code__", None), "co_freevars", ())  # that uncondition does not enter
    free = entry.make(Unobserved(h)) if loops else h.handlers.uncondition(model)

    def once(key: Any) -> dict[str, Any]:
        trace = call(h.handlers.trace(h.handlers.seed(free, key)).get_trace, data)
        sites = {site: trace[site] for site in entry.observed}
        axes = {site: None if entry.joint else _axes_of(s, entry.plate)[0] for site, s in sites.items()}
        return {
            site: h.xp.moveaxis(s["value"], axes[site] or 0, 0) if s["value"].ndim else s["value"]
            for site, s in sites.items()
        }

    key = jax.random.key(seed)
    found = jax.jit(jax.vmap(once))(jax.random.split(key, n)) if entry.joint else jax.jit(once)(key)
    return {site: np.asarray(a) for site, a in found.items()}
