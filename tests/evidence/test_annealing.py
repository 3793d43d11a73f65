"""Annealed particles: each part against its own law, then constants of Gaussians in closed form."""

import numpy as np
import pytest
from conjugate import BACKENDS, X, exact_one_layer, hierarchy, instance, one_layer
from scipy.stats import multivariate_normal

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.evidence import annealing
from pplebm.evidence.annealed import annealed_importance, of_weights, sequential_monte_carlo
from pplebm.evidence.annealing import importance_sampled, log_mean, next_strength, refined, reverse_sampled, sequential
from pplebm.evidence.estimators import METHODS
from pplebm.evidence.path import Path
from pplebm.kernels.annealed import annealed
from pplebm.kernels.hmc import hmc

ESTIMATORS = {"ais": annealed_importance, "smc": sequential_monte_carlo}
backends = pytest.mark.parametrize("backend", BACKENDS)


@backends
def test_particles_keep_the_law_of_their_strength(backend):
    """Exact draws of the density at strength 0.4, moved, are draws of it; at another strength they are not."""
    program, data = one_layer(backend)
    path = Path(program, program.params, program.data(data), True, 4000)
    precision = 1.0 + 0.4 / 0.36
    mean = 0.4 * (0.7 + data["x"] / 0.36) / precision
    z = mean + np.random.default_rng(0).normal(size=(4000, 4)) / precision**0.5
    at = path.at({"z": path.ppl.asarray(z.reshape(-1).astype(np.float32), keep=True)})
    strengths = np.array([0.4, 0.4, 0.4, 0.9])
    tuning = annealing.Tuning(np.full(4, 0.4), path.unit_metric())
    for key in path.ppl.split(path.ppl.key(1), 3):
        at, accept = path.move(key, at, strengths, tuning, 2)
    assert 0.8 < accept.mean() < 1.0
    off = (path.flat(at)[:, :, 0].mean(0) - mean) * (4000 * precision) ** 0.5
    assert abs(off[:3]).max() < 4 < 20 < abs(path.flat(at)[:, 3, 0].var() * precision - 1.0) * (4000 / 2) ** 0.5 * 2
    assert abs(path.flat(at)[:, :3, 0].var(0) * precision - 1.0).max() < 4 * (2 / 4000) ** 0.5


def test_only_trajectories_are_annealed():
    with pytest.raises(PplebmError, match="adaptive_hmc or mams"):
        annealed(hmc())


@backends
def test_potential_and_gradients_are_those_of_the_program(backend):
    program, params, _ = instance(backend)
    path = Path(program, params, program.data(X), True, 5)
    at = path.draw_base(path.ppl.key(0))
    rows = program.ppl.asarray(np.tile(np.arange(3), 5))
    data = program.data(X)[rows]
    terms = program.log_terms(params, at.z, data)
    expected = sum(program.ppl.to_numpy(terms[name]) for name in ("f1", "f2", "x")).reshape(5, 3)
    np.testing.assert_allclose(at.potential, expected, rtol=1e-5)
    value, slope = program.ppl.value_and_grad(program.log_density(params, data), at.z)
    np.testing.assert_allclose(at.log_base + at.potential, program.ppl.to_numpy(value).reshape(5, 3), rtol=1e-4)
    whole = np.concatenate([program.ppl.to_numpy(slope[site]) for site in sorted(slope)], 1).reshape(5, 3, -1)
    np.testing.assert_allclose(at.base_gradient + at.potential_gradient, whole, rtol=2e-3, atol=1e-3)


@backends
def test_chains_begin_with_the_density_and_the_gradient_of_their_strength(backend):
    """What the kernel is told of its start is what the program says of the density at that strength."""
    program, params, _ = instance(backend)
    path, strength = Path(program, params, program.data(X), True, 5), np.array([0.1, 0.5, 1.0])
    at = path.draw_base(path.ppl.key(0))
    state = path._state(at, strength, annealing.Tuning(np.full(3, 0.3), path.unit_metric()))
    by_row = path.ppl.asarray(np.tile(strength, 5).astype(np.float32), keep=True)
    density = path.program.log_density(params, path.data)
    value, slope = path.ppl.value_and_grad(
        lambda z: density(z, tilt_strength=by_row, likelihood_strength=by_row), at.z
    )  # fmt: skip
    found = state.inner
    np.testing.assert_allclose(*(path.ppl.to_numpy(a) for a in (found.log_density, value)), rtol=1e-4)
    for site, a in slope.items():
        np.testing.assert_allclose(*(path.ppl.to_numpy(b) for b in (found.gradient[site], a)), rtol=1e-3, atol=1e-3)
    for told in (state.tilt, state.likelihood):
        np.testing.assert_allclose(path.ppl.to_numpy(told), np.tile(strength, 5), rtol=1e-6)


def test_the_next_strength_leaves_nine_tenths():
    rng = np.random.default_rng(0)
    u = np.stack([rng.normal(size=4000), 5.0 * rng.normal(size=4000) - 20.0, np.zeros(4000)], 1)
    u[:100, 0] = -np.inf  # lost at any strength, and no reason to go slowly
    now = np.array([0.2, 0.2, 0.2])
    found = next_strength(u, np.zeros_like(u), now)
    for column, step in zip(u.T[:2], (found - now)[:2], strict=True):
        v = np.exp(step * (column - column.max()))[np.isfinite(column)]
        assert v.sum() ** 2 / (v**2).sum() / len(v) == pytest.approx(0.9, abs=1e-6)
    assert found[2] == 1.0


def test_systematic_resampling_keeps_the_mean():
    """Every particle is drawn as often as it weighs, in the mean; groups do not mix."""
    rng = np.random.default_rng(0)
    log_weight = 2.0 * rng.normal(size=(40, 2))
    counts, share = np.zeros((40, 2)), np.exp(log_weight.reshape(2, 20, 2))
    share = (20 * share / share.sum(1, keepdims=True)).reshape(40, 2)
    for _ in range(4000):
        index, after, won = annealing._resampled(log_weight, 2, rng)
        assert (after == 0.0).all() and (index[:20] < 20).all() and (index[20:] >= 20).all()
        counts += [(index == i).sum(0) for i in range(40)]
    assert abs(counts / 4000 - share).max() < 4 * 0.5 / 4000**0.5
    np.testing.assert_allclose(won, log_mean(log_weight.reshape(2, 20, 2), 1))


def test_a_finer_schedule_goes_through_the_pilots_strengths():
    metric = annealing.Metric(np.ones((2, 1)), np.ones((2, 1, 1)), np.ones((2, 1)))
    tunings = [annealing.Tuning(np.array([s, 10.0 * s]), metric) for s in (1.0, 2.0, 3.0)]
    coarse = annealing.Schedule(np.array([[0.0, 0.0], [0.1, 0.5], [0.4, 1.0], [1.0, 1.0]]), tunings)
    fine = refined(coarse, annealing.VARIANCE * 3 / 4)  # four times as many steps for the datum with three
    assert len(fine.tunings) == 12 and (np.diff(fine.strengths, axis=0) > 0).all() and (fine.strengths[-1] == 1).all()
    np.testing.assert_allclose(fine.strengths[[4, 8], 0], [0.1, 0.4])
    np.testing.assert_allclose(fine.strengths[6, 1], 0.5)  # its two steps are cut into six each
    assert [float(t.step_size[0]) for t in fine.tunings] == 4 * [1.0] + 4 * [2.0] + 4 * [3.0]
    assert [float(t.step_size[1]) for t in fine.tunings] == 6 * [10.0] + 6 * [20.0]


@backends
def test_weights_there_and_back_have_the_constant_as_their_mean(backend):
    """E w = Z along a fixed schedule, and E w = 1 / Z of exact draws of the target that go back."""
    program, data = one_layer(backend)
    x = program.data(data)
    schedule = refined(sequential(Path(program, program.params, x, True, 32), 0).schedule, 0.2)
    path = Path(program, program.params, x, True, 4000)
    log_weight, _ = importance_sampled(path, 1, schedule)
    constant, evidence = exact_one_layer(data)
    mean = (0.7 + data["x"] / 0.36) / (1.0 + 1.0 / 0.36)
    z = mean + np.random.default_rng(0).normal(size=(4000, 4)) / (1.0 + 1.0 / 0.36) ** 0.5
    back = reverse_sampled(path, 2, schedule, {"z": path.ppl.asarray(z.reshape(-1).astype(np.float32), keep=True)})
    for sign, weights in ((1, log_weight), (-1, back)):
        relative = np.exp(weights - sign * (constant + evidence))
        off = (relative.mean(0) - 1.0) / (relative.std(0) / 4000**0.5)
        assert abs(off).max() < 4, (sign, off)
        assert relative.std(0).max() < 3
    gap = -(log_weight.mean(0) + back.mean(0))
    assert (gap > 0).all()


@backends
@pytest.mark.parametrize("method", ESTIMATORS)
def test_intervals_cover(backend, method):
    """Fifty posteriors of the conjugate hierarchy, and its prior: errors are those that are seen."""
    program, params, form = instance(backend)
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    exact = np.array([form(row).log_constant for row in x])
    found = ESTIMATORS[method](program, params, program.data(x), True, seed=3)
    assert found.is_trusted.all()
    low, high = found.interval(0.95)
    covered = ((low <= exact) & (exact <= high)).mean()
    assert covered >= 0.85, covered  # of 50 at 95 %, fewer than 43 are seen once in 600
    z = (found.value - exact) / found.error
    assert abs(z.mean()) < 4 / 50**0.5 and 0.6 < z.std() < 1.6  # 4 standard errors; smc's are Student's with 7
    assert found.error.max() < 0.5
    prior = ESTIMATORS[method](program, params, None, False, n_particles=512, seed=4)
    assert abs(prior.value[0] - form().log_constant) < 4 * prior.error[0] < 0.4


@pytest.mark.parametrize("method", ESTIMATORS)
def test_the_base_is_the_program_without_tilts(method):
    program, data = one_layer("numpyro")
    found = ESTIMATORS[method](program, program.params, program.data(data), True, tilted=False, seed=1)
    assert (abs(found.value - exact_one_layer(data, base=True)[1]) < 4.5 * found.error).all()


@backends
def test_a_prior_that_reads_covariates_has_a_constant_for_every_row(backend):
    program, data = one_layer(backend, slope=0.9)
    constant, evidence = exact_one_layer(data, slope=0.9)
    found = pplebm.log_z(program, data, n_particles=256)
    assert len(found) == 4 and (abs(found.value - constant) < 4 * found.error).all() and found.error.max() < 0.2
    found = pplebm.log_evidence(program, data, n_particles=256)
    assert (abs(found.value - evidence) < 4 * found.error).all() and found.error.max() < 0.2
    with pytest.raises(PplebmError, match="reads c"):
        pplebm.log_z(program)


@backends
def test_all_data_of_a_joint_program_are_one(backend):
    program = hierarchy(backend)
    x = np.array([0.5, -1.0, 2.0, 3.0], np.float32)
    exact = multivariate_normal(np.ones(4), 4.0 * np.ones((4, 4)) + 1.25 * np.eye(4)).logpdf(x)
    found = pplebm.log_evidence(program, x, n_particles=256)
    assert len(found) == 1 and abs(found.value[0] - exact) < 4 * found.error[0] < 0.6


@pytest.mark.parametrize("method", METHODS)
def test_a_target_without_mass_spoils_no_other(method):
    program, data = one_layer("numpyro")
    x = data["x"].copy()
    x[2] = 1e25  # squared, beyond single precision
    with pytest.warns(PplebmWarning, match="of 1 of 4 data .* the first of them, datum 2"):
        found = pplebm.log_evidence(program, data | {"x": x}, method=method, seed=5, progress=False)
    assert found.is_trusted.tolist() == [True, True, False, True] and np.isnan(found.value[2])
    assert (abs(found.value - exact_one_layer(data)[1]) < 5 * found.error)[[0, 1, 3]].all()


def test_a_target_that_is_not_reached_is_told(monkeypatch):
    program, data = one_layer("numpyro")
    monkeypatch.setattr(annealing, "MOST", 6)
    x = program.data(data | {"x": np.array([0.7, 30.0, 0.7, 0.7], np.float32)})
    found = annealed_importance(program, program.params, x, True)
    assert found.is_trusted.tolist() == [True, False, True, True] and "6 steps of strength" in found.reasons[1]


def test_weights_of_infinite_variance_are_refused():
    rng = np.random.default_rng(0)
    heavy, light = 1.2 * rng.exponential(size=4000), 0.3 * rng.normal(size=4000)  # Pareto with k = 1.2; log normal
    found = of_weights("any", np.stack([heavy, light], 1))
    assert found.is_trusted.tolist() == [False, True] and np.isnan(found.value[0]) and "k-hat" in found.reasons[0]
    assert found.ess[1] == pytest.approx(4000 * np.exp(-0.09), rel=0.05)
    with_zeros = np.where(np.arange(4000) % 4 == 0, -np.inf, light)[:, None]  # a quarter of the base is off the support
    found = of_weights("any", np.concatenate([with_zeros, np.full((4000, 1), -np.inf)], 1))
    assert abs(found.value[0] - np.log(0.75) - 0.045) < 4 * found.error[0]
    assert found.is_trusted.tolist() == [True, False] and found.reasons[1] == "no particle has any weight."
