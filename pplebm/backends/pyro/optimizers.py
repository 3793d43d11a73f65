"""Rules by which parameters follow gradients, as pure functions: Adam, and any class of torch.optim."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pplebm.errors import PplebmError
from pplebm.ppl.language import Rule

Tensors = Mapping[str, torch.Tensor]


class AdamState(NamedTuple):
    """First and second moments by parameter name, and the number of updates."""

    mean: dict[str, torch.Tensor]
    square: dict[str, torch.Tensor]
    n_updates: torch.Tensor


class RuleState(NamedTuple):
    """What an optimizer of torch keeps for every parameter, and the number of updates."""

    kept: dict[str, dict[str, torch.Tensor]]
    n_updates: torch.Tensor


def optimizer(rule: str = "adam", **arguments: Any) -> Rule:
    """The rule of that name: "adam", a class of torch.optim in any case, or the path of an optimizer class.

    Learning rates are given at every update, one for each parameter, in the place of the class's own `lr`.

    Raises:
        PplebmError: for a name that is not known, or arguments that the class does not take.

    >>> momentum = optimizer("sgd", momentum=0.9)
    >>> params, gradient = {"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0)}
    >>> state = momentum.init(params)
    >>> for _ in range(2):
    ...     params, state = momentum.update(params, gradient, state, {"a": 0.1})
    >>> round(params["a"].item(), 6)  # 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 2)
    0.42
    """
    if rule == "adam":
        return _adam(**arguments)
    make = _class_of(rule)

    def fresh(params: Tensors, rates: Mapping[str, Any] | None = None) -> tuple[dict[str, torch.Tensor], Any]:
        copies = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
        groups = [{"params": [p], "lr": 1.0 if rates is None else float(rates[n])} for n, p in copies.items()]
        return copies, make(groups, lr=1.0, **arguments)

    def init(params: Tensors) -> RuleState:
        """The state's names and shapes, found by a step that goes nowhere; its values are set at the first update."""
        try:
            copies, found = fresh(params)
            for p in copies.values():
                p.grad = torch.zeros_like(p)
            found.step()
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise PplebmError(
                f"optimizer rule '{rule}' cannot be used with {arguments or 'no arguments'}: {error}."
            ) from error
        kept = {n: {k: torch.zeros_like(v) for k, v in _tensors(found.state[p])} for n, p in copies.items()}
        return RuleState(kept, torch.tensor(0.0))

    def update(params: Tensors, gradients: Tensors, state: Any, rates: Mapping[str, Any]) -> tuple[Any, RuleState]:
        copies, found = fresh(params, rates)
        for n, p in copies.items():
            p.grad = gradients[n].detach()
            if state.n_updates > 0:
                found.state[p].update({k: v.clone() for k, v in state.kept[n].items()})
        found.step()
        kept = {n: dict(_tensors(found.state[p])) for n, p in copies.items()}
        return {n: p.detach() for n, p in copies.items()}, RuleState(kept, state.n_updates + 1)

    return Rule(init, update, is_graph=False)


def _tensors(kept: Mapping[str, Any]) -> list[tuple[str, torch.Tensor]]:
    return [(name, value.detach()) for name, value in kept.items() if isinstance(value, torch.Tensor)]


def _class_of(rule: str) -> Any:
    module, _, name = rule.rpartition(".")
    known = {n.lower(): n for n in dir(torch.optim) if isinstance(getattr(torch.optim, n), type)}
    try:
        return getattr(importlib.import_module(module or "torch.optim"), name if module else known[rule.lower()])
    except (ImportError, AttributeError, KeyError) as error:
        raise PplebmError(
            f"optimizer rule '{rule}' is not known; write adam, the name of a class of torch.optim, such as sgd or "
            f"adamw, or the path of a class, package.module.Class."
        ) from error


def _adam(betas: tuple[float, float] = (0.9, 0.999)) -> Rule:
    """Adam with a learning rate per parameter; new tensors, none changed."""

    def init(params: Tensors) -> AdamState:
        zeros = {n: torch.zeros_like(p) for n, p in params.items()}
        return AdamState(zeros, {n: z.clone() for n, z in zeros.items()}, torch.tensor(0.0))

    def update(params: Tensors, gradients: Tensors, state: Any, rates: Mapping[str, Any]) -> tuple[Any, AdamState]:
        """As torch.optim.Adam, by operations that a graph can hold; parameters of one rate at once."""
        b1, b2, n = *betas, state.n_updates + 1
        new, mean, square = dict[str, Any](), dict[str, Any](), dict[str, Any]()
        for rate in {id(r): r for r in rates.values()}.values():
            names = [name for name in params if rates[name] is rate]
            p, g, *kept = (
                [tree[name].detach() for name in names] for tree in (params, gradients, state.mean, state.square)
            )
            m = torch._foreach_lerp(kept[0], g, 1.0 - b1)
            s = torch._foreach_addcmul(torch._foreach_mul(kept[1], b2), g, g, 1.0 - b2)
            root = torch._foreach_sqrt(s)
            below = torch._foreach_add(torch._foreach_div(root, torch.sqrt(1.0 - b2**n)), 1e-8)
            steps = torch._foreach_mul(torch._foreach_div(m, below), torch.as_tensor(-rate / (1.0 - b1**n)))
            for tree, values in ((new, torch._foreach_add(p, steps)), (mean, m), (square, s)):
                tree.update(zip(names, values, strict=True))
        order = lambda tree: {name: tree[name] for name in params}
        return order(new), AdamState(order(mean), order(square), n)

    return Rule(init, update)
