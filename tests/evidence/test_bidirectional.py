"""Bounds from both sides: they bracket what is known in closed form, and say how far the estimator may be off."""

import numpy as np
import pytest
from conjugate import BACKENDS, exact_one_layer, instance, one_layer

import pplebm
from pplebm.errors import PplebmError


@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_bracket(backend):
    program, params, form = instance(backend)
    found = pplebm.bidirectional(program, 48, params=params, seed=2)
    low, high = found.limits("log_z")
    assert low < form().log_constant < high and high - low < 0.5
    exact = np.mean([form(row).log_constant for row in found.data["x"]]) - form().log_constant
    low, high = found.limits()
    assert low < exact < high and high - low < 0.8


@pytest.mark.parametrize("seed", range(6))
def test_bounds_bracket_in_every_run(seed):
    """Exact draws of a prior that reads covariates; one-sided limits at 99.9 %."""
    program, data = one_layer("numpyro", slope=0.9)
    rows = {name: np.tile(a, 8) for name, a in data.items()}
    rng = np.random.default_rng(seed)
    z = {"z": program.ppl.asarray((0.7 + 0.9 * rows["c"] + rng.normal(size=32)).astype(np.float32), keep=True)}
    found = pplebm.bidirectional(program, rows, prior=z, seed=seed)
    constant, exact = exact_one_layer({"x": found.data["x"], "c": rows["c"]}, slope=0.9)
    for of, truth in (("log_z", constant.mean()), ("log_evidence", exact.mean())):
        low, high = found.limits(of)
        assert low < truth < high and high - low < 0.6, of


def test_smaller_steps_bring_the_bounds_together():
    program, _ = one_layer("numpyro", tilt=2.0)
    data = {"x": np.zeros(32, np.float32), "c": np.zeros(32, np.float32)}
    gaps = []
    for variance in (0.5, 0.05):
        (low, high), _, _ = pplebm.bidirectional(program, data, n_particles=64, variance=variance)
        gaps.append(high.mean - low.mean)
    assert gaps[0] > 3 * gaps[1] > 0


def test_simulated_data_need_their_covariates():
    program, _ = one_layer("numpyro", slope=0.9)
    with pytest.raises(PplebmError, match="give rows="):
        pplebm.bidirectional(program, 8)
