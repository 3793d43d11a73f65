"""Arrays, keys, derivatives and updates in JAX: the numerical half of the narrow waist."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from pplebm.ppl.language import ChainOptions

BLOCK = 100  # steps whose random numbers are drawn at once

exp = jnp.exp
softplus = jax.nn.softplus
where = jnp.where
isfinite = jnp.isfinite


def asarray(a: Any, keep: bool = False) -> jax.Array:
    """Turn numbers and arrays into a JAX array; floats take JAX's default precision, unless they are to be kept."""
    is_known = isinstance(a, (jax.Array, int, float, list, tuple, range))
    array = jnp.asarray(a) if is_known else jax.device_put(_copied(a))  # which compiles nothing, but may share memory
    is_kept = keep or isinstance(a, jax.Array)
    return array.astype(jnp.result_type(float)) if jnp.issubdtype(array.dtype, jnp.floating) and not is_kept else array


def _copied(a: Any) -> np.ndarray:
    return np.array(a.detach().cpu().numpy() if hasattr(a, "detach") else a)


def to_numpy(a: jax.Array) -> np.ndarray:
    """Copy an array into a NumPy array."""
    return np.array(a)


def concat(arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    """Arrays joined along an axis that they have."""
    return jnp.concatenate(list(arrays), axis)


def stack(arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    """Arrays of one shape joined along a new axis."""
    return jnp.stack(list(arrays), axis)


def take(schedule: Any, step: Any) -> Any:
    """Entry `step` of a schedule (the last one beyond its end); a plain number is a constant schedule."""
    return schedule if isinstance(schedule, (int, float)) else schedule[jnp.minimum(step, len(schedule) - 1)]


def put(a: jax.Array, index: Any, rows: jax.Array) -> jax.Array:
    """The array with some of its rows replaced."""
    return a.at[index].set(rows)


def median(a: jax.Array, axis: int) -> jax.Array:
    """The middle along an axis; of an even number the mean of the two."""
    return jnp.median(a, axis)


def logsumexp(a: jax.Array, axis: int) -> jax.Array:
    """log Σ exp(a) along an axis."""
    return jax.scipy.special.logsumexp(a, axis)


def log_abs_det(a: jax.Array) -> jax.Array:
    """Logarithm of the absolute determinant of matrices, (..., d, d)."""
    return jnp.linalg.slogdet(a)[1]


# --- randomness by JAX's own keys


def key(seed: int | list[int]) -> jax.Array:
    """Make a key from a seed, or keys from several."""
    return _keys(np.asarray(seed, np.int64)) if isinstance(seed, list) else jax.random.key(seed)


_keys = jax.jit(jax.vmap(jax.random.key))  # of all seeds at once, which takes a hundredth of one after another


def split(key: jax.Array, n: int = 2) -> jax.Array:
    """Derive n independent keys."""
    return jax.random.split(key, n)


def normal_like(key: jax.Array, tree: Any) -> Any:
    """Draw a tree of standard normal arrays with the shapes of `tree`.

    Arrays of one batch are drawn by one call, side by side: it compiles twice as fast as a call for each, and a batch
    that is spread over devices stays where it is.
    """
    leaves, structure = jax.tree.flatten(tree)
    if len({a.shape[:1] for a in leaves}) != 1 or leaves[0].ndim == 0 or len({a.dtype for a in leaves}) != 1:
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, draws)
    widths = [math.prod(a.shape[1:]) for a in leaves]
    together = jax.random.normal(key, (len(leaves[0]), sum(widths)), leaves[0].dtype)
    columns = jnp.split(together, np.cumsum(widths)[:-1], axis=1)
    return jax.tree.unflatten(structure, [c.reshape(a.shape) for c, a in zip(columns, leaves, strict=True)])


def seeded(key: jax.Array) -> Any:
    """NumPyro's sample statements draw from this key for a while."""
    return numpyro.handlers.seed(rng_seed=key)


# --- derivatives, loops, compilation


def value_and_grad(
    function: Callable[[Any], Any], at: Any, has_aux: bool = False, differentiable: bool = False
) -> tuple[Any, Any]:
    """Value of `function` at a tree, and the gradient of the sum of its (first) result; always differentiable here."""

    def total(tree: Any) -> tuple[jax.Array, Any]:
        out = function(tree)
        return jnp.sum(out[0] if has_aux else out), out

    (_, out), gradient = jax.value_and_grad(total, has_aux=True)(at)
    return out, gradient


def stop_gradient(tree: Any) -> Any:
    """Cut every array of a tree off from the gradient."""
    return jax.lax.stop_gradient(tree)


def iterate(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    keys: jax.Array | int,
    draw: Callable[[jax.Array], Any] = lambda key: None,
) -> tuple[Any, Any]:
    """Run `state, out = step(state, draw(key))` over keys by a scan; outs are stacked along a new first axis.

    What is random is drawn ahead of the scan, where it costs half as much, in blocks, so that memory stays flat.
    Keys may be a number of steps, where nothing is drawn; if it is an array, nothing is stacked either, so that it need
    not be known when the loop is compiled.
    """
    if isinstance(keys, int):
        return jax.lax.scan(step, state, None, length=keys)
    if jnp.ndim(keys) == 0:
        return jax.lax.fori_loop(0, keys.astype(int), lambda _, state: step(state, None)[0], state), None
    n_blocks, rest = divmod(len(keys), BLOCK)

    def block(state: Any, keys: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(step, state, jax.vmap(draw)(keys), length=len(keys))

    if n_blocks == 0 or (n_blocks == 1 and rest == 0):
        return block(state, keys)
    state, outs = jax.lax.scan(block, state, keys[: n_blocks * BLOCK].reshape(n_blocks, BLOCK))
    outs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), outs)
    if rest:
        state, last = block(state, keys[n_blocks * BLOCK :])
        outs = jax.tree.map(lambda *parts: jnp.concatenate(parts), outs, last)
    return state, outs


def repeat(step: Callable[[Any, Any], tuple[Any, Any, Any]]) -> Callable[[Any, Any, int], tuple[Any, Any, int]]:
    """Make a function (state, inputs, n) that runs `state, out, is_good = step(state, input)` over the first n inputs.

    Inputs have a first axis of k >= n; it ends early after a step that is not good. Returns the last state, the outs
    along a first axis of k, of which those of steps that ran count, and how many ran. It is compiled once for all n, so
    that n steps in one call are n calls of one step, bit for bit.
    """

    traced = jax.jit(step)  # once, for shapes and for the loop

    def run(state: Any, inputs: Any, n: Any) -> tuple[Any, Any, Any]:
        at = lambda i: jax.tree.map(lambda a: a[i], inputs)
        shapes = jax.eval_shape(traced, state, at(0))[1]
        k = len(jax.tree.leaves(inputs)[0])
        outs = jax.tree.map(lambda a: jnp.zeros((k, *a.shape), a.dtype), shapes)

        def one(carry: Any) -> Any:
            i, state, outs, _ = carry
            new, out, is_good = traced(state, at(i))
            new = jax.tree.map(lambda a, b: jnp.asarray(a, jnp.asarray(b).dtype), new, state)
            return i + 1, new, jax.tree.map(lambda rows, row: rows.at[i].set(row), outs, out), is_good

        begin = (0, state, outs, True)
        i, state, outs, _ = jax.lax.while_loop(lambda carry: (carry[0] < n) & carry[3], one, begin)
        return state, outs, i

    compiled = jax.jit(run)

    def repeated(state: Any, inputs: Any, n: int) -> tuple[Any, Any, int]:
        state, outs, i = compiled(jax.tree.map(_strong, state), inputs, n)
        return state, outs, int(i)

    return repeated


def _strong(a: Any) -> jax.Array:
    """A leaf whose type is its own: one that was a number of Python would be compiled for again."""
    return a if isinstance(a, jax.Array) and not a.weak_type else jnp.asarray(a, jnp.result_type(a))


def compiled(function: Callable[..., Any], whole: ChainOptions | None = None) -> Callable[..., Any]:
    """Compile a pure function of arrays, always as a whole."""
    return jax.jit(function)


def threads_for(work: int) -> Any:
    """XLA chooses its own threads."""
    return contextlib.nullcontext()
