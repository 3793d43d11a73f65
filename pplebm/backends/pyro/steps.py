"""One step of a chain as a graph of torch operations: traced once per shape, compiled if wanted, checked before use."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from pplebm.backends.pyro import transposed
from pplebm.backends.pyro.graphs import Tensors, Terms, check_deterministic, elsewhere, operations, rolled
from pplebm.backends.pyro.interpreted import interpreted
from pplebm.backends.pyro.passes import hoist, simplify, writes
from pplebm.backends.pyro.precision import check_bf16
from pplebm.backends.structure import weighed
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.language import PPL, ChainOptions, Data, Structure
from pplebm.ppl.trees import tree_fill, tree_leaves, tree_map, tree_values

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}  # relative, of a state after one step
TOLERANCE_BF16 = 0.1  # the compiled step rounds at other places than the plain one
KINKS = 0.02  # share of data that may differ: a leaky ReLU has two gradients where rounding decides its side


Graph = Callable[..., tuple[torch.Tensor, ...]]


class Step:
    """One step of `kernel` on a program, as a function of flat lists of tensors.

    `before(*fixed)` does what depends on weights and data only, once for a chain; `graph(*before, *state, *noise)` is
    the step.

    Args:
        ppl: the backend, for the kernel.
        terms: log density of every site, by running the program.
        structure: kinds of the sites.
        kernel: a `pplebm.kernels.kernel.Kernel`.
        params, data, state, key: an example of what the step will be given; only shapes matter.
        options: `compiled` and `precision` are used here.
    """

    def __init__(
        self,
        ppl: PPL,
        terms: Terms,
        structure: Structure,
        kernel: Any,
        params: Tensors,
        data: Data,
        state: Any,
        key: int,
        options: ChainOptions,
    ) -> None:
        if options.precision == "bf16":
            check_bf16(next(iter(state.z.values())).device)
        self._ppl, self._terms, self._structure, self._kernel, self._options = ppl, terms, structure, kernel, options
        self._inputs = (params, data, state, kernel.noise(ppl, key, state.z))
        self._paths = [path for path, _ in tree_leaves(self._inputs)]
        self._outputs: tuple[Any, Any] = (state, None)
        with self._precision(), torch.no_grad():
            check_deterministic(terms, params, state.z, data)
        self.before: Graph = _unchanged
        self.graph: Graph = self._traced()
        self.n_state = len(tree_values(state))
        self.state, self.info = self._outputs  # their structure; the values are of no use

    def _precision(self) -> Any:
        if self._options.precision == "full":
            return contextlib.nullcontext()
        first = next(iter(self._inputs[2].z.values()))
        return torch.autocast(first.device.type, torch.bfloat16, cache_enabled=False)

    def _plain(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The step by running the program, which is what the graph is traced from and checked against."""
        params, data, state, noise = tree_fill(self._inputs, dict(zip(self._paths, tensors, strict=True)))

        def log_density(z: Tensors, *strengths: Any, **by_name: Any) -> torch.Tensor:
            with self._precision():
                terms = self._terms(params, z, data)
                return as_latents(weighed(terms, self._structure, *strengths, **by_name), z)

        self._outputs = self._kernel.move(self._ppl, noise, state, log_density)
        return tuple(contiguous(self._outputs))  # the next step takes them as they are

    def _traced(self) -> Graph:
        examples = [leaf.detach() for leaf in contiguous(self._inputs)]
        try:
            with torch.no_grad():
                graph = operations(self._plain, *examples)
        except PplebmError as error:
            _warn(f"a step could not be traced and runs by the program itself, several times slower: {error}")
            with torch.no_grad():
                self._plain(*examples)  # shows the structure of what it returns
            return self._plain
        if writes(graph):
            self._check(graph.forward)
            return graph.forward
        simplify(graph, differentiable=False)
        transposed.speed_up(graph)
        n_fixed = len(tree_values(self._inputs[:2]))
        self.before, graph = hoist(graph, n_fixed)
        self._check(graph.forward)
        with torch.no_grad():
            inputs = [*self.before(*examples[:n_fixed]), *examples[n_fixed:]]
        if not self._options.compiled:
            return interpreted(graph, inputs)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch's compiler imports deprecated torch
                compiled = compile_graph(graph, inputs)
                self._check(compiled)
        except PplebmError:
            raise
        except Exception as error:  # no C++ compiler, or a defect of the torch compiler: many types
            what = " ".join(str(error).split("\n\n")[0].split())
            _warn(f"a step could not be compiled and runs by its uncompiled graph, about half as fast: {what}")
            return interpreted(graph, inputs)
        return compiled

    def _check(self, graph: Graph) -> None:
        """Compare with a plain run at inputs that differ from those the graph was traced at."""
        params, data, state, noise = self._inputs
        places = {path: leaf for path, leaf in tree_leaves(state) if "z" in path.split("/")}  # also of a state within
        moved = tree_fill(state, dict(tree_leaves(state)) | elsewhere(places, 1.0))
        inputs = (elsewhere(params, 0.01), rolled(data), moved, noise)
        with torch.no_grad():
            expected = self._plain(*tree_values(inputs))
            got = graph(*self.before(*contiguous(inputs[:2])), *contiguous(inputs[2:]))
        n = len(next(iter(state.z.values())))
        off = torch.zeros(n, dtype=torch.bool, device=expected[0].device)
        for a, b in zip(expected, got, strict=True):
            if a.is_floating_point() and len(a.shape) and len(a) == n:
                tolerance = TOLERANCE_BF16 if self._options.precision == "bf16" else TOLERANCE.get(a.dtype, 1e-3)
                a, b = a.nan_to_num().reshape(n, -1), b.nan_to_num().reshape(n, -1)
                off |= ((a - b).abs() > tolerance * (1 + a.abs())).any(1)
        if int(off.sum()) > KINKS * n + (n > 20):
            raise PplebmError(
                f"the graph of a step disagrees with a plain run on {int(off.sum())} of {n} data: the model branches "
                f"on values or keeps state between calls; write it with torch.where."
            )


def as_latents(value: torch.Tensor, z: Tensors) -> torch.Tensor:
    """A log density in the precision of the latents: data may have another, and a chain keeps its own."""
    return value.to(next(iter(z.values())).dtype)


def _unchanged(*fixed: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return fixed


def contiguous(tree: Any) -> list[torch.Tensor]:
    """Leaves of a tree in the one memory layout that steps are made for."""
    return [leaf.contiguous() for leaf in tree_values(tree)]


def compile_graph(graph: torch.fx.GraphModule, inputs: list[Any]) -> Graph:
    """Compile for tensors of just these shapes, dtypes, devices and layouts, which the caller sees to.

    `torch.compile` would look at all inputs again at every call, which costs as much as a small step itself.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns wherever there is no GPU
    import torch._inductor

    with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv(assume_static_by_default=True)))):
        return torch._inductor.compile(graph, inputs, options={"size_asserts": False})


def run_steps(ppl: PPL, step: Step, kernel: Any, state: Any, keys: Any, params: Tensors, data: Data) -> Any:
    """Last state, and infos stacked by step. The loop handles flat lists only, to cost little beside small nets."""
    at, rows = contiguous(state), []
    with torch.no_grad():
        fixed = step.before(*contiguous((params, data)))
        for key in keys:
            out = step.graph(*fixed, *at, *contiguous(kernel.noise(ppl, key, state.z)))
            at = list(out[: step.n_state])
            rows.append(out[step.n_state :])
        columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return filled(step.state, at), filled(step.info, columns) if rows else None


def filled(tree: Any, values: Iterable[torch.Tensor]) -> Any:
    """The tree with other leaves, in order."""
    rest = iter(values)
    return tree_map(lambda _: next(rest), tree)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, PplebmWarning, stacklevel=2)
