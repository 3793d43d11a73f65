"""Calibration by simulation: right posteriors of tilted programs pass, and every wrong one is told."""

from __future__ import annotations

import numpy as np
import pytest
from conjugate import BACKENDS, hierarchy, one_layer, scalars
from scipy import stats

import pplebm
from pplebm.calibration.posteriors import AdjustedChains, OfGuide, ShortRun
from pplebm.calibration.replications import replicate
from pplebm.calibration.sbc import Calibration, sbc
from pplebm.errors import PplebmError
from pplebm.guides.guide import Guide
from pplebm.kernels.langevin import langevin
from pplebm.ppl.language import load_backend

backends = pytest.mark.parametrize("backend", BACKENDS)
CHAINS = AdjustedChains(n_chains=6, n_draws=6, thin=6, n_warmup=200)


def skewed(backend, tilted=True):
    """z ~ Gamma(2, 1), tilted by -z to Gamma(2, 2), seen with unit noise."""
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Gamma(2.0, 1.0))
            if tilted:
                ppl.tilt("f", -z)
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    return pplebm.Program(model, data=np.ones(2, np.float32), backend=backend)


def exact_prior(n, rate=2.0, seed=0):
    return {"z": np.random.default_rng(seed).gamma(2.0, 1.0 / rate, n).astype(np.float32)}


def pair(backend, sd=0.5, shift=0.7):
    """N(0, 1) tilted by 0.7 z, seen with noise 1/√3: the posterior is N((0.7 + 3 x) / 4, 1/4); and a guide."""
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", 0.7 * z)
            ppl.sample("x", ppl.dist.Normal(z, 3.0**-0.5), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal((shift + 3.0 * x) / 4.0, sd))

    program = pplebm.Program(model, data=np.ones(2, np.float32), backend=backend)
    return program.with_guide(Guide(program, guide)), {"z": 0.7 + np.random.default_rng(0).normal(size=300)}


@backends
def test_hmc_is_calibrated_and_a_short_run_is_not(backend):
    """An asymmetric posterior: adjusted chains pass, five small steps from the base do not, and log p(x|z) says so."""
    program, prior = skewed(backend), exact_prior(150)
    good = sbc(program, CHAINS, n_replications=150, prior=prior, quantities={"z²": lambda v: v["z"] ** 2})
    assert set(good.ranks) == {"z", "z²", "log p(x, z)", "log p(x|z)"} and good.n_draws == 36
    assert not good.failed and not good.verdict and min(good.p_values.values()) > 0.01
    np.testing.assert_array_equal(good.ranks["z"], good.ranks["z²"])  # z is positive
    for found in good.coverage((0.5, 0.9))["z"]:
        assert abs(found.share - found.level) < 3.5 * (found.level * (1 - found.level) / 150) ** 0.5
    short = sbc(program, ShortRun(langevin(0.1), 5, 36), n_replications=150, prior=prior)
    assert {"log p(x, z)", "log p(x|z)"} <= set(short.failed)
    assert "by short runs" in short.verdict[0] and short.p_values["log p(x|z)"] < 0.001


def test_forward_simulation_without_the_tilt_is_told():
    """Right posteriors look wrong where latents come from the base, as forward simulation of the host has them."""
    found = sbc(skewed("pyro"), CHAINS, n_replications=400, prior=exact_prior(400, rate=1.0))
    assert "z" in found.failed and "lie too low" in found.verdict[0]


def test_posteriors_without_the_tilt_are_told():
    """Posteriors of the base, at data of the tilted program."""

    class OfBase:
        name = "chains of the base"

        def draw(self, program, params, x, seed, progress):
            return CHAINS.draw(skewed("pyro", tilted=False), {}, x, seed, progress)

    found = sbc(skewed("pyro"), OfBase(), n_replications=400, prior=exact_prior(400))
    assert "z" in found.failed and "lie too high" in found._fault("z")


@backends
def test_a_guide_is_calibrated_if_it_is_the_posterior(backend):
    program, prior = pair(backend)
    assert not sbc(program, OfGuide(), n_replications=300, prior=prior).failed
    narrow, _ = pair(backend, sd=0.3)
    found = sbc(narrow, OfGuide(), n_replications=300, prior=prior)
    assert "too narrow" in found._fault("z") and "z" in found.failed
    off, _ = pair(backend, shift=0.0)
    assert "too low" in sbc(off, OfGuide(), n_replications=300, prior=prior)._fault("z")


def test_a_posterior_that_is_the_prior_passes_for_latents_and_fails_for_densities():
    program, prior = pair("pyro")

    class Prior:
        name = "the prior"

        def draw(self, program, params, x, seed, progress):
            return {"z": 0.7 + np.random.default_rng(seed).normal(size=(1, 50, len(x))).astype(np.float32)}

    found = sbc(program, Prior(), n_replications=300, prior=prior)
    assert found.p_values["z"] > 0.01 and "log p(x|z)" in found.failed


@backends
def test_latents_and_data_of_replications_are_those_of_the_tilted_program(backend):
    """Prior at covariates by chains: z* ~ N(0.7 + c / 2, 1), x* ~ N(z*, 0.6²), each row in turn."""
    program, data = one_layer(backend, slope=0.5)

    class One:
        name = "nothing"

        def draw(self, program, params, x, seed, progress):
            return {"z": np.zeros((1, 1, len(x["x"])), np.float32)}

    n = 400
    found = replicate(program, One(), n, given=data)
    c = np.tile(data["c"], n // 4)
    x = program.ppl.to_numpy(found.data["x"])
    np.testing.assert_array_equal(program.ppl.to_numpy(found.data["c"]), c)
    noise, error = found.latents["z"] - 0.7 - 0.5 * c, (x - found.latents["z"]) / 0.6
    for a in (noise, error):
        assert stats.kstest(a, "norm").pvalue > 0.01
        assert abs(np.corrcoef(a[:-4], a[4:])[0, 1]) < 4 / n**0.5  # neighbours of a row share no chain
    assert abs(np.corrcoef(noise, error)[0, 1]) < 4 / n**0.5
    assert stats.kstest(found.latents["z"], "norm").pvalue < 1e-6


def joint(backend, tilt):
    """mean ~ N(1, 4) tilted by `tilt` mean to N(1 + 4 tilt, 4), five data N(mean, 1) each."""
    ppl = load_backend(backend)

    def model(x):
        mean = ppl.sample("mean", ppl.dist.Normal(1.0, 2.0))
        ppl.tilt("f", tilt * mean)
        with ppl.plate("data", len(x)):
            ppl.sample("x", ppl.dist.Normal(mean, 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(5, np.float32), backend=backend)


class ExactMean:
    """Exact posterior of `joint`: precision 5 + 1/4, and a tilt that adds to the linear part, or is left out."""

    name = "exact draws"

    def __init__(self, tilt):
        self.tilt = tilt

    def draw(self, program, params, x, seed, progress):
        center = (0.25 + self.tilt + program.ppl.to_numpy(x).sum()) / 5.25
        noise = np.random.default_rng(seed).normal(size=(1, 40)) / 5.25**0.5
        return {"mean": (center + noise).astype(np.float32)}


@backends
def test_global_latents_are_calibrated_by_whole_data_sets(backend):
    program, given = joint(backend, 1.0), np.zeros(5, np.float32)
    found = replicate(program, ExactMean(1.0), 120, given=given)
    assert stats.kstest((found.latents["mean"] - 5.0) / 2.0, "norm").pvalue > 0.01
    assert len(found.data) == 120 and found.draws["mean"].shape == (1, 40, 120)
    means = np.array([program.ppl.to_numpy(x).mean() for x in found.data])
    assert stats.kstest((means - found.latents["mean"]) * 5**0.5, "norm").pvalue > 0.01
    good = sbc(program, ExactMean(1.0), n_replications=120, given=given)
    assert set(good.ranks) == {"mean", "log p(x, z)", "log p(x|z)"} and not good.failed
    assert "mean" in sbc(program, ExactMean(-1.0), n_replications=120, given=given).failed


def test_chains_of_whole_data_sets_are_those_of_each():
    """Few replications: chains lie where each exact posterior does."""
    program = joint("pyro", 1.0)
    few = AdjustedChains(n_chains=8, n_draws=20, thin=2, n_warmup=100)
    found = replicate(program, few, 3, given=np.zeros(5, np.float32))
    centers = np.array([(1.25 + program.ppl.to_numpy(x).sum()) / 5.25 for x in found.data])
    assert found.draws["mean"].shape == (8, 20, 3)
    assert abs(found.draws["mean"].mean((0, 1)) - centers).max() < 5 / 5.25**0.5 / 40**0.5


def test_a_program_without_tilt_is_simulated_forward():
    """z* ~ N(0, 1) exactly, and the ranks among exact posterior draws, N(x / 2, 1 / 2), are uniform."""
    program = scalars("pyro")

    class Exact:
        name = "exact draws"

        def draw(self, program, params, x, seed, progress):
            x = program.ppl.to_numpy(x)
            noise = np.random.default_rng(seed).normal(size=(1, 40, len(x)))
            return {"z": (0.5 * x + 0.5**0.5 * noise).astype(np.float32)}

    found = replicate(program, Exact(), 300)
    assert stats.kstest(found.latents["z"], "norm").pvalue > 0.01
    assert not sbc(program, Exact(), n_replications=300).failed


def test_more_rows_than_replications_are_left_alone():
    program, data = one_layer("pyro", slope=0.5)
    found = replicate(program, ShortRun(langevin(0.1), 2, 3), 3, given=data)
    np.testing.assert_array_equal(found.data["c"], data["c"][:3])
    assert found.draws["z"].shape == (1, 3, 3)


def test_a_seed_gives_the_same_ranks():
    program, prior = pair("pyro")
    one, same, other = (sbc(program, OfGuide(n_draws=20), n_replications=300, prior=prior, seed=s) for s in (1, 1, 2))
    assert (one.ranks["z"] == same.ranks["z"]).all() and (one.ranks["z"] != other.ranks["z"]).any()


def test_the_table_and_the_figures_show_what_was_found():
    rng = np.random.default_rng(0)
    ranks = {"a": rng.integers(0, 20, 200), "b": rng.integers(0, 20, 200) // 2}
    found = Calibration("a guess", ranks, 19, {"a": 19.0, "b": 9.0})
    table = found.table((0.9,))
    assert table[0][0] == "quantity" and table[1][0] == "b" and table[1][3].startswith("-") and len(table) == 3
    assert found.worst() == ["b", "a"] and found.failed == ["b"]
    assert "lie too high" in found.verdict[0] and "worth only 9" in found.verdict[1]
    for figure in (found.ecdf_figure(), found.rank_figure()):
        assert [ax.get_title().split("\n")[0] for ax in figure.axes] == ["b", "a"]
        figure.canvas.draw()
    inside = found.ecdf_figure(["a"]).axes[0]
    curve, low_high = inside.lines[0].get_ydata(), inside.collections[0].get_paths()[0].vertices[:, 1]
    assert low_high.min() <= curve.min() and curve.max() <= low_high.max()
    with pytest.raises(PplebmError, match="no ranks of 'c'"):
        found.rank_figure(["c"])
    with pytest.raises(PplebmError, match=r"lie in \(0, 1\)"):
        found.coverage((90,))


def test_what_cannot_be_calibrated_is_refused():
    program, prior = pair("pyro")
    reads, data = one_layer("pyro", slope=0.5)
    with pytest.raises(PplebmError, match="give given= a data set as large"):
        sbc(hierarchy("pyro"))
    with pytest.raises(PplebmError, match="global latent, which a short run or a guide"):
        sbc(hierarchy("pyro"), ShortRun(langevin(0.1), 2), given=np.zeros(4, np.float32))
    with pytest.raises(PplebmError, match="from 2 on"):
        sbc(program, n_replications=1)
    with pytest.raises(PplebmError, match=r"reads c, .* give given="):
        sbc(reads)
    with pytest.raises(PplebmError, match=r"have shape \(300,\); give prior= .*\(200,\)"):
        sbc(program, prior=prior)
    with pytest.raises(PplebmError, match="'z' are missing"):
        sbc(program, prior={})
    with pytest.raises(PplebmError, match="quantity 'w' has shape"):
        sbc(program, OfGuide(), prior=prior, n_replications=300, quantities={"w": lambda v: v["z"].mean()})
    with pytest.raises(PplebmError, match="a quantity 'z' already"):
        sbc(program, OfGuide(), prior=prior, n_replications=300, quantities={"z": lambda v: v["z"]})
    with pytest.raises(PplebmError, match="no guide"):
        sbc(reads, OfGuide(), given=data, n_replications=4)

    class Lost:
        name = "lost chains"

        def draw(self, program, params, x, seed, progress):
            return {"z": np.full((1, 4, len(x)), np.nan)}

    with pytest.raises(PplebmError, match=r"100\.0% of the draws of 'z' by lost chains"):
        sbc(program, Lost(), prior=prior, n_replications=300)
