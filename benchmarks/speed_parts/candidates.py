"""What is timed: objects with an `iteration`, a `posterior` and a `prior`, and the end of a noiseless chain."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pplebm import chains
from pplebm.inference import short_run_mle as page
from pplebm.kernels.langevin import langevin
from pplebm.ppl import How

from . import sizes
from .by_hand import log_density
from .published import Published

SIZES_OF_STEP = {"posterior": 0.1, "prior": 0.4}


class Candidate:
    """One way to do the work; times of first calls are kept as the cost of compiling."""

    name = ""
    compile_seconds = 0.0

    def prepare(self) -> None:
        """Run everything once."""
        began = time.perf_counter()
        for call in self.calls().values():
            call()
        first = time.perf_counter() - began
        began = time.perf_counter()
        for call in self.calls().values():
            call()
        self.compile_seconds = max(0.0, first - (time.perf_counter() - began))

    def calls(self) -> dict[str, Callable[[], None]]:
        """What is timed, by column."""
        raise NotImplementedError

    def final(self, z: dict[str, np.ndarray], phase: str) -> dict[str, np.ndarray]:
        """Latents at the end of a phase from given latents, with noise off."""
        raise NotImplementedError


class Reference(Candidate):
    """(a) the published style."""

    def __init__(self, size: sizes.Size, threads: int) -> None:
        import torch

        self.name, self.threads, self.size = f"(a) published style, torch eager, {threads} threads", threads, size
        self.x = torch.as_tensor(sizes.data(size)).float()
        self.loop = Published(size, sizes.program(size, "pyro").params)

    @contextlib.contextmanager
    def _on_threads(self) -> Any:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        yield
        torch.set_num_threads(before)

    def calls(self) -> dict[str, Callable[[], None]]:
        def timed(function: Callable[..., Any], *args: Any) -> Callable[[], None]:
            def call() -> None:
                with self._on_threads():
                    function(*args)

            return call

        return {
            "iteration": timed(self.loop.iteration, self.x),
            "posterior": timed(self.loop.posterior, self.x),
            "prior": timed(self.loop.prior),
        }

    def final(self, z: dict[str, np.ndarray], phase: str) -> dict[str, np.ndarray]:
        import torch

        start = {int(k[1:]): torch.as_tensor(v).float() for k, v in z.items()}
        x = self.x if phase == "posterior" else None
        fresh = Published(self.size, sizes.program(self.size, "pyro").params)  # the timed one has learned since
        end = fresh.chain(start, x, _steps(self.size, phase), SIZES_OF_STEP[phase], noise=0.0)
        return {f"z{i}": v.numpy() for i, v in end.items()}


class Ours(Candidate):
    """(c), (d): a declared program and an algorithm page."""

    def __init__(self, size: sizes.Size, backend: str, precision: str = "full", devices: int = 1) -> None:
        words = {"pyro": "(c) pplebm, Pyro, compiled", "numpyro": "(d) pplebm, NumPyro"}[backend]
        self.name = words + (", bf16" if precision == "bf16" else "") + (f", {devices} devices" if devices > 1 else "")
        self.size, self.hyper, self.devices = size, sizes.settings(size), devices
        self.program = sizes.program(size, backend).with_chains(compiled=True, precision=precision)
        ppl = self.ppl = self.program.ppl
        self.x, self.count = ppl.asarray(sizes.data(size)), 0
        self.state = page.init(ppl, ppl.key(0), self.program, self.x, self.hyper)
        if devices > 1:
            self._spread()
        run, hyper = self.program, self.hyper
        self.step = ppl.compiled(lambda key, state, x: page.step(ppl, key, state, run, x, hyper))
        self.phases = {
            "posterior": ppl.compiled(lambda key, params, x: page.posterior(ppl, key, run, params, x, hyper)[0]),
            "prior": ppl.compiled(lambda key, params, x: page.prior(ppl, key, run, params, size.batch, hyper)[0]),
        }

    def _spread(self) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        from pplebm.backends.numpyro import parallel

        self.mesh = parallel.mesh(self.devices)
        self.x = jax.device_put(self.x, NamedSharding(self.mesh, PartitionSpec(parallel.AXIS)))
        self.state = jax.device_put(self.state, NamedSharding(self.mesh, PartitionSpec()))

    @contextlib.contextmanager
    def _around(self) -> Any:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.ppl.threads_for(self.program.work(self.size.batch)))
            if self.devices > 1:
                import jax

                stack.enter_context(jax.set_mesh(self.mesh))
            yield

    def _key(self) -> Any:
        self.count += 1
        return self.ppl.key(self.count)

    def _iterate(self) -> None:
        with self._around():
            self.state, info = self.step(self._key(), self.state, self.x)
            float(info.grad_norm)

    def _phase(self, phase: str) -> Callable[[], None]:
        def call() -> None:
            with self._around():
                z = self.phases[phase](self._key(), self.state.params, self.x)
                self.ppl.to_numpy(z["z1"])

        return call

    def calls(self) -> dict[str, Callable[[], None]]:
        return {"iteration": self._iterate, "posterior": self._phase("posterior"), "prior": self._phase("prior")}

    def final(self, z: dict[str, np.ndarray], phase: str) -> dict[str, np.ndarray]:
        ppl = self.ppl
        kernel = langevin(ppl, SIZES_OF_STEP[phase], temperature=0.0)
        state = kernel.init({k: ppl.asarray(v) for k, v in z.items()})
        x, params = self.x if phase == "posterior" else None, self.program.params
        end, _ = chains.advance(self.program, ppl.key(0), kernel, state, params, _steps(self.size, phase), x)
        return {k: ppl.to_numpy(v) for k, v in end.z.items()}


class ByHand(Candidate):
    """(b): the density written out, in the same loop; its phases only."""

    def __init__(self, size: sizes.Size, backend: str) -> None:
        import importlib

        self.name = f"(b) by hand, {'torch, compiled' if backend == 'pyro' else 'JAX'}"
        self.size, self.backend, self.count = size, backend, 0
        program = sizes.program(size, backend)
        self.ppl, self.params, self.work = program.ppl, program.params, program.work(size.batch)
        apply = importlib.import_module(f"pplebm.backends.{backend}.layers").apply
        self.density = log_density(size, self.ppl, apply)
        self.x = self.ppl.asarray(sizes.data(size))
        with self.ppl.threads_for(self.work):  # a step is compiled for the threads it runs on
            self.runs = {phase: self._loop(phase) for phase in ("posterior", "prior")}

    def _zeros(self) -> dict[str, Any]:
        dims = enumerate(self.size.dims, start=1)
        return {f"z{i}": self.ppl.asarray(np.zeros((self.size.batch, d))) for i, d in dims}

    def _loop(self, phase: str, **options: Any) -> Callable[..., Any]:
        ppl, n_steps = self.ppl, _steps(self.size, phase)
        kernel = langevin(ppl, SIZES_OF_STEP[phase], **options)
        with_x = phase == "posterior"
        if self.backend == "pyro":
            from pplebm.backends.pyro.steps import Step, run_steps

            def terms(params: Any, z: Any, x: Any) -> Any:
                return {"all": self.density(params, z, x)}

            x = self.x if with_x else None
            step = Step(terms, kernel, self.params, x, kernel.init(self._zeros()), 0, How(compiled=True))

            def run(key: Any, z: Any, params: Any, x: Any) -> Any:
                return run_steps(step, kernel, kernel.init(z), ppl.split(key, n_steps), params, x if with_x else None)

            return run

        def scan(key: Any, z: Any, params: Any, x: Any) -> Any:
            def density(z: Any) -> Any:
                return self.density(params, z, x if with_x else None)

            return chains.run(ppl, key, kernel, kernel.init(z), density, n_steps)

        return ppl.compiled(scan)

    def _phase(self, phase: str) -> Callable[[], None]:
        def call() -> None:
            self.count += 1
            with self.ppl.threads_for(self.work):
                z = self.ppl.normal_like(self.ppl.key(self.count), self._zeros())
                state, _ = self.runs[phase](self.ppl.key(self.count), z, self.params, self.x)
                self.ppl.to_numpy(state.z["z1"])

        return call

    def calls(self) -> dict[str, Callable[[], None]]:
        return {phase: self._phase(phase) for phase in self.runs}

    def final(self, z: dict[str, np.ndarray], phase: str) -> dict[str, np.ndarray]:
        start = {k: self.ppl.asarray(v) for k, v in z.items()}
        end, _ = self._loop(phase, temperature=0.0)(self.ppl.key(0), start, self.params, self.x)
        return {k: self.ppl.to_numpy(v) for k, v in end.z.items()}


def _steps(size: sizes.Size, phase: str) -> int:
    return size.n_posterior if phase == "posterior" else size.n_prior
