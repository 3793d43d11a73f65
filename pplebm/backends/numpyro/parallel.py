"""Batches and chains spread over devices: data parallel, one axis, by JAX's own sharding."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec

from pplebm.errors import PplebmError

AXIS = "data"


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
    return jax.make_mesh((n_devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:n_devices])


def spread(tree: Any) -> Any:
    """Under a mesh (`jax.set_mesh`), keep the first axis of every array spread over it; otherwise nothing happens."""
    around = jax.sharding.get_abstract_mesh()
    if around.empty or AXIS not in around.axis_names:
        return tree
    size = around.shape[AXIS]

    def place(a: jax.Array) -> jax.Array:
        if a.ndim == 0 or a.shape[0] % size:
            return a
        return jax.lax.with_sharding_constraint(a, PartitionSpec(AXIS))

    return jax.tree.map(place, tree)
