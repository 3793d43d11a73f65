"""Chains spread over devices: the same numbers as on one, and really spread. Two host devices stand for two GPUs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax")

SCRIPT = """
import jax, numpy as np, pplebm
from jax.sharding import NamedSharding, PartitionSpec
from pplebm.backends.numpyro import devices
from pplebm.errors import PplebmError
from pplebm.learning.algorithm import algorithm_of
from pplebm.inference import short_run_mle as page

jax.config.update("jax_enable_x64", True)
try:
    devices.mesh(3)
except PplebmError as error:
    assert "XLA_FLAGS" in str(error)
program = pplebm.Program(pplebm.bind("joint_ebm", "numpyro", shape=(3,), width=8, tilt_width=8))
ppl = program.ppl
x = ppl.asarray(np.random.default_rng(0).normal(size=(8, 3)))
algorithm = algorithm_of(page, program, {"n_steps_posterior": 5, "n_steps_prior": 5, "batch_size": 8})
state, step = algorithm.init(ppl.key(0), x), ppl.compiled(algorithm.step)
chain = ppl.compiled(lambda key, params, x: algorithm.positive(key, params, x).z)
prior = ppl.compiled(lambda key, params: algorithm.negative(key, params, 8).z)
one = step(ppl.key(1), state, x), chain(ppl.key(2), state.params, x), prior(ppl.key(3), state.params)

mesh = devices.mesh(2)
with jax.set_mesh(mesh):
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec(devices.AXIS)))
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    two = step(ppl.key(1), state, x), chain(ppl.key(2), state.params, x), prior(ppl.key(3), state.params)
for latents in two[1:]:
    for name, z in latents.items():
        assert {s.data.shape[0] for s in z.addressable_shards} == {4}, (name, z.sharding)
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
print("equal")
"""


@pytest.mark.slow
def test_two_devices_give_what_one_gives():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-2000:]
