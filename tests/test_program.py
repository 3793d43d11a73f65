"""What a program is found to be, what it refuses, and that its densities are the host's own."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from scipy import stats

import pplebm
from pplebm.errors import PplebmError, PplebmWarning

X = torch.linspace(-1, 1, 12).reshape(6, 2)


def two_layers(x, tilt=lambda z1, z2: pplebm.tilt("f", (z1 * z2).sum(-1))):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(0.5 * z2, 0.5 + z2.abs()).to_event(1))
        tilt(z1, z2)
        pyro.sample("x", dist.Normal(z1, 0.3).to_event(1), obs=x)


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


@pytest.mark.parametrize("coordinates", ["centred", "noise"])
def test_coordinates_and_values_invert_each_other(coordinates, float64):
    program = pplebm.Program(two_layers, data=X.double(), coordinates=coordinates)
    z = program.draw_base(3, 6)
    back = program.coordinates_of({}, program.values({}, z))
    for name in z:
        torch.testing.assert_close(back[name], z[name])
    other = "noise" if coordinates == "centred" else "centred"
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

    program = pplebm.Program(model, data=X.double(), coordinates="noise")
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

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            with pyro.poutine.mask(mask=mask[: len(x)]):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    program = pplebm.Program(model, data=X.double())
    z = {"z": torch.ones(6, 2)}
    got = program.log_likelihood({}, z, X.double())
    assert (got[~mask] == 0).all() and (got[mask] != 0).all()


def no_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def discrete(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, 0])


def outside(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])
    pplebm.tilt("f", z.sum())


def factor(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("g", z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def whole_data_plate(x):
    with pyro.plate("data", 1000, subsample_size=len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def fixed_plate(x):
    with pyro.plate("data", 5):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.sum(), 1.0).expand([5]))


def breaks(x):
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


REFUSED = {
    "no data plate": (no_plate, "no data plate"),
    "discrete": (discrete, "'k'.*discrete"),
    "tilt outside": (outside, "tilt 'f'.*outside the data plate 'data'"),
    "factor": (factor, "'g' is a pyro.factor"),
    "subsampling": (whole_data_plate, "'data'.*subsampling"),
    "tilt (B, 1)": (lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", a[:, :1])), r"'f'.*\(5, 1\).*squeeze"),
    "tilt scalar": (lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", a.sum())), r"'f'.*\(\).*\(5,\)"),
    "tilt (1,)": (lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", a.sum().view(1))), r"'f'.*\(1,\).*\(5,\)"),
    "tilt number": (lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", 1.0)), "'f'.*float"),
    "tilt not finite": (lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", a.sum(-1).log())), "'f' is not finite"),
    "plate of fixed size": (fixed_plate, "'data' has size 5 on a batch of 3"),
    "error inside": (breaks, r"failed on a batch of shape \(5, 2\).*mat1"),
    "no latent": (lambda x: None, "no data plate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence_that_names_the_site(case):
    model, words = REFUSED[case]
    with pytest.raises(PplebmError, match=words) as caught:
        pplebm.Program(model, data=X)
    assert "\n" not in str(caught.value)


def test_global_latents_are_named_and_refused_per_datum():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = pplebm.Program(model, data=torch.zeros(4))
    assert [s.name for s in program.latents if not s.is_local] == ["mean"]
    page = pplebm.load("short_run_mle")
    with pytest.raises(PplebmError, match=r"'mean'.*global latent, which short_run_mle"):
        page.init(program.ppl, 0, program, torch.zeros(4), page.Hyper())
    with pytest.raises(PplebmError, match="'mean'"):
        program.draw_base(0, 3)


def test_forward_simulation_of_a_tilted_program_needs_base():
    program = pplebm.Program(two_layers, data=X)
    with pytest.raises(PplebmError, match=r"'f'.*base=True"):
        program.simulate(0, 5)
    assert program.simulate(0, 5, base=True)["x"].shape == (5, 2)
    untilted = pplebm.Program(lambda x: two_layers(x, lambda a, b: None), data=X)
    assert untilted.simulate(0, 5)["x"].shape == (5, 2)


def test_random_density_is_refused():
    dropout = torch.nn.Dropout(0.5)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(dropout(z), 1.0).to_event(1), obs=x)

    program = pplebm.Program(model, data=X)
    with pytest.raises(PplebmError, match=r"'x' has a random log density"):
        program.log_joint({}, program.draw_base(0, 6), X)


def test_graph_that_disagrees_with_an_eager_run_is_refused():
    from pplebm.backends.pyro.compiled import compile_graph

    calls = []

    def eager(params, z, x):  # state that changes after tracing is frozen into the graph
        calls.append(1)
        return {"x": z["z"] * (2.0 if len(calls) > 3 else 1.0)}

    with pytest.raises(PplebmError, match=r"'x' disagrees with an eager run.*keeps state"):
        compile_graph(eager, {}, {"z": torch.ones(4)}, X)


@pytest.mark.parametrize("coordinates", ["centred", "noise"])
def test_simplified_graph_has_the_values_and_gradients_of_an_eager_run(coordinates, float64):
    model = pplebm.bind("joint_ebm", shape=(3, 2), latent_dims=(4, 3, 2))
    program = pplebm.Program(model, coordinates=coordinates)
    ppl, params, traced = program.ppl, program.params, program._traced
    x = torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(0))
    z = program.draw_base(1, 7)

    def eager(tree):
        return sum(traced.run(tree["params"], tree["z"], x, coordinates).terms.values())

    def graph(tree):
        return program.log_joint(tree["params"], tree["z"], x)

    at = {"params": params, "z": z}
    (value, gradient), (expected, exact) = ppl.value_and_grad(graph, at), ppl.value_and_grad(eager, at)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    for name in params:
        torch.testing.assert_close(gradient["params"][name], exact["params"][name], rtol=1e-11, atol=1e-12)
    for name in z:
        torch.testing.assert_close(gradient["z"][name], exact["z"][name], rtol=1e-11, atol=1e-12)


def test_branching_on_values_runs_eagerly_and_says_so():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            scale = 1.0 if bool(z.sum() > 0) else 2.0
            pyro.sample("x", dist.Normal(z, scale), obs=x[:, 0])

    program = pplebm.Program(model, data=X)
    with pytest.warns(PplebmWarning, match="runs eagerly"):
        program.log_joint({}, {"z": torch.ones(6)}, X)
    low = program.log_likelihood({}, {"z": -torch.ones(6)}, X)
    expected = stats.norm.logpdf(X[:, 0].numpy(), -1, 2)
    np.testing.assert_allclose(low.numpy(), expected, rtol=1e-5)


def test_latents_of_the_wrong_shape_are_named():
    program = pplebm.Program(two_layers, data=X)
    with pytest.raises(PplebmError, match=r"'z1' has shape \(6, 3\); expected \(6, 2\)"):
        program.log_prior({}, {"z2": torch.zeros(6, 2), "z1": torch.zeros(6, 3)})
    with pytest.raises(PplebmError, match="lack site 'z1'"):
        program.log_prior({}, {"z2": torch.zeros(6, 2)})


def test_a_program_without_data_says_what_to_do():
    program = pplebm.Program(two_layers)
    with pytest.raises(PplebmError, match=r"data=x"):
        _ = program.params
    assert program.log_joint({}, {"z2": torch.zeros(6, 2), "z1": torch.zeros(6, 2)}, X).shape == (6,)


def test_write_back_reaches_the_users_own_modules():
    module = Module()
    program = pplebm.Program(module, data=X)
    program.write_back({n: p + 1.0 for n, p in program.params.items()})
    assert (module.shift == 1.0).all()


def test_bounded_tilt_stays_within_its_bound(float64):
    program = pplebm.Program(lambda x: two_layers(x, lambda a, b: pplebm.tilt("f", a.sum(-1), bound=2.0)), data=X)
    z = {"z2": torch.zeros(6, 2), "z1": torch.linspace(-50, 50, 12).reshape(6, 2)}
    expected = 2.0 * torch.tanh(z["z1"].sum(-1) / 2.0)
    torch.testing.assert_close(program.log_tilt({}, z), expected)
