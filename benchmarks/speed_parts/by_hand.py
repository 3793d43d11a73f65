"""(b) In torch: the density written out, traced and compiled by the same route, the same kernel; no program.

What (c) costs more than this in a phase is the price of declaring the model, in an iteration also that of what the
algorithm page reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

import pplebm.backends.pyro as ppl
from pplebm.backends.pyro.steps import compile_graph
from pplebm.kernels.langevin import langevin
from pplebm.ppl.trees import tree_fill, tree_leaves

from . import page, sizes
from .candidate import Candidate, Latents

Tensors = dict[str, torch.Tensor]
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def perceptron(params: Tensors, name: str, depth: int, a: torch.Tensor) -> torch.Tensor:
    """`depth` hidden layers with leaky ReLU and a linear one."""
    for i in range(depth):
        weight, bias = params[f"{name}.weight_{i}"], params[f"{name}.bias_{i}"]
        a = functional.leaky_relu(functional.linear(a, weight, bias), 0.2)
    return functional.linear(a, params[f"{name}.weight_{depth}"], params[f"{name}.bias_{depth}"])


def deconvolutions(params: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Four transposed convolutions, channels last: 4x4, 7x7, 14x14, 28x28; the first is a matrix product."""
    weight = params["decoder.weight_1"]
    rows = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    a = functional.linear(a, rows).reshape(len(a), 4, 4, -1) + params["decoder.bias_1"]
    a = a.permute(0, 3, 1, 2)
    for i in (2, 3, 4):
        a = functional.leaky_relu(a, 0.2)
        a = functional.conv_transpose2d(a, params[f"decoder.weight_{i}"], params[f"decoder.bias_{i}"], 2, 1)
    return a


def log_density(size: sizes.Size) -> Callable[[Tensors, Tensors, torch.Tensor | None], torch.Tensor]:
    """log p̃(x, z), or log p̃(z) without data, (B,)."""
    hyper, dims = size.hyper, size.dims

    def density(params: Tensors, z: Tensors, x: torch.Tensor | None) -> torch.Tensor:
        top = z[f"z{len(dims)}"]
        total = (-0.5 * top * top - HALF_LOG_2PI).sum(1)
        for i in range(1, len(dims)):
            h, d = perceptron(params, f"conditional{i}", hyper.depth, z[f"z{i + 1}"]), dims[i - 1]
            scale = torch.exp(h[:, d:]) + page.SCALE_FLOOR
            e = (z[f"z{i}"] - h[:, :d]) / scale
            total = total + (-0.5 * e * e - torch.log(scale) - HALF_LOG_2PI).sum(1)
        for i in range(1, len(dims) + 1):
            total = total + perceptron(params, f"tilt{i}", hyper.tilt_depth, z[f"z{i}"])[:, 0]
        if x is None:
            return total
        is_conv = hyper.decoder == "conv"
        mean = deconvolutions(params, z["z1"]) if is_conv else perceptron(params, "decoder", hyper.depth, z["z1"])
        e = (x - torch.tanh(mean).reshape(x.shape)) / hyper.sigma
        return total + (-0.5 * e * e - math.log(hyper.sigma) - HALF_LOG_2PI).reshape(len(x), -1).sum(1)

    return density


class ByHandTorch(Candidate):
    """One compiled step per phase, and an eager update."""

    key = "b-torch"

    def __init__(self, size: sizes.Size, place: str, compiled: bool = True) -> None:
        self.label = f"(b) density by hand, torch{', compiled' * compiled}"
        self.size, self.compiled, self.density, self.count = size, compiled, log_density(size), 0
        self.device = torch.device(place)
        with self.device:
            program = sizes.program(size, "pyro")
            self.initial = {n: p.to(self.device) for n, p in program.params.items()}
            self.tilt_params, self.work = program.tilt_params, program.work(size.batch)
            self.rule = ppl.optimizer("adam")
            self.params, self.adam = self.initial, self.rule.init(self.initial)
            self.x = torch.as_tensor(sizes.data(size), device=self.device)
        self.kernels = {phase: langevin(s) for phase, s in sizes.STEP_SIZES.items()}
        self.steps: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {}

    def _step(self, phase: str, inputs: Any) -> Callable[..., tuple[torch.Tensor, ...]]:
        """One step as a compiled function of a flat list of tensors."""
        kernel, paths = self.kernels[phase], [path for path, _ in tree_leaves(inputs)]

        def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            params, x, state, noise = tree_fill(inputs, dict(zip(paths, tensors, strict=True)))
            out = kernel.move(ppl, noise, state, lambda z: self.density(params, z, x))
            return tuple(leaf for _, leaf in tree_leaves(out))

        with torch.no_grad():
            examples = [leaf for _, leaf in tree_leaves(inputs)]
            graph = make_fx(flat)(*examples)
            return compile_graph(graph, examples) if self.compiled else graph.forward

    def chain(self, phase: str, z: Tensors, params: Tensors, noisy: bool = True) -> Tensors:
        """Latents after the steps of a phase."""
        kernel, x = self.kernels[phase], self.x if phase == "posterior" else None
        with torch.no_grad(), self.device, ppl.threads_for(self.work):
            state = kernel.init(ppl, z)
            fixed = [leaf for _, leaf in tree_leaves((params, x))]
            at, rows = [leaf for _, leaf in tree_leaves(state)], []
            for key in ppl.split(self.count, self.size.steps(phase)):
                noise = kernel.noise(ppl, key, z) if noisy else {n: torch.zeros_like(v) for n, v in z.items()}
                if phase not in self.steps:
                    self.steps[phase] = self._step(phase, (params, x, state, noise))
                out = self.steps[phase](*fixed, *at, *noise.values())
                at = list(out[: len(at)])
                rows.append(out[len(at) :])
            [torch.stack(column) for column in zip(*rows, strict=True)]  # what the loop of pplebm reports as well
        return dict(zip(z, at, strict=False))

    def _fresh(self) -> Tensors:
        self.count += 1
        zeros = {f"z{i}": torch.zeros(self.size.batch, d, device=self.device) for i, d in enumerate(self.size.dims, 1)}
        return ppl.normal_like(self.count, zeros)

    def iteration(self) -> None:
        with self.device, ppl.threads_for(self.work):
            positive = self.chain("posterior", self._fresh(), self.params)
            negative = self.chain("prior", self._fresh(), self.params)

            def loss(params: Tensors) -> torch.Tensor:
                return self.density(params, negative, None).mean() - self.density(params, positive, self.x).mean()

            _, gradient = ppl.value_and_grad(loss, self.params)
            rates = {n: sizes.RATES["tilt" if n in self.tilt_params else "generator"] for n in self.params}
            self.params, self.adam = self.rule.update(self.params, gradient, self.adam, rates)
            float(self.params["tilt1.bias_0"].sum())

    def posterior(self) -> None:
        float(self.chain("posterior", self._fresh(), self.params)["z1"].sum())

    def prior(self) -> None:
        float(self.chain("prior", self._fresh(), self.params)["z1"].sum())

    def final(self, start: Latents, phase: str) -> Latents:
        z = {n: torch.as_tensor(v, device=self.device) for n, v in start.items()}
        return {n: ppl.to_numpy(v) for n, v in self.chain(phase, z, self.initial, noisy=False).items()}
