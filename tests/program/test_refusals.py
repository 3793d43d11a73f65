"""What a program refuses, in one sentence that names the site and the remedy."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import X, two_layers
from scipy import stats

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning.algorithm import Algorithm


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


def test_wide_numbers_in_a_net_are_named_with_the_remedy():
    """NumPy makes float64, and a net of the user's own begins in float32."""
    net = torch.nn.Linear(2, 1)

    def model(y, dose):
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z + net(dose)[..., 0], 1.0), obs=y)

    data = {"y": torch.zeros(4), "dose": np.zeros((4, 2))}
    with pytest.raises(PplebmError, match=r"float64, as they were given \(dose\); astype\('float32'\)"):
        pplebm.Program(model, data=data)
    assert pplebm.Program(model, data=data | {"dose": np.zeros((4, 2), "float32")}).latents


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
        Algorithm(page, program).init(0, torch.zeros(4))
    assert program.has_global_latents and program.draw_base(0, 3)["z"].shape == (3, 4)


def test_a_program_without_plate_is_joint_and_refused_per_datum():
    program, page = pplebm.Program(no_plate, data=X), pplebm.load("short_run_mle")
    assert program.has_global_latents and program.plate == ""
    with pytest.raises(PplebmError, match=r"'z' stands in no data plate.*pyro.plate"):
        Algorithm(page, program).init(0, X)


def test_forward_simulation_of_a_tilted_program_needs_base():
    program = pplebm.Program(two_layers, data=X)
    with pytest.raises(PplebmError, match=r"'f'.*base=True"):
        program.simulate(0, 5)
    assert program.simulate(0, 5, base=True)["x"].shape == (5, 2)
    untilted = pplebm.Program(lambda x: two_layers(x, lambda a, b: None), data=X)
    assert untilted.simulate(0, 5)["x"].shape == (5, 2)


@pytest.mark.parametrize("seed", range(20))
def test_random_density_is_refused(seed):
    """Whatever masks are drawn: on few rows two of them may agree."""
    torch.manual_seed(seed)
    dropout = torch.nn.Dropout(0.5)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(dropout(z), 1.0).to_event(1), obs=x)

    with pytest.raises(PplebmError, match=r"'x' has a random log density"):
        pplebm.Program(model, data=X)


def test_graph_that_disagrees_with_an_eager_run_is_refused():
    from pplebm.backends.pyro.graphs import compile_graph

    calls = []

    def eager(params, z, x):  # state that changes after tracing is frozen into the graph
        calls.append(1)
        return {"x": z["z"] * (2.0 if len(calls) > 3 else 1.0)}

    with pytest.raises(PplebmError, match=r"'x' disagrees with an eager run.*keeps state"):
        compile_graph(eager, {}, {"z": torch.ones(4)}, X)


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
