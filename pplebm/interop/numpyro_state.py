"""States of chains in NumPyro's `MCMC`, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.distributions import biject_to

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import AdaptingState
from pplebm.kernels.kernel import State

Arrays = dict[str, jax.Array]
TRACEABLE = ("step_size", "friction", "threshold", "temperature")  # settings that only enter arithmetic


class KernelState(NamedTuple):
    """State of one chain; the names are those that NumPyro and ArviZ look for."""

    z: Arrays
    z_grad: Arrays  # of the potential energy; empty of kernels that keep none
    potential_energy: jax.Array
    energy: jax.Array  # with the kinetic energy; nan of kernels without momentum
    num_steps: jax.Array  # gradients of the last step
    accept_prob: jax.Array
    diverging: jax.Array
    step_size: jax.Array  # of the next step
    i: jax.Array  # steps done
    inner: Any  # of the kernel while it adapts, one row
    rng_key: jax.Array


def plain(name: str, setting: Any) -> Any:
    """A setting with its known numbers as Python's.

    Raises:
        PplebmError: naming it, if it is traced and must be known.
    """
    leaves = jax.tree.leaves(setting)
    if name not in TRACEABLE and any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise PplebmError(
            f"{name} must be known before anything is compiled; only {', '.join(TRACEABLE)} may be traced."
        )
    is_number = lambda a: isinstance(a, (jax.Array, np.generic)) and not isinstance(a, jax.core.Tracer) and a.ndim == 0
    return jax.tree.map(lambda leaf: leaf.item() if is_number(leaf) else leaf, setting)


def kept(state: State, log_density: Callable[[Arrays], jax.Array]) -> dict[str, Any]:
    """Potential energy at a state's place and its gradient, as far as the state keeps them."""
    inner = state.inner if isinstance(state, AdaptingState) else state
    value = inner.log_density if hasattr(inner, "log_density") else log_density(inner.z)
    gradient = inner.gradient if hasattr(inner, "gradient") else {}
    return {"potential_energy": -value[0], "z_grad": {k: -g[0] for k, g in gradient.items()}}


def restored(inner: State, state: KernelState) -> State:
    """The kernel's state with density and gradient of the chain's, which a host may have changed; tuning is kept."""
    if isinstance(inner, AdaptingState):
        return inner._replace(inner=restored(inner.inner, state))
    kept = {"log_density": -state.potential_energy[None], "gradient": {k: -g[None] for k, g in state.z_grad.items()}}
    return inner._replace(**{name: value for name, value in kept.items() if hasattr(inner, name)})


def bijections(trace: dict[str, Any]) -> dict[str, Any]:
    """Maps from unconstrained space to the supports of a model's continuous latents, by site."""
    latents = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
    return {name: biject_to(s["fn"].support) for name, s in latents.items() if not s["fn"].support.is_discrete}
