"""Likelihood ratios: chi-square where it holds, refusals where it does not, and the bootstrap that holds anyway."""

from __future__ import annotations

import json

import numpy as np
import pytest
from beds import bed
from conjugate import BACKENDS, one_layer
from scipy import stats

import pplebm
from pplebm.errors import PplebmError
from pplebm.estimation.bootstrap import simulated
from pplebm.estimation.ratio import determined
from pplebm.evidence.estimate import Evidence
from pplebm.ppl.language import load_backend


def gaussian(x, mean):
    """Exact evidence of x ~ N(mean, 2): one latent N(0, 1) tilted by mean z, seen through unit noise."""
    return Evidence.of("exact", stats.norm.logpdf(np.asarray(x, float), mean, 2.0**0.5), np.zeros(len(x)))


def test_ratios_are_chi_square_under_the_smaller_model():
    """A tilt t z against none: T = n mean² / 2, so that p is uniform."""
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        x = rng.normal(0.0, 2.0**0.5, size=30)
        ratio = pplebm.likelihood_ratio(gaussian(x, x.mean()), gaussian(x, 0.0), df=1)
        assert ratio.statistic == pytest.approx(30 * x.mean() ** 2 / 2) and ratio.error == 0.0
        found.append(ratio.p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_monte_carlo_errors_become_a_range_of_p():
    larger = Evidence.of("ais", [-1.0, -2.0], [0.3, 0.4], common_error=0.1)
    smaller = Evidence.of("no tilt", [-2.0, -3.5], [0.2, 0.0])
    found = pplebm.likelihood_ratio(larger, smaller, df=2)
    own = (0.3**2 - 0.1**2 + 0.4**2 - 0.1**2) + (2 * 0.1) ** 2 + 0.2**2
    assert found.statistic == pytest.approx(5.0) and found.error == pytest.approx(2.0 * own**0.5)
    ends = stats.chi2.sf([5.0, 5.0 + 1.96 * found.error, 5.0 - 1.96 * found.error], 2)
    np.testing.assert_allclose([found.p_value, found.p_low, found.p_high], ends)
    assert "2 free numbers" in str(found) and "bootstrap_ratio" in str(found)


def test_ratios_that_are_none_are_refused():
    one = Evidence.of("ais", [-1.0, -2.0], [0.01, 0.01])
    for larger, smaller, df, words in (
        (one, one, 0, "df must be an integer"),
        (one, one.take(slice(0, 1)), 1, "on the same data; got evidence of 2 and 1"),
        (Evidence.of("ais", [-3.0, -2.0], [0.01, 0.01]), one, 1, "its learning has not arrived"),
        (one.doubted(["lost", ""]), one, 1, "under the larger model cannot be trusted at 1 of 2 data, datum 0"),
    ):
        with pytest.raises(PplebmError, match=words):
            pplebm.likelihood_ratio(larger, smaller, df=df)


@pytest.mark.parametrize("backend", BACKENDS)
def test_heights_are_determined_where_there_is_no_tilt_and_places_are_not(backend):
    host = load_backend(backend)

    def program(tilt):
        def model(x):
            with host.plate("data", len(x)):
                z = host.sample("z", host.dist.Normal(0.0, 1.0))
                host.tilt("f", tilt(z, lambda name, value: host.param(name, np.float32(value))))
                host.sample("x", host.dist.Normal(z, 1.0), obs=x)

        return pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)

    heights = program(lambda z, of: of("a", 0.0) * z + of("b", 0.0) * z**2)
    determined(heights, heights.params)
    assert "was looked at" in str(
        pplebm.likelihood_ratio(gaussian([1.0, 1.5], 1.2), gaussian([1.0, 1.5], 0.0), df=2, program=heights,
                                null=heights.params)
    )  # fmt: skip
    for tilt, words in (
        (lambda z, of: of("a", 0.0) * host.exp(-((z - of("place", 1.0)) ** 2)), "determine 'place' of the tilt"),
        (lambda z, of: of("a", 0.0) * z + of("constant", 0.0), "determine 'constant' of the tilt"),
        (lambda z, of: of("a", 0.0) * z + of("b", 0.0) * (z + 1.0), "determine '[ab]', '[ab]' of the tilt"),
        (lambda z, of: of("a", 0.5) * z, "varies by .* nats at null="),
    ):
        of = program(tilt)
        with pytest.raises(PplebmError, match=words):
            determined(of, of.params)


def test_a_network_is_refused_and_the_bootstrap_named():
    """A network whose last layer is zero: its other weights change nothing."""
    import pyro
    import pyro.distributions as dist
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1, bias=False))
    torch.nn.init.zeros_(network[2].weight)

    def model(x):
        net = pyro.module("net", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pplebm.tilt("f", net(z.unsqueeze(-1)).squeeze(-1))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = pplebm.Program(model, data=torch.zeros(3))
    with pytest.raises(PplebmError, match=r"'net\.0\.weight.*a network's weights.*pplebm\.bootstrap_ratio"):
        pplebm.likelihood_ratio(gaussian([1.0], 1.0), gaussian([1.0], 0.0), df=9, program=program, null=program.params)


def test_a_tilt_that_reads_covariates_is_looked_at_in_every_row():
    """A height times a covariate is determined; where the covariate is zero in every row it is not."""
    case = bed("covariate")
    program = case.program("pyro")
    null = {**program.params, "height": program.ppl.asarray(np.array(0.0))}
    determined(program, null)
    zero = pplebm.Program(program._model, data={**case.data, "c": 0.0 * case.data["c"]})
    with pytest.raises(PplebmError, match="determine 'height'"):
        determined(zero, null)


# --- bootstrap


def untilted(x):
    host = load_backend("pyro")

    def model(x):
        with host.plate("data", len(x)):
            host.sample("x", host.dist.Normal(host.sample("z", host.dist.Normal(0.0, 1.0)), 1.0), obs=x)

    return pplebm.Program(model, data=x)


def refit(x, seed):
    """The larger model has a free mean, found exactly."""
    x = np.asarray(x, float)
    return gaussian(x, x.mean()), gaussian(x, 0.0)


def test_bootstrap_has_the_distribution_of_the_statistic():
    """Simulated statistics are chi-square on 1 df here, and p counts those that are as large."""
    x = np.full(20, 0.5, np.float32)
    found = pplebm.bootstrap_ratio(untilted(x), x, refit, n_replications=400, progress=False)
    assert found.statistic == pytest.approx(20 * 0.25 / 2) and len(found.simulated) == 400
    assert stats.kstest(found.simulated, "chi2", args=(1,)).pvalue > 0.01
    assert found.p_value == (1 + (found.simulated >= found.statistic).sum()) / 401
    assert found.p_value == pytest.approx(stats.chi2.sf(2.5, 1), abs=4 * (0.11 * 0.89 / 400) ** 0.5)


def test_bootstrap_p_values_are_uniform_under_the_smaller_model():
    rng, found = np.random.default_rng(4), []
    for seed in range(120):
        x = rng.normal(0.0, 2.0**0.5, size=10).astype(np.float32)
        found.append(pplebm.bootstrap_ratio(untilted(x), x, refit, n_replications=9, seed=seed, progress=False).p_value)
    counts = np.bincount(np.round(10 * np.array(found)).astype(int), minlength=11)[1:]
    assert stats.chisquare(counts).pvalue > 0.01


def test_bootstrap_goes_on_after_an_interruption(tmp_path):
    """The same statistics, each made once, in a file that belongs to these data."""
    x, calls = np.linspace(-1.0, 2.0, 12).astype(np.float32), []

    def interrupted(data, seed):
        calls.append(seed)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return refit(data, seed)

    settings = {"n_replications": 9, "seed": 3, "progress": False}
    whole = pplebm.bootstrap_ratio(untilted(x), x, refit, **settings)
    out = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        pplebm.bootstrap_ratio(untilted(x), x, interrupted, out=out, **settings)
    assert len(json.loads(out.read_text())["statistics"]) == 4
    found = pplebm.bootstrap_ratio(untilted(x), x, interrupted, out=out, **settings)
    assert len(calls) == 11 and len(set(calls)) == 10
    np.testing.assert_array_equal(found.simulated, whole.simulated)
    assert found.p_value == whole.p_value
    fewer = pplebm.bootstrap_ratio(untilted(x), x, interrupted, out=out, **settings | {"n_replications": 4})
    np.testing.assert_array_equal(fewer.simulated, whole.simulated[:4])
    with pytest.raises(PplebmError, match="belongs to other data"):
        pplebm.bootstrap_ratio(untilted(x), x + 1.0, refit, out=out, **settings)
    out.write_text("{}")
    with pytest.raises(PplebmError, match="holds no statistics"):
        pplebm.bootstrap_ratio(untilted(x), x, refit, out=out, **settings)


def test_bootstrap_of_a_smaller_model_with_a_tilt_needs_draws_of_it():
    program, data = one_layer("pyro")
    with pytest.raises(PplebmError, match="has the tilt 'f', which forward simulation ignores; give simulate="):
        pplebm.bootstrap_ratio(program, data, refit)
    seeds = []
    draw = lambda seed: (seeds.append(seed), np.random.default_rng(seed).normal(size=8))[1]
    own = lambda x, seed: refit(x["x"] if isinstance(x, dict) else x, seed)
    pplebm.bootstrap_ratio(program, data, own, simulate=draw, n_replications=3, progress=False)
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_simulated_data_keep_covariates_and_shapes(backend):
    """Moments of data at their covariates; a global mean in common."""
    host = load_backend(backend)

    def local(c, x):
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(2.0 * c, 1.0))
            host.sample("x", host.dist.Normal(z, 0.5), obs=x)

    c = np.repeat([0.0, 3.0], 2000).astype(np.float32)
    data = {"c": c, "x": np.zeros(4000, np.float32)}
    program = pplebm.Program(local, data=data, backend=backend)
    found = simulated(program, program.params, program.data(data), 5)
    x = program.ppl.to_numpy(found["x"])
    np.testing.assert_array_equal(program.ppl.to_numpy(found["c"]), c)
    assert abs(x[:2000].mean()) < 4 * (1.25 / 2000) ** 0.5 > abs(x[2000:].mean() - 6.0)
    assert x[:2000].var() == pytest.approx(1.25, rel=0.15)

    def common(x):
        mean = host.sample("mean", host.dist.Normal(0.0, 10.0))
        with host.plate("data", len(x)):
            host.sample("x", host.dist.Normal(mean, 0.1), obs=x)

    program = pplebm.Program(common, data=np.zeros(5, np.float32), backend=backend)
    sets = [program.ppl.to_numpy(simulated(program, program.params, program.example, seed)) for seed in range(6)]
    assert all(x.shape == (5,) and x.std() < 0.3 for x in sets) and np.std([x.mean() for x in sets]) > 2.0
