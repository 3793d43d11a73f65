"""(b) In JAX: the density written out, the same kernel in the same scan, one jit; no program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pplebm.backends.numpyro as ppl
from pplebm.kernels.langevin import langevin
from pplebm.sampling import chains

from . import page, sizes
from .candidate import Candidate, Latents

Arrays = dict[str, jax.Array]
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def perceptron(params: Arrays, name: str, depth: int, a: jax.Array) -> jax.Array:
    """`depth` hidden layers with leaky ReLU and a linear one."""
    for i in range(depth):
        a = jax.nn.leaky_relu(a @ params[f"{name}.weight_{i}"].T + params[f"{name}.bias_{i}"], 0.2)
    return a @ params[f"{name}.weight_{depth}"].T + params[f"{name}.bias_{depth}"]


def log_density(
    size: sizes.Size, decoder: Callable[[Arrays, jax.Array], jax.Array]
) -> Callable[[Arrays, Arrays, jax.Array | None], jax.Array]:
    """log p̃(x, z), or log p̃(z) without data, (B,)."""
    hyper, dims = size.hyper, size.dims

    def density(params: Arrays, z: Arrays, x: jax.Array | None) -> jax.Array:
        top = z[f"z{len(dims)}"]
        total = (-0.5 * top * top - HALF_LOG_2PI).sum(1)
        for i in range(1, len(dims)):
            h, d = perceptron(params, f"conditional{i}", hyper.depth, z[f"z{i + 1}"]), dims[i - 1]
            scale = jnp.exp(h[:, d:]) + page.SCALE_FLOOR
            e = (z[f"z{i}"] - h[:, :d]) / scale
            total = total + (-0.5 * e * e - jnp.log(scale) - HALF_LOG_2PI).sum(1)
        for i in range(1, len(dims) + 1):
            total = total + perceptron(params, f"tilt{i}", hyper.tilt_depth, z[f"z{i}"])[:, 0]
        if x is None:
            return total
        e = (x - decoder(params, z["z1"]).reshape(x.shape)) / hyper.sigma
        return total + (-0.5 * e * e - math.log(hyper.sigma) - HALF_LOG_2PI).reshape(len(x), -1).sum(1)

    return density


def decoder_of(size: sizes.Size) -> Callable[[Arrays, jax.Array], jax.Array]:
    """A perceptron by hand; a convolutional decoder by pplebm's own layers, whose gradient XLA does not find alone."""
    if size.hyper.decoder == "dense":
        return lambda params, a: jnp.tanh(perceptron(params, "decoder", size.hyper.depth, a))
    from pplebm.backends.numpyro.layers import apply

    net = page.nets(size.hyper, size.shape)["decoder"]
    prefix = "decoder."
    return lambda params, a: apply(
        net, {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix)}, a
    )


class ByHandJax(Candidate):
    """The whole iteration, and either phase, in one jit each."""

    key = "b-jax"

    def __init__(self, size: sizes.Size, place: str) -> None:
        self.label, self.size, self.count = "(b) density by hand, JAX", size, 0
        self.device = jax.devices("gpu" if place == "cuda" else "cpu")[0]
        with jax.default_device(self.device):
            program = sizes.program(size, "numpyro")
            self.initial, self.tilt_params = program.params, program.tilt_params
            self.state = (self.initial, ppl.optimizer("adam").init(self.initial))
            self.x, self.density = ppl.asarray(sizes.data(size)), log_density(size, decoder_of(size))
        self.learn = jax.jit(self._learn)
        self.phases = {phase: jax.jit(self._fresh_chain(phase)) for phase in sizes.PHASES}

    def _chain(
        self, phase: str, key: Any, z: Arrays, params: Arrays, x: jax.Array, temperature: float = 1.0
    ) -> tuple[Arrays, Any]:
        """Last latents, and what pplebm's loop tells as well: divergent chains."""
        kernel, given = langevin(sizes.STEP_SIZES[phase], temperature), x if phase == "posterior" else None
        n = self.size.steps(phase)
        state, info = chains.run(ppl, key, kernel.init(ppl, z), lambda z: self.density(params, z, given), kernel, n)
        return state.z, ((state.n_divergent > 0).sum(), info.log_density.mean())

    def _fresh_chain(self, phase: str) -> Callable[[Any, Arrays, jax.Array], tuple[Arrays, Any]]:
        zeros = {f"z{i}": np.zeros((self.size.batch, d), np.float32) for i, d in enumerate(self.size.dims, 1)}

        def run(key: Any, params: Arrays, x: jax.Array) -> tuple[Arrays, Any]:
            k_start, k_run = ppl.split(key)
            z = ppl.normal_like(k_start, jax.tree.map(jnp.asarray, zeros))
            return self._chain(phase, k_run, z, params, x)

        return run

    def _learn(self, key: Any, state: Any, x: jax.Array) -> Any:
        (params, adam), (k_positive, k_negative) = state, ppl.split(key)
        positive, seen = self._fresh_chain("posterior")(k_positive, params, x)
        negative, seen_too = self._fresh_chain("prior")(k_negative, params, x)

        def loss(params: Arrays) -> jax.Array:
            return self.density(params, negative, None).mean() - self.density(params, positive, x).mean()

        _, gradient = ppl.value_and_grad(loss, params)
        rates = {n: sizes.RATES["tilt" if n in self.tilt_params else "generator"] for n in params}
        return ppl.optimizer("adam").update(params, gradient, adam, rates), (seen, seen_too)

    def _key(self) -> Any:
        self.count += 1
        return ppl.key(self.count)

    def iteration(self) -> None:
        with jax.default_device(self.device):
            self.state, _ = jax.block_until_ready(self.learn(self._key(), self.state, self.x))

    def posterior(self) -> None:
        self._phase("posterior")

    def prior(self) -> None:
        self._phase("prior")

    def _phase(self, phase: str) -> None:
        with jax.default_device(self.device):
            jax.block_until_ready(self.phases[phase](self._key(), self.state[0], self.x))

    def final(self, start: Latents, phase: str) -> Latents:
        with jax.default_device(self.device):
            run = jax.jit(lambda z: self._chain(phase, ppl.key(0), z, self.initial, self.x, 0.0)[0])
            return {n: np.asarray(v) for n, v in run({n: jnp.asarray(v) for n, v in start.items()}).items()}
