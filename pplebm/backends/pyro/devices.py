"""Data-parallel learning in torch: processes by Lightning Fabric, means over them by torch.distributed."""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as distributed

from pplebm.backends.pyro.arrays import asarray
from pplebm.backends.pyro.keys import split
from pplebm.errors import PplebmError
from pplebm.ppl.parallel import Alone, Parallel, check_counts, leave_interrupts_to_the_first
from pplebm.ppl.trees import tree_fill, tree_leaves, tree_map, tree_values

STRATEGIES = ("auto", "ddp", "ddp_spawn")


def parallel(devices: int, nodes: int, strategy: str) -> Parallel:
    """Processes, `devices` on each of `nodes` machines, on GPUs where torch sees any, otherwise on the CPU.

    Raises:
        PplebmError: for a strategy that does not keep all weights on every device, or without Lightning Fabric.
    """
    check_counts(devices, nodes)
    if strategy not in STRATEGIES:
        raise PplebmError(
            f"there is no strategy '{strategy}' here; choose from {', '.join(STRATEGIES)}. Every device holds all "
            f"weights, so strategies that split or shard a model do not apply."
        )
    if devices * nodes == 1:
        return Alone(lambda a: asarray(a, keep=True))
    try:
        fabric = importlib.import_module("lightning_fabric")
    except ImportError as error:
        raise PplebmError(
            'several devices need Lightning Fabric: pip install "pplebm[parallel]", or --backend numpyro.'
        ) from error
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = "ddp" if strategy == "auto" else strategy
    try:
        return Ranks(
            fabric.Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=chosen), devices * nodes
        )
    except Exception as error:  # the library's own refusals, of several types
        raise PplebmError(f"{devices} devices of kind {accelerator} cannot be had: {error}") from error


class Ranks:
    """Processes of Lightning Fabric."""

    def __init__(self, fabric: Any, size: int) -> None:
        self._fabric, self.size, self.rank = fabric, size, fabric.global_rank

    def launch(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._fabric.launch(_in_rank, self.size, function, args)

    def around(self) -> contextlib.AbstractContextManager[Any]:
        return torch.device(self._fabric.device)

    def alone(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def share(self, x: Any) -> Any:
        def mine(a: Any) -> torch.Tensor:
            rows = a.shape[1] // self.size
            return asarray(a[:, self.rank * rows : (self.rank + 1) * rows], keep=True)

        return tree_map(mine, x)

    def key(self, keys: list[int]) -> list[int]:
        return [split(key, self.size)[self.rank] for key in keys]

    def same(self, tree: Any) -> Any:
        leaves = dict(tree_leaves(tree))
        device = self._fabric.device
        sent = self._fabric.broadcast({n: v for n, v in leaves.items() if not isinstance(v, torch.Tensor)})
        for name, leaf in leaves.items():
            if isinstance(leaf, torch.Tensor):
                sent[name] = leaf.detach().to(device).clone()
                distributed.broadcast(sent[name], 0)
        return tree_fill(tree, sent)

    def local(self, tree: Any) -> Any:
        return tree

    def check_same(self, tree: Any) -> None:
        leaves = [leaf.double() for leaf in tree_values(tree) if isinstance(leaf, torch.Tensor)]
        mine = torch.stack([leaf.sum() for leaf in leaves] + [leaf.abs().sum() for leaf in leaves])
        first = mine.clone()
        distributed.broadcast(first, 0)
        differs = (mine != first).any().int()
        distributed.all_reduce(differs, distributed.ReduceOp.MAX)
        if differs.item():
            raise PplebmError(
                "processes hold different weights after one update: the algorithm page must average its gradient over "
                "them, gradient = ppl.average(gradient), before anything is done with it."
            )


def average(tree: Any) -> Any:
    """Mean of a tree over the processes that learn together; the tree itself where there is one."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return tree
    leaves = dict(tree_leaves(tree))
    tensors = {name: torch.as_tensor(leaf) for name, leaf in leaves.items()}
    wide = torch.cat([t.detach().double().reshape(-1) for t in tensors.values()])  # one message for all
    distributed.all_reduce(wide)
    wide /= distributed.get_world_size()
    parts = wide.split([t.numel() for t in tensors.values()])
    kinds = (t.dtype if t.is_floating_point() else torch.get_default_dtype() for t in tensors.values())
    means = {
        name: part.reshape(t.shape).to(kind)
        for (name, t), part, kind in zip(tensors.items(), parts, kinds, strict=True)
    }
    return tree_fill(tree, means)


def _in_rank(fabric: Any, size: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The function in one process; errors say in which."""
    ranks = Ranks(fabric, size)
    leave_interrupts_to_the_first(ranks.rank)
    where = f"process {ranks.rank} of {size} on {socket.gethostname()}"
    try:
        with fabric.device:
            found = function(ranks, *args)
        fabric.barrier()
    except PplebmError as error:
        raise PplebmError(f"{where}: {error}") from error
    except (RuntimeError, distributed.DistError) as error:
        if "onnection closed" in str(error) or "onnection reset" in str(error):
            raise SystemExit(f"pplebm: {where} lost another process, whose own message tells why.") from error
        error.add_note(f"in {where}")
        raise
    except Exception as error:
        error.add_note(f"in {where}")
        raise
    distributed.destroy_process_group()
    return found
