"""Rules by which parameters follow gradients, as pure functions: Adam, and any rule of optax."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pplebm.backends.numpyro.arrays import asarray
from pplebm.errors import PplebmError
from pplebm.ppl.language import Rule

Arrays = Mapping[str, jax.Array]


class AdamState(NamedTuple):
    """First and second moments by parameter name, and the number of updates."""

    mean: dict[str, jax.Array]
    square: dict[str, jax.Array]
    n_updates: jax.Array


def optimizer(rule: str = "adam", **arguments: Any) -> Rule:
    """The rule of that name: "adam", a function of optax, or the path of one.

    The function is called with `learning_rate=1.0`, and what it proposes is multiplied by the rates that are given at
    every update, one for each parameter.

    Raises:
        PplebmError: for a name that is not known, or arguments that the function does not take.

    >>> momentum = optimizer("sgd", momentum=0.9)
    >>> params, gradient = {"a": jnp.asarray(1.0)}, {"a": jnp.asarray(2.0)}
    >>> state = momentum.init(params)
    >>> for _ in range(2):
    ...     params, state = momentum.update(params, gradient, state, {"a": 0.1})
    >>> round(params["a"].item(), 6)  # 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 2)
    0.42
    """
    if rule == "adam":
        return _adam(**arguments)
    try:
        transformation = _function_of(rule)(learning_rate=1.0, **arguments)
        init = transformation.init
    except (TypeError, ValueError, AttributeError) as error:
        raise PplebmError(
            f"optimizer rule '{rule}' cannot be used with {arguments or 'no arguments'}: {error}."
        ) from error

    def update(params: Arrays, gradients: Arrays, state: Any, rates: Mapping[str, Any]) -> tuple[Any, Any]:
        proposed, after = transformation.update(dict(gradients), state, dict(params))
        return {n: p + rates[n] * proposed[n] for n, p in params.items()}, after

    return Rule(lambda params: init(dict(params)), update)


def _function_of(rule: str) -> Any:
    module, _, name = rule.rpartition(".")
    try:
        return getattr(importlib.import_module(module or "optax"), name)
    except (ImportError, AttributeError) as error:
        raise PplebmError(
            f"optimizer rule '{rule}' is not known; write adam, the name of a function of optax, such as sgd or adamw, "
            f"or the path of a function, package.module.function."
        ) from error


def _adam(betas: tuple[float, float] = (0.9, 0.999)) -> Rule:
    """Adam with a learning rate per parameter."""
    rule = optax.scale_by_adam(*betas)

    def init(params: Arrays) -> AdamState:
        zeros = {n: asarray(np.zeros(p.shape, p.dtype), keep=True) for n, p in params.items()}  # compiles nothing
        return AdamState(zeros, dict(zeros), jnp.asarray(0.0))

    def update(params: Arrays, gradients: Arrays, state: Any, rates: Mapping[str, Any]) -> tuple[Any, AdamState]:
        before = optax.ScaleByAdamState(state.n_updates.astype(jnp.int32), dict(state.mean), dict(state.square))
        updates, after = rule.update(dict(gradients), before)
        new = {n: p - rates[n] * updates[n] for n, p in params.items()}
        assert isinstance(after, optax.ScaleByAdamState)
        return new, AdamState(after.mu, after.nu, state.n_updates + 1)

    return Rule(init, update)
