"""(c) and (d): pplebm as it is used, a declared program and the algorithm page `short_run_mle`, on either backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pplebm.errors import PplebmError
from pplebm.inference import short_run_mle
from pplebm.kernels.langevin import langevin
from pplebm.learning.algorithm import Algorithm
from pplebm.sampling import chains

from . import sizes
from .candidate import Candidate, Latents, Skipped


class Ours(Candidate):
    """A program, and one compiled learning step."""

    backend: str

    def __init__(self, size: sizes.Size, place: str) -> None:
        self.size, self.place, self.count, self.hyper = size, place, 0, sizes.settings(size)
        with self.here():
            self.program = self.declared()
            self.ppl = ppl = self.program.ppl
            self.x = self.placed(ppl.asarray(sizes.data(size)), is_batch=True)
            self.algorithm = algorithm = Algorithm(short_run_mle, self.program, self.hyper)
            state = algorithm.init(ppl.key(0), self.x)
            self.state = self.placed(state, is_batch=False)
        self.learn = ppl.compiled(lambda key, state, x: algorithm.step(key, state, x))
        self.phases: dict[str, Callable[..., Any]] = {
            "posterior": ppl.compiled(lambda key, params, x: algorithm.positive(key, params, x).z),
            "prior": ppl.compiled(lambda key, params, x: algorithm.negative(key, params, size.batch).z),
        }

    def declared(self) -> Any:
        """The program, run as this candidate runs it."""
        raise NotImplementedError

    def here(self) -> Any:
        """Surroundings of all calls: device, threads."""
        raise NotImplementedError

    def placed(self, tree: Any, is_batch: bool) -> Any:
        """Data, or a state, where this candidate wants them."""
        return tree

    def still(self, phase: str) -> Any:
        """The kernel of a phase with its noise off."""
        return langevin(sizes.STEP_SIZES[phase], temperature=0.0)

    def _key(self) -> Any:
        self.count += 1
        return self.ppl.key(self.count)

    def iteration(self) -> None:
        with self.here():
            self.state, info = self.learn(self._key(), self.state, self.x)
            float(info["grad_norm"])

    def posterior(self) -> None:
        self._phase("posterior")

    def prior(self) -> None:
        self._phase("prior")

    def _phase(self, phase: str) -> None:
        with self.here():
            z = self.phases[phase](self._key(), self.state.params, self.x)
            self.ppl.to_numpy(z["z1"])

    def final(self, start: Latents, phase: str) -> Latents:
        x, program, n = self.x if phase == "posterior" else None, self.program, self.size.batch
        with self.here():
            z = self.placed({name: self.ppl.asarray(v) for name, v in start.items()}, is_batch=True)
            params = self.placed(program.params, is_batch=False)
            end, _ = chains.short_run(
                program, self.ppl.key(0), params, n if x is None else x, self.still(phase), self.size.steps(phase),
                init=z, coordinates="centered",
            )  # fmt: skip
            return {name: self.ppl.to_numpy(v) for name, v in end.items()}


class OnPyro(Ours):
    """Steps compiled by torch, or left as traced graphs; networks inside a step in full precision or in bf16."""

    backend = "pyro"

    def __init__(self, size: sizes.Size, place: str, precision: str = "full", compiled: bool = True) -> None:
        self.precision, self.compiled = precision, compiled
        self.key = "c" if precision == "full" else f"c-{precision}"
        self.label = f"(c) pplebm, Pyro{', compiled' * compiled}{', bf16' * (precision == 'bf16')}"
        super().__init__(size, place)

    def declared(self) -> Any:
        program = sizes.program(self.size, self.backend)
        try:
            return program.with_chains(compiled=self.compiled, precision=self.precision)
        except PplebmError as error:
            raise Skipped(str(error)) from error

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """A call on the device, and on one thread where that is faster, as `pplebm.fit` does."""
        import torch

        with contextlib.ExitStack() as stack:
            if self.place != "cpu":
                stack.enter_context(torch.device(self.place))
            if hasattr(self, "program"):
                stack.enter_context(self.ppl.threads_for(self.program.work(self.size.batch)))
            yield

    def still(self, phase: str) -> Any:
        """The kernel that is timed, given zeros: the very step that is timed is compared, and none compiled anew."""
        import torch

        kernel = langevin(sizes.STEP_SIZES[phase])
        return replace(kernel, noise=lambda ppl, key, z: {name: torch.zeros_like(v) for name, v in z.items()})


class OnNumPyro(Ours):
    """One jit of the iteration; with `devices` above one, the batch and its chains are spread over that many."""

    backend = "numpyro"

    def __init__(self, size: sizes.Size, place: str, devices: int = 1) -> None:
        import jax

        found = jax.devices("gpu" if place == "cuda" else "cpu")
        if devices > len(found):
            raise Skipped(f"JAX sees {len(found)} device here, not {devices}")
        self.devices = found[:devices]
        self.key, self.label = "d", "(d) pplebm, NumPyro"
        if devices > 1:
            self.key, self.label = "d-sharded", f"(d) pplebm, NumPyro, over {devices} devices"
            self.mesh, self.split, self.whole = spread(self.devices)
        super().__init__(size, place)

    def declared(self) -> Any:
        return sizes.program(self.size, self.backend)

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        import jax

        with jax.default_device(self.devices[0]) if len(self.devices) == 1 else jax.set_mesh(self.mesh):
            yield

    def placed(self, tree: Any, is_batch: bool) -> Any:
        import jax

        if len(self.devices) == 1:
            return tree
        return jax.device_put(tree, self.split if is_batch else self.whole)


def spread(devices: list[Any]) -> tuple[Any, Any, Any]:
    """All that is said here of sharding: a mesh of one axis, "data", a batch split over it, weights whole on each."""
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    return mesh, NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
