"""Transposed convolutions in faster forms, and work hoisted out of a chain: the same values as the library's own."""

from __future__ import annotations

import importlib
from itertools import product

import jax
import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

import pplebm
from pplebm.backends.numpyro import transposed
from pplebm.backends.pyro import transposed as convolutions
from pplebm.backends.pyro.passes import hoist
from pplebm.backends.visit import At
from pplebm.kernels.langevin import langevin
from pplebm.sampling import chains

CASES = [
    (size, kernel, stride, padding)
    for size, kernel, stride, padding in product(
        [(1, 1), (2, 3), (4, 4), (5, 1)], [(2, 2), (3, 3), (4, 4), (5, 5), (3, 4)], [1, 2, 3], [0, 1, 2]
    )
    if stride <= min(kernel) > padding <= min(size)
    and all((n - 1) * stride - 2 * padding + k >= stride for n, k in zip(size, kernel, strict=True))
]

SOME = CASES[:: len(CASES) // 7]  # JAX compiles each of these


@pytest.fixture(autouse=True)
def double(float64):
    with jax.enable_x64(True):
        yield


def arrays(size, kernel):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 3, *size)), rng.normal(size=(3, 2, *kernel)), rng.normal(size=2)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), CASES)
def test_every_form_is_the_librarys(size, kernel, stride, padding):
    a, weight, bias = arrays(size, kernel)
    tensors = [torch.tensor(v) for v in (a, weight, bias)]
    expected = functional.conv_transpose2d(*tensors, stride, padding).numpy()
    strides, paddings = (stride, stride), (padding, padding)
    kernels = [convolutions.phase(tensors[1], at, strides, paddings) for at in product(range(stride), repeat=2)]
    matrix = [convolutions.columns(tensors[1])]
    for form, weights in ((convolutions.by_phases, kernels), (convolutions.by_columns, matrix)):
        got = form(tensors[0], weights, tensors[2], kernel, strides, paddings)
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SOME)
def test_columns_in_jax_and_their_gradient(size, kernel, stride, padding):
    a, weight, _ = arrays(size, kernel)
    expected = functional.conv_transpose2d(torch.tensor(a), torch.tensor(weight), None, stride, padding).numpy()
    out, derived = jax.vjp(lambda a: transposed.spread(a, weight, stride, padding), a.transpose(0, 2, 3, 1))
    got = jax.jit(lambda a: transposed.by_columns(a, weight, stride, padding))(a.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected, atol=1e-12)
    gradient = np.random.default_rng(1).normal(size=out.shape)
    got = jax.jit(lambda g: transposed.back_by_columns(g, weight, stride, padding))(gradient)
    np.testing.assert_allclose(got, derived(gradient)[0], atol=1e-12)


def traced(kernel, channels, stride=2, padding=1):
    """Value and image gradient of a small net as a graph, and its inputs."""
    rng = np.random.default_rng(2)
    a, weight = (
        torch.tensor(rng.normal(size=(2, 3, 4, 4))),
        torch.tensor(rng.normal(size=(3, channels, kernel, kernel))),
    )

    def both(weight, a):
        a = a.detach().requires_grad_()
        with torch.enable_grad():
            out = functional.conv_transpose2d(a, weight, None, stride, padding).tanh()
            return out.detach(), torch.autograd.grad(out.square().sum(), a)[0]

    return make_fx(both)(weight, a), (weight, a)


@pytest.mark.parametrize(
    ("kernel", "channels", "form"), [(3, 8, "by_phases"), (4, 1, "by_columns"), (4, 8, None), (1, 8, None)]
)
def test_a_graph_gets_the_form_that_suits(kernel, channels, form):
    graph, inputs = traced(kernel, channels)
    expected = graph(*inputs)
    convolutions.speed_up(graph)
    used = {node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"}
    assert used & {"by_phases", "by_columns"} == ({form} if form else set())
    for a, b in zip(graph(*inputs), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_what_depends_on_weights_only_is_done_before_the_chain():
    graph, inputs = traced(3, 8)
    expected = graph(*inputs)
    convolutions.speed_up(graph)
    before, rest = hoist(graph, n_fixed=1)
    names = [[getattr(n.target, "__name__", "") for n in part.graph.nodes] for part in (before, rest)]
    assert names[0].count("phase") == 4 and "phase" not in names[1]
    assert "laid_out" in names[0] and "laid_out" not in names[1]
    for moved in (inputs[1], inputs[1] + 1.0):
        got = rest(*before(inputs[0]), moved)
        for a, b in zip(got, graph(inputs[0], moved), strict=True):
            torch.testing.assert_close(a, b, atol=0, rtol=0)
    torch.testing.assert_close(rest(*before(inputs[0]), inputs[1])[0], expected[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_chain_through_a_convolutional_decoder_is_the_programs_own(compiled):
    page = importlib.import_module("pplebm.models.joint_ebm")
    bound = pplebm.bind(page, "pyro", shape=(28, 28), decoder="conv", channels=4, width=8)
    program = pplebm.Program(bound).with_chains(compiled=compiled)
    x = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    kernel = langevin([0.05, 0.05])
    state, keys = kernel.init(program.ppl, chains.start(program, 5, program.params, 3)), program.ppl.split(7, 3)
    got, _ = program.chain(kernel, state, keys, program.params, x)

    def log_density(z):
        return sum(program._traced.run(program.params, x, At(z, program.coordinates)).terms.values())

    for key in keys:
        state, _ = kernel(program.ppl, key, state, log_density)
    for name, value in state.z.items():
        torch.testing.assert_close(got.z[name], value, atol=1e-10, rtol=0)
