"""A Pyro program seen from outside: its sites, plate, tilts and parameters, found by running it once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch.overrides import TorchFunctionMode

from pplebm.backends.pyro.flows import KnownFlows
from pplebm.backends.pyro.following import NotFollowed
from pplebm.backends.pyro.sites import improper_start
from pplebm.backends.rows import failure
from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import Data

_REQUIRES_GRAD = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]


class Substitute(TorchFunctionMode):
    """Let given tensors stand in for a program's parameters wherever torch meets them.

    Substitution by identity reaches modules in closures, parameter stores and PyroModules alike.
    """

    def __init__(self, replacements: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.replacements = replacements

    def _swap(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor):
            return self.replacements.get(id(a), a)
        if type(a) in (list, tuple):
            return type(a)(self._swap(v) for v in a)
        return a

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _REQUIRES_GRAD:  # pyro.module asks the module's own tensor, not its stand-in
            return func(*args)
        kwargs = {k: self._swap(v) for k, v in (kwargs or {}).items()}
        return func(*self._swap(tuple(args)), **kwargs)


class NanFactors(TorchFunctionMode):
    """A matrix without Cholesky factor gives nan, which a chain counts and rejects, where torch would stop them all."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.linalg.cholesky:
            return func(*args, **(kwargs or {}))
        factor, failed = torch.linalg.cholesky_ex(*args, **(kwargs or {}))
        return torch.where((failed > 0)[..., None, None], torch.nan, factor)


def call(model: Any, data: Data) -> Any:
    """Run the user's model; what goes wrong in it is told as theirs, with the batch it was given."""
    try:
        with KnownFlows():
            return columns.call(model, data)
    except (PplebmError, NotFollowed):
        raise
    except Exception as error:
        raise failure(error, data) from error


class Starts(Messenger):
    """Gives latents whose distribution has no draws a value, and marks them."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and not msg["is_observed"] and type(msg["fn"]).__name__ != "_Subsample":
            draw = lambda: msg["fn"](*msg["args"], **msg["kwargs"])
            msg["value"], msg["is_improper"] = improper_start(msg["fn"], draw)
            msg["done"] = True


def split_trace(trace: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Sample statements in program order, and the full sizes of subsampled plates."""
    samples = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
    full_sizes = {name: site["fn"].size for name, site in samples.items() if site_is_subsample(site)}
    return [site for name, site in samples.items() if name not in full_sizes], full_sizes


def parameters_of(trace: Any) -> dict[str, torch.Tensor]:
    """Unconstrained leaf tensors behind the parameter statements of a trace, by readable name."""
    leaves = {}
    for name, site in trace.nodes.items():
        if site["type"] == "param":
            value = site["value"]
            leaves[readable(name)] = value.unconstrained() if hasattr(value, "unconstrained") else value
    return leaves


def readable(name: str) -> str:
    """Pyro's "net$$$weight" is "net.weight" here."""
    return name.replace("$$$", ".")


def unregistered_leaves(values: list[torch.Tensor], known: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """Shapes of tensors that require gradients and enter `values` without a parameter statement."""
    known_ids = {id(leaf) for leaf in known.values()}
    stack: list[Any] = [v.grad_fn for v in values if v.grad_fn is not None]
    seen, found = set(), []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known_ids:
            found.append(tuple(leaf.shape))
        stack.extend(parent for parent, _ in node.next_functions)
    return found


@contextlib.contextmanager
def store_scope(state: Any) -> Iterator[None]:
    """A program's own parameter store, so that equal names of two programs never meet."""
    store = pyro.get_param_store()
    with store.scope(state):
        yield
    for name in store.keys():  # noqa: SIM118
        store[name]  # gives values back their link to the unconstrained ones, which a scope cuts and SVI follows
