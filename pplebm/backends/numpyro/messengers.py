"""What is put around a NumPyro model when it runs: handlers of its statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import Distribution, biject_to, constraints
from numpyro.primitives import Messenger

from pplebm.backends.numpyro import sites
from pplebm.backends.visit import Visit


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


class Checks(Messenger):
    """Notes, as arrays, what NumPyro and pplebm look at in plain runs only: arguments in range, finite tilts."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[jax.Array] = []

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            self._found += [valid.all() for valid in _arguments_valid(msg["fn"])]
            if (msg["infer"] or {}).get("is_tilt"):
                self._found.append(jnp.isfinite(sites.BACKEND.unwrap(msg["fn"]).log_factor).all())

    def all(self) -> jax.Array:
        """Whether all was well."""
        return jnp.stack(self._found).all() if self._found else jnp.asarray(True)


def _arguments_valid(fn: Distribution) -> Iterator[Any]:
    """For the unknown arguments of a distribution, and of those inside it, whether they lie where they must."""
    for name, constraint in fn.arg_constraints.items() if fn._validate_args else ():
        value = vars(fn).get(name)
        if isinstance(value, jax.core.Tracer) and not constraints.is_dependent(constraint):
            yield constraint(value)
    is_inner = lambda a: isinstance(a, Distribution)
    for inner in jax.tree.leaves(list(vars(fn).values()), is_leaf=is_inner):
        if is_inner(inner):
            yield from _arguments_valid(inner)
