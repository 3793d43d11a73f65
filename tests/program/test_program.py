"""What a program is found to be, what it refuses, and that its densities are the host's own."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import X, two_layers
from pyro.nn import PyroModule, PyroParam
from scipy import stats

import pplebm
from pplebm.backends.visit import At
from pplebm.errors import PplebmError


def test_sites_plate_supports_and_tilts_are_found():
    program = pplebm.Program(two_layers, data=X)
    assert [s.name for s in program.latents] == ["z2", "z1"]
    assert [s.name for s in program.observed] == ["x"]
    assert [s.name for s in program.tilts] == ["f"]
    assert program.latents[0].shape == (2,) and program.latents[0].support == "real"


def test_densities_are_the_hosts(float64):
    x = X.double()
    program = pplebm.Program(two_layers, data=x)
    z = program.draw_base(0, 6)
    trace = pyro.poutine.trace(pyro.poutine.condition(two_layers, z)).get_trace(x)
    expected = trace.log_prob_sum() + 0.0
    assert program.log_joint({}, z, x).sum().item() == pytest.approx(expected.item(), abs=1e-10)
    parts = program.log_base({}, z) + program.log_tilt({}, z) + program.log_likelihood({}, z, x)
    torch.testing.assert_close(parts, program.log_joint({}, z, x))
    torch.testing.assert_close(program.log_prior({}, z), program.log_base({}, z) + program.log_tilt({}, z))


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_coordinates_and_values_invert_each_other(coordinates, float64):
    program = pplebm.Program(two_layers, data=X.double(), coordinates=coordinates)
    z = program.draw_base(3, 6)
    back = program.unconstrain({}, program.constrain({}, z))
    for name in z:
        torch.testing.assert_close(back[name], z[name])
    other = "noncentered" if coordinates == "centered" else "centered"
    there = program.move({}, z, other)
    again = program.with_coordinates(other).move({}, there, coordinates)
    torch.testing.assert_close(again["z1"], z["z1"])


def test_constrained_supports_carry_log_jacobian(float64):
    """exp and stick-breaking coordinates: the density in u integrates to one."""

    def model(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(0.3, 0.7))
            p = pyro.sample("p", dist.Beta(2.0, 3.0))
            pyro.sample("x", dist.Normal(s * p, 1.0), obs=x)

    grid = torch.linspace(-14, 14, 4001)
    program = pplebm.Program(model, data=torch.zeros(3))
    assert {s.name: s.support for s in program.latents}["s"] == "positive"
    for name in ("s", "p"):
        z = {k: grid if k == name else torch.zeros_like(grid) for k in ("s", "p")}
        density = program.log_terms({}, z)[name].exp().numpy()
        assert np.trapezoid(density, grid.numpy()) == pytest.approx(1.0, abs=1e-6)
    u = program.log_terms({}, {"s": grid, "p": grid})["s"].numpy()
    np.testing.assert_allclose(u, stats.norm.logpdf(grid.numpy(), 0.3, 0.7), atol=1e-9)


def test_multivariate_normal_in_noise_coordinates_is_standard(float64):
    tril = torch.tensor([[1.0, 0.0], [0.7, 0.4]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MultivariateNormal(torch.ones(2), scale_tril=tril))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    program = pplebm.Program(model, data=X.double(), coordinates="noncentered")
    u = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    expected = stats.norm.logpdf(u.numpy()).sum(1)
    np.testing.assert_allclose(program.log_prior({}, {"z": u}).numpy(), expected, atol=1e-10)


def test_other_plates_are_summed_and_the_data_plate_kept(float64):
    def model(x):
        data = pyro.plate("data", len(x), dim=-1)
        with pyro.plate("parts", 3, dim=-2), data:
            z = pyro.sample("z", dist.Normal(0.0, 2.0))
        with data:
            pplebm.tilt("f", z.sum(0))
            pyro.sample("x", dist.Normal(z.sum(0), 1.0), obs=x)

    x = torch.arange(5.0)
    program = pplebm.Program(model, data=x)
    assert program.latents[0].shape == (3,)
    z = {"z": torch.randn(5, 3, generator=torch.Generator().manual_seed(1))}
    expected = stats.norm.logpdf(z["z"].numpy(), 0, 2).sum(1) + z["z"].sum(1).numpy()
    np.testing.assert_allclose(program.log_prior({}, z).numpy(), expected)
    with pytest.raises(PplebmError, match="no data plate"):
        pplebm.Program(model, data=x, plate="rows")


def test_as_many_parts_as_data_are_not_mixed_up(float64):
    """A transposition keeps the shape here, and is no idle reshaping all the same."""
    scale = torch.tensor([1.0, 2.0, 3.0])[:, None]

    def model(x):
        data = pyro.plate("data", len(x), dim=-1)
        with pyro.plate("parts", 3, dim=-2), data:
            z = pyro.sample("z", dist.Normal(0.0, scale))
        with data:
            pyro.sample("x", dist.Normal(z.sum(0), 1.0), obs=x)

    program = pplebm.Program(model, data=torch.arange(3.0))
    z = {"z": torch.randn(3, 3, generator=torch.Generator().manual_seed(1))}
    expected = stats.norm.logpdf(z["z"].numpy(), 0, [1, 2, 3]).sum(1)
    np.testing.assert_allclose(program.log_prior({}, z).numpy(), expected)


class Module(PyroModule):
    """Parameters in every way Pyro offers: submodule, PyroParam, nn.Parameter, pyro.param."""

    def __init__(self):
        super().__init__()
        self.decoder = torch.nn.Linear(2, 2)
        self.scale = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)
        self.shift = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        slope = pyro.param("slope", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.shift, slope).to_event(1))
            pplebm.tilt("f", -z.pow(2).sum(-1))
            pyro.sample("x", dist.Normal(self.decoder(z), self.scale).to_event(1), obs=x)


def test_every_kind_of_parameter_is_found_and_substituted(float64):
    program = pplebm.Program(Module(), data=X.double())
    assert set(program.params) == {"decoder.weight", "decoder.bias", "scale", "shift", "slope"}
    assert program.prior_params == {"shift", "slope"} and not program.tilt_params
    z, x = program.draw_base(0, 6), X.double()
    before = program.log_joint(program.params, z, x)
    for name in program.params:
        changed = program.params | {name: program.params[name] + 0.1}
        assert not torch.allclose(program.log_joint(changed, z, x), before), name
    torch.testing.assert_close(program.log_joint(program.params, z, x), before)
    assert program.params["slope"].item() == pytest.approx(np.log(2.0))  # unconstrained


def test_two_programs_with_equal_parameter_names_do_not_meet():
    def make(value):
        def model(x):
            a = pyro.param("a", torch.tensor(value))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(a, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        return pplebm.Program(model, data=torch.zeros(3))

    first, second = make(1.0), make(2.0)
    assert first.params["a"] == 1.0 and second.params["a"] == 2.0
    assert "a" not in pyro.get_param_store()


def test_masked_data_do_not_count(float64):
    mask = torch.tensor([True, False, True, True, False, True])

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    program = pplebm.Program(model, data={"x": X.double(), "seen": mask})
    z = {"z": torch.ones(6, 2)}
    got = program.log_likelihood({}, z, {"x": X.double(), "seen": mask})
    assert (got[~mask] == 0).all() and (got[mask] != 0).all()


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_simplified_graph_has_the_values_and_gradients_of_an_eager_run(coordinates, float64):
    model = pplebm.bind("joint_ebm", shape=(3, 2), latent_dims=(4, 3, 2))
    program = pplebm.Program(model, coordinates=coordinates)
    ppl, params, traced = program.ppl, program.params, program._traced
    x = torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(0))
    z = program.draw_base(1, 7)

    def eager(tree):
        return sum(traced.run(tree["params"], x, At(tree["z"], coordinates)).terms.values())

    def graph(tree):
        return program.log_joint(tree["params"], tree["z"], x)

    at = {"params": params, "z": z}
    (value, gradient), (expected, exact) = ppl.value_and_grad(graph, at), ppl.value_and_grad(eager, at)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    for name in params:
        torch.testing.assert_close(gradient["params"][name], exact["params"][name], rtol=1e-11, atol=1e-12)
    for name in z:
        torch.testing.assert_close(gradient["z"][name], exact["z"][name], rtol=1e-11, atol=1e-12)


def test_write_back_reaches_the_users_own_modules():
    module = Module()
    program = pplebm.Program(module, data=X)
    program.write_back({n: p + 1.0 for n, p in program.params.items()})
    assert (module.shift == 1.0).all()


def test_bounded_tilt_stays_within_its_bound(float64):
    program = pplebm.Program(lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", a.sum(-1), bound=2.0)), data=X)
    z = {"z2": torch.zeros(6, 2), "z1": torch.linspace(-3, 3, 12).reshape(6, 2) ** 3}
    expected = 2.0 * torch.tanh(z["z1"].sum(-1) / 2.0)
    torch.testing.assert_close(program.log_tilt({}, z), expected)
