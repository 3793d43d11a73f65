"""Batches and chains spread over devices: data parallel, one axis, by JAX's own sharding."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pplebm.backends.numpyro.arrays import asarray
from pplebm.errors import PplebmError
from pplebm.ppl.compilations import keep_compilations
from pplebm.ppl.parallel import Alone, Parallel, check_counts, leave_interrupts_to_the_first
from pplebm.ppl.trees import tree_map

AXIS = "data"
SMALL_WORK = 2 * 10**7  # multiplications: below, summing gradients over devices takes longer than computing them whole


def parallel(devices: int, nodes: int, strategy: str) -> Parallel:
    """Devices, `devices` of one process on each of `nodes` machines, which keep what they compile.

    Raises:
        PplebmError: if JAX does not see as many, or for a strategy of another library.
    """
    check_counts(devices, nodes)
    if strategy != "auto":
        raise PplebmError(f"strategy '{strategy}' is one of Lightning Fabric, for Pyro; NumPyro shards by itself.")
    keep_compilations()
    return Alone(lambda a: asarray(a, keep=True)) if devices * nodes == 1 else Sharded(devices, nodes)


class Sharded:
    """All devices of all processes as one mesh; every process runs the same program on global arrays."""

    def __init__(self, devices: int, nodes: int) -> None:
        self.size, self.rank = devices * nodes, 0
        self._devices, self._nodes = devices, nodes

    def launch(self, function: Callable[..., Any], *args: Any) -> Any:
        _ask_for_host_devices(self._devices)
        if self._nodes > 1:
            _join(self._nodes, self._devices)
            self.rank = jax.process_index()
            leave_interrupts_to_the_first(self.rank)
        self._mesh = mesh(self.size)
        self._whole = NamedSharding(self._mesh, PartitionSpec())
        try:
            with jax.default_device(jax.local_devices()[0]):
                return function(self, *args)
        except Exception as error:
            if self._nodes > 1:
                error.add_note(f"in process {self.rank} of {self._nodes}")
            raise
        finally:
            if self._nodes > 1:
                jax.distributed.shutdown()

    def around(self) -> contextlib.AbstractContextManager[Any]:
        return jax.set_mesh(self._mesh)

    def alone(self) -> contextlib.AbstractContextManager[Any]:
        return jax.set_mesh(_mesh_of(jax.local_devices()[:1]))

    def share(self, x: Any) -> Any:
        spread_out = NamedSharding(self._mesh, PartitionSpec(None, AXIS))

        def shared(a: Any) -> jax.Array:
            rows = np.asarray(asarray(a, keep=True))
            return jax.make_array_from_callback(rows.shape, spread_out, lambda at: rows[at])

        return tree_map(shared, x)

    def key(self, keys: jax.Array) -> jax.Array:
        """By way of NumPy: what was stacked under a mesh cannot be put on devices of other processes."""
        data = jax.device_put(np.asarray(jax.random.key_data(keys)), self._whole)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))

    def same(self, tree: Any) -> Any:
        def whole(leaf: Any) -> Any:
            return jax.device_put(leaf, self._whole) if isinstance(leaf, jax.Array) else leaf

        return jax.tree.map(whole, tree)

    def local(self, tree: Any) -> Any:
        return jax.tree.map(lambda a: asarray(np.asarray(a)) if isinstance(a, jax.Array) else a, tree)

    def check_same(self, tree: Any) -> None:
        """Replicated arrays are the same by construction."""


def average(tree: Any) -> Any:
    """Mean over the devices that learn together: the tree itself, since one jitted update sees the whole batch."""
    return tree


def _ask_for_host_devices(devices: int) -> None:
    """Let a CPU count as that many devices, which only works before JAX has started."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices)


def _join(nodes: int, devices: int) -> None:
    """Meet the other processes: where MASTER_ADDR says, or as SLURM, MPI or Kubernetes tell JAX.

    Raises:
        PplebmError: if they cannot be found.
    """
    address, rank = os.environ.get("MASTER_ADDR"), os.environ.get("NODE_RANK")
    own = list(range(devices))  # under SLURM a process would take one
    try:
        if address is None:
            jax.distributed.initialize(local_device_ids=own)
        else:
            where = f"{address}:{os.environ.get('MASTER_PORT', '29400')}"
            jax.distributed.initialize(where, nodes, int(rank or 0), own)
    except (RuntimeError, ValueError) as error:
        raise PplebmError(
            f"the {nodes} processes cannot meet: {error}. Start one on every machine, under SLURM or MPI, or with "
            f"MASTER_ADDR, MASTER_PORT and NODE_RANK set; see docs/clusters.md."
        ) from error
    if jax.process_count() != nodes:
        raise PplebmError(f"{nodes} nodes are wanted and {jax.process_count()} processes have met.")


def mesh(n_devices: int) -> Mesh:
    """A mesh of one axis over the first devices of all processes.

    Raises:
        PplebmError: if JAX sees fewer devices.
    """
    there = jax.devices()
    if n_devices > len(there):
        raise PplebmError(
            f"{n_devices} devices are wanted and JAX sees {len(there)} of kind {there[0].platform}; on a CPU set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={n_devices} before Python starts."
        )
    return _mesh_of(there[:n_devices])


def _mesh_of(devices: list[Any]) -> Mesh:
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def spread(tree: Any) -> Any:
    """Under a mesh (`jax.set_mesh`), keep the first axis of every array spread over it; otherwise nothing happens."""
    size = _size_around()

    def place(a: jax.Array) -> jax.Array:
        if a.ndim == 0 or a.shape[0] % size:
            return a
        return jax.lax.with_sharding_constraint(a, PartitionSpec(AXIS))

    return jax.tree.map(place, tree) if size else tree


def gather(tree: Any, work: int) -> Any:
    """Under a mesh, bring what little work is to be done on to every device; otherwise nothing happens.

    The gradient of small work is sooner computed whole on each than summed over them, a message per parameter.
    """
    if not _size_around() or work >= SMALL_WORK:
        return tree
    tree = jax.lax.optimization_barrier(spread(tree))  # or else the chains before are computed whole as well
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, PartitionSpec()), tree)


def _size_around() -> int:
    """Devices of the mesh around, 0 outside."""
    around = jax.sharding.get_abstract_mesh()
    return 0 if around.empty or AXIS not in around.axis_names else around.shape[AXIS]
