"""Functions of a program as XLA compiles them: made quickly for a few calls, or checked to be pure for many."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pplebm.backends.numpyro.messengers import Checks
from pplebm.errors import PplebmError
from pplebm.ppl.language import Data
from pplebm.ppl.trees import tree_map

Arrays = dict[str, jax.Array]
UNTRACEABLE = (PplebmError, jax.errors.JAXTypeError)  # the model looks at values; or it is refused, if traced or not
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile, not to run


def quick(function: Callable[..., Any], checks: bool) -> Callable[..., Any]:
    """A function of trees that runs a model, compiled as a whole: its operations one by one would take seconds.

    It is called as it is where it cannot be compiled, and where a plain run would refuse arguments of distributions.

    Args:
        function: pure.
        checks: whether to look at arguments.
    """

    def checked(*trees: Any) -> tuple[Any, jax.Array]:
        seen = Checks()
        with seen if checks else contextlib.nullcontext():
            found = function(*trees)
        return found, seen.all()

    compiled = quickly_compiled(checked)

    def call(*trees: Any) -> Any:
        if any(map(is_traced, jax.tree.leaves((trees, jnp.zeros(()))))):  # inside what is being compiled
            return function(*trees)
        with contextlib.suppress(*UNTRACEABLE):
            found, is_well = compiled(*trees)
            if is_well:
                return found
        return function(*trees)

    return call


def quickly_compiled(function: Callable[..., Any]) -> Any:
    """A pure function, compiled for few calls; not to be called inside what is being compiled."""
    return jax.jit(function, compiler_options=_quick_options())


@functools.cache
def _quick_options() -> dict[str, Any]:
    """The options `QUICK`; none where XLA knows them no more."""
    with jax.ensure_compile_time_eval():
        try:
            jax.jit(lambda: 0, compiler_options=QUICK)()
        except jax.errors.JaxRuntimeError:
            return {}
    return QUICK


def check_agreement(jitted: Any, eager: Any, params: Arrays, z: Arrays, data: Data) -> None:
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


def is_traced(a: Any) -> bool:
    """Whether an array has no numbers yet."""
    return isinstance(a, jax.core.Tracer)
