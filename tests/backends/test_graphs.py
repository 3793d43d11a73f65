"""Graphs of torch operations: interpreted without Python, equal parts done once, compiled ones found again."""

from __future__ import annotations

import math

import pytest
import torch

from pplebm.backends.pyro import steps
from pplebm.backends.pyro.graphs import operations
from pplebm.backends.pyro.interpreted import interpreted
from pplebm.backends.pyro.passes import share, simplify
from pplebm.errors import PplebmWarning


def update(w, a):
    """A gradient step of a small network, in which the network runs twice."""
    w = w.detach().requires_grad_()
    net = lambda: torch.tanh(a @ w.T)
    loss = (net().exp().sum(1).log() + torch.softmax(net(), 1)[:, 0]).mean()
    (gradient,) = torch.autograd.grad(loss, [w])
    return w.detach() - 0.1 * gradient, loss.detach(), (gradient > 0).sum()


def example(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((3, 5), (7, 5))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_interpreted_graph_is_the_graph_bit_for_bit_from_its_first_run_on(dtype):
    graph = operations(update, *example(dtype))
    simplify(graph, differentiable=False)
    run = interpreted(graph, example(dtype))
    for n in range(6):
        inputs = example(dtype, seed=n % 3)
        expected, got = graph.forward(*inputs), run(*inputs)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(expected, got, strict=True))
        assert not any(a.requires_grad for a in got)
    torch.testing.assert_close(got[0], update(*inputs)[0])


def test_convolutions_are_interpreted_as_well(recwarn):
    def gradients(image, weight):
        image, weight = (a.detach().requires_grad_() for a in (image, weight))
        out = torch.nn.functional.conv2d(image, weight, stride=2, padding=1)
        return torch.autograd.grad(out.pow(2).sum(), [image, weight])

    shapes = ((1, 2, 6, 6), (3, 2, 3, 3))
    inputs = [torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape) for shape in shapes]
    graph = operations(gradients, *inputs)
    run = interpreted(graph, inputs)
    assert not recwarn.list, recwarn.list[0].message
    assert all(torch.equal(a, b) for a, b in zip(graph.forward(*inputs), run(*inputs), strict=True))


def test_a_graph_that_torch_cannot_take_over_runs_as_it_is(monkeypatch):
    def refuses(*args, **kwargs):
        raise RuntimeError("unknown operation")

    graph = operations(update, *example(torch.float32))
    monkeypatch.setattr(torch.jit, "trace", refuses)
    with pytest.warns(PplebmWarning, match="about half as fast: unknown operation"):
        run = interpreted(graph, example(torch.float32))
    assert torch.equal(run(*example(torch.float32))[0], graph.forward(*example(torch.float32))[0])


def names(graph):
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def test_equal_parts_are_done_once_and_nothing_else_changes():
    graph = operations(update, *example(torch.float64))
    simplify(graph, differentiable=False)
    before = graph.forward(*example(torch.float64))
    assert names(graph).count("aten.tanh.default") == 2
    share(graph)
    assert names(graph).count("aten.tanh.default") == 1
    assert all(torch.equal(a, b) for a, b in zip(before, graph.forward(*example(torch.float64)), strict=True))


def test_numbers_of_other_types_and_random_draws_are_no_equal_parts():
    def function(a):
        exact, other = a.sum(dtype=torch.float64), a.sum(dtype=torch.float32)
        return (
            torch.full((2,), 1),
            torch.full((2,), 1.0),
            torch.full((2,), True),
            torch.rand_like(a),
            torch.rand_like(a),
            exact,
            other,
        )

    graph = operations(function, torch.ones(3))
    share(graph)
    one, real, true, first, second, exact, other = graph.forward(torch.ones(3))
    assert (one.dtype, real.dtype, true.dtype) == (torch.int64, torch.float32, torch.bool)
    assert not torch.equal(first, second) and exact.dtype != other.dtype


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports deprecated torch
def test_a_compiled_step_can_be_kept_for_other_processes():
    from torch._dynamo.utils import counters

    graph = operations(lambda a: (a.exp().sum(1),), torch.ones(2, 3))
    counters.clear()
    compiled = steps.compile_graph(graph, [torch.ones(2, 3)])
    torch.testing.assert_close(compiled(torch.zeros(2, 3))[0], torch.full((2,), 3.0))
    seen = counters["inductor"]
    assert seen["fxgraph_cache_hit"] + seen["fxgraph_cache_miss"] == 1 and not seen["fxgraph_cache_bypass"]
