"""The loop of a chain: a traced or compiled step gives what the program itself gives, and costs no memory per step."""

from __future__ import annotations

import dataclasses
import gc
import importlib

import pytest
import torch

import pplebm
from pplebm.backends.pyro import precision, steps
from pplebm.backends.visit import At
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.gallery.pages import takes_columns
from pplebm.kernels.langevin import langevin
from pplebm.sampling import chains

MODELS = (*(m for m in pplebm.models_available() if not takes_columns(pplebm.load(m))), "_template")
N = 6


def build(name="joint_ebm", seed=0, **hyper):
    page = importlib.import_module(f"pplebm.models.{name}")
    program = pplebm.Program(pplebm.bind(page, "pyro", shape=(4,), seed=seed, **hyper)).with_coordinates("noncentered")
    return program, torch.randn(N, 4, generator=torch.Generator().manual_seed(3))


def by_the_program(program, kernel, state, keys, params, x):
    """The chain by running the model itself at every step."""

    traced = program._traced

    def log_density(z):
        at = At(z, program.coordinates, observed=x is not None)
        return sum(traced.run(params, traced.rows(len(next(iter(z.values())))) if x is None else x, at).terms.values())

    for key in keys:
        state, info = kernel(program.ppl, key, state, log_density)
    return state, info


def setting(program, **options):
    kernel = langevin([0.3, 0.2, 0.1], **options)
    return kernel, kernel.init(program.ppl, chains.start(program, 5, program.params, N)), program.ppl.split(7, 4)


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_traced_chain_is_the_programs_own(name, with_data, float64):
    program, x = build(name)
    x = x.double() if with_data else None
    kernel, state, keys = setting(program)
    if program.given and with_data:
        with pytest.raises(PplebmError, match="every site of the program is observed"):
            program.chain(kernel, state, keys, program.params, x)
        return
    expected, expected_info = by_the_program(program, kernel, state, keys, program.params, x)
    got, info = program.chain(kernel, state, keys, program.params, x)
    for site, value in expected.z.items():
        torch.testing.assert_close(got.z[site], value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(info.log_density[-1], expected_info.log_density, rtol=1e-11, atol=1e-11)
    assert int(got.step) == len(keys) == len(info.is_divergent)


@pytest.mark.slow
@pytest.mark.parametrize("with_data", [True, False])
def test_a_compiled_chain_is_the_programs_own(with_data, float64):
    """At other weights and data than it was compiled for, and after weights changed in place."""
    program, x = build(latent_dims=(3, 2, 2), width=8, tilt_width=8)
    program = program.with_chains(compiled=True)
    x = x.double() if with_data else None
    kernel, state, keys = setting(program)
    program.chain(kernel, state, keys, program.params, x)
    params = {n: p + 0.1 for n, p in program.params.items()}
    for p in params.values():
        p.mul_(1.1)
    x = None if x is None else x + 1.0
    got, _ = program.chain(kernel, state, keys, params, x)
    expected, _ = by_the_program(program, kernel, state, keys, params, x)
    for site, value in expected.z.items():
        torch.testing.assert_close(got.z[site], value, rtol=1e-9, atol=1e-9)


def test_without_a_compiler_the_graph_is_used_and_said(monkeypatch):
    program, x = build()
    kernel, state, keys = setting(program)
    expected, _ = program.chain(kernel, state, keys, program.params, x)

    def no_compiler(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(steps, "compile_graph", no_compiler)
    other, _ = build()
    with pytest.warns(PplebmWarning, match="No working C"):
        got, _ = other.with_chains(compiled=True).chain(kernel, state, keys, other.params, x)
    for site in expected.z:
        assert torch.equal(got.z[site], expected.z[site])


def test_a_miscompiled_step_is_refused(monkeypatch):
    monkeypatch.setattr(steps, "compile_graph", lambda graph, _: lambda *a: tuple(1.01 * v for v in graph(*a)))
    program, x = build()
    kernel, state, keys = setting(program)
    with pytest.raises(PplebmError, match="disagrees with a plain run"):
        program.with_chains(compiled=True).chain(kernel, state, keys, program.params, x)


def test_one_graph_per_kernel_and_shape():
    program, x = build()
    kernel, state, keys = setting(program)
    steps = program._traced._steps
    for _ in range(2):
        same = langevin([0.3, 0.2, 0.1])
        program.chain(same, state, keys, program.params, x)
        program.chain(same, state, keys, {n: 2 * p for n, p in program.params.items()}, x + 1)
    assert len(steps) == 1
    program.chain(langevin(0.3), state, keys, program.params, x)
    shorter = {site: v[:3] for site, v in state.z.items()}
    program.chain(kernel, kernel.init(program.ppl, shorter), keys, program.params, x[:3])
    assert len(steps) == 3


def test_memory_is_flat_in_the_number_of_steps():
    """What is kept of a step are its infos, of shape (B,), and no graph of the gradient."""
    program, x = build()
    kernel, state, _ = setting(program)
    alive = []

    def counting(ppl, key, z):
        gc.collect()
        alive.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
        return ppl.normal_like(key, z)

    kernel = dataclasses.replace(kernel, noise=counting)
    got, infos = program.chain(kernel, state, program.ppl.split(1, 12), program.params, x)
    assert all(v.grad_fn is None and not v.requires_grad for v in (*got.z.values(), *infos))
    assert alive[-1] - alive[4] == (len(alive) - 5) * len(infos)


def test_bfloat16_steps_differ_a_little_and_stay_full_precision_outside(monkeypatch):
    monkeypatch.setattr("pplebm.backends.pyro.precision.has_units", lambda: True)  # slow, and right all the same
    program, x = build(width=64)
    kernel, state, keys = setting(program, temperature=0.0)
    full, info = program.chain(kernel, state, keys, program.params, x)
    half, half_info = program.with_chains(precision="bf16").chain(kernel, state, keys, program.params, x)
    for site in full.z:
        assert half.z[site].dtype == torch.float32
        moved = (full.z[site] - state.z[site]).norm()
        assert 0 < (half.z[site] - full.z[site]).norm() < 0.05 * moved
    assert not torch.equal(info.log_density, half_info.log_density)


def test_bfloat16_is_refused_by_a_cpu_without_units_for_it(monkeypatch, tmp_path):
    monkeypatch.setattr("pplebm.backends.pyro.precision.has_units", lambda: False)
    program, x = build()
    kernel, state, keys = setting(program)
    with pytest.raises(PplebmError, match=r"this CPU .* has none: steps would be about ten times slower"):
        program.with_chains(precision="bf16")
    with pytest.raises(PplebmError, match="bfloat16 units"):  # chosen elsewhere, and run here
        half = program.options._replace(precision="bf16")
        program._changed(options=half).chain(kernel, state, keys, program.params, x)
    with pytest.raises(PplebmError, match="bfloat16 units"):
        pplebm.fit("latent_ebm", out=tmp_path / "run", updates=1, precision="bf16", progress=False)
    assert not (tmp_path / "run").exists()


def test_what_units_a_cpu_has(monkeypatch):
    for found, expected in (({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda found=found: found, raising=False)
        assert precision.has_units() is expected


def test_bad_choices_are_refused():
    program, _ = build()
    with pytest.raises(PplebmError, match="precision 'half' is not known"):
        program.with_chains(precision="half")


def test_bfloat16_is_for_pyro():
    pytest.importorskip("numpyro")
    program = pplebm.Program(pplebm.bind("latent_ebm", "numpyro", shape=(4,)))
    with pytest.raises(PplebmError, match="for the backend 'pyro'"):
        program.with_chains(precision="bf16")


def test_a_compiled_step_takes_any_memory_layout(float64):
    """The compiler is told nothing about layouts, so a step must never see another than the one it is made for."""
    program, x = build()
    program = program.with_chains(compiled=True)
    kernel, state, keys = setting(program)
    expected, _ = program.chain(kernel, state, keys, program.params, x)

    def strange(t):
        return t.T.contiguous().T if t.dim() == 2 else t

    params = {n: strange(p) for n, p in program.params.items()}
    other = state._replace(z={n: strange(v) for n, v in state.z.items()})
    got, _ = program.chain(kernel, other, keys, params, strange(x))
    assert len(program._traced._steps) == 1
    for site, value in expected.z.items():
        torch.testing.assert_close(got.z[site], value, rtol=1e-12, atol=1e-12)
