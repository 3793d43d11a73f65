"""Arrays, keys, derivatives and updates in torch: the numerical half of the narrow waist."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from pplebm.ppl.trees import tree_fill, tree_leaves, tree_map

SMALL_WORK = 50_000_000

exp = torch.exp
softplus = torch.nn.functional.softplus
where = torch.where
isfinite = torch.isfinite


def asarray(a: Any, keep: bool = False) -> torch.Tensor:
    """Turn numbers and arrays into a tensor; floats take torch's default dtype, tensors keep theirs."""
    if isinstance(a, torch.Tensor):
        return a.contiguous() if keep else a
    array = a if isinstance(a, (int, float, list, tuple, range)) else np.asarray(a)
    if isinstance(array, np.ndarray) and not (array.flags.writeable and array.flags.c_contiguous):
        array = array.copy(order="C")  # torch writes where it likes, and graphs are made for one layout
    tensor = torch.as_tensor(array)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() and not keep else tensor


def to_numpy(a: torch.Tensor) -> np.ndarray:
    """Copy a tensor into a NumPy array."""
    return a.detach().cpu().numpy().copy()


def concat(arrays: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """Arrays joined along an axis that they have."""
    return torch.concat(list(arrays), axis)


def stack(arrays: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """Arrays of one shape joined along a new axis."""
    return torch.stack(list(arrays), axis)


def take(schedule: Any, step: Any) -> Any:
    """Entry `step` of a schedule (the last one beyond its end); a plain number is a constant schedule."""
    if isinstance(schedule, (int, float)):
        return schedule
    index = torch.as_tensor(step).clamp(max=len(schedule) - 1)
    return schedule.index_select(0, index.reshape(1))[0]  # indexing by a tensor would read it, and stop a graph


def put(a: torch.Tensor, index: Any, rows: torch.Tensor) -> torch.Tensor:
    """The array with some of its rows replaced."""
    return a.index_copy(0, torch.as_tensor(index, device=a.device), rows)


def median(a: torch.Tensor, axis: int) -> torch.Tensor:
    """The middle along an axis; of an even number the mean of the two."""
    ordered, n = a.sort(axis).values, a.shape[axis]
    return 0.5 * (ordered.select(axis, (n - 1) // 2) + ordered.select(axis, n // 2))


def logsumexp(a: torch.Tensor, axis: int) -> torch.Tensor:
    """log Σ exp(a) along an axis."""
    return torch.logsumexp(a, axis)


def log_abs_det(a: torch.Tensor) -> torch.Tensor:
    """Logarithm of the absolute determinant of matrices, (..., d, d)."""
    return torch.linalg.slogdet(a).logabsdet


# --- derivatives and loops


def value_and_grad(
    function: Callable[[Any], Any], at: Any, has_aux: bool = False, differentiable: bool = False
) -> tuple[Any, Any]:
    """Value of `function` at a tree, and the gradient of the sum of its (first) result.

    Per-datum functions return (B,); data do not interact, so the gradient of the sum holds each datum's own.
    Leaves that do not enter the value have gradient zero. What is to be differentiated again is `differentiable`.
    """
    leaves = {
        path: a if differentiable and a.requires_grad else a.detach().requires_grad_() for path, a in tree_leaves(at)
    }
    inputs = list(leaves.values())
    with torch.enable_grad():
        out = function(tree_fill(at, leaves))
        value = out[0] if has_aux else out
        if value.requires_grad:
            grads = torch.autograd.grad(
                value.sum(), inputs, allow_unused=True, materialize_grads=True, create_graph=differentiable
            )
        else:
            grads = tuple(torch.zeros_like(leaf) for leaf in inputs)
    gradient = tree_fill(at, dict(zip(leaves, grads, strict=True)))
    if differentiable:
        return out, gradient
    return (value.detach(), stop_gradient(out[1])) if has_aux else value.detach(), gradient


def stop_gradient(tree: Any) -> Any:
    """Detach every array of a tree."""
    return tree_map(lambda a: a.detach() if isinstance(a, torch.Tensor) else a, tree)


def iterate(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    keys: Sequence[int] | int | torch.Tensor,
    draw: Callable[[int], Any] = lambda key: None,
) -> tuple[Any, Any]:
    """Run `state, out = step(state, draw(key))` over keys; outs are stacked along a new first axis.

    Keys may be a number of steps, where nothing is drawn; if it is an array, nothing is stacked either.
    """
    if isinstance(keys, torch.Tensor):
        for _ in range(int(keys)):
            state = step(state, None)[0]
        return state, None
    outs = []
    for k in range(keys) if isinstance(keys, int) else keys:
        state, out = step(state, draw(k))
        outs.append(out)
    return state, tree_map(lambda *rows: torch.stack(rows), outs[0], *outs[1:]) if outs else None


def repeat(step: Callable[[Any, Any], tuple[Any, Any, Any]]) -> Callable[[Any, Any, int], tuple[Any, Any, int]]:
    """Make a function (state, inputs, n) that runs `state, out, is_good = step(state, input)` over the first n inputs.

    Inputs have a first axis of k >= n; it ends early after a step that is not good. Returns the last state, the outs
    along a first axis, and how many steps ran.
    """

    def repeated(state: Any, inputs: Any, n: int) -> tuple[Any, Any, int]:
        outs: list[Any] = []
        for i in range(n):
            state, out, is_good = step(state, tree_map(lambda a, i=i: a[i], inputs))
            outs.append(out)
            if not is_good:
                break
        return state, tree_map(lambda *rows: torch.stack([torch.as_tensor(a) for a in rows]), *outs), len(outs)

    return repeated


@contextlib.contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Run on one thread what is too small to share; `work` is about the number of multiplications of one step.

    Threads that wait for each other cost small networks more than they bring, above all on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < SMALL_WORK else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
