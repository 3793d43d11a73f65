"""Chains that are moved between windows of a warm-up."""

from __future__ import annotations

import numpy as np
import pytest

import pplebm
from pplebm.kernels.adaptation import adapting
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.hmc import hmc
from pplebm.kernels.tempering import parallel_tempering
from pplebm.kernels.warming import Seen, warming
from pplebm.sampling import warmup
from pplebm.sampling.warmup import moved_on

SHAPE = (2, 3, 2)  # replicas, chains, data


@pytest.fixture
def state(ppl):
    """At the end of a window of 50 steps; places, log densities and gradients tell the row."""
    density = lambda z, tilt_strength=1.0: -0.5 * (z["z"] ** 2).sum(1)
    kernel = adapting(parallel_tempering(hmc(2), (0.0, 1.0)), SHAPE)
    found = kernel.init(ppl, {"z": ppl.asarray(1.0 + 0.01 * np.arange(12.0)[:, None])}, density)
    moments = found.moments._replace(count=ppl.asarray(50.0), n_accepted=ppl.asarray(np.full(12, 30.0)))
    return found._replace(moments=moments)


def rows_of(ppl, state):
    """Row whose place every row has; its log density and gradient go with it."""
    z, at = ppl.to_numpy(state.z["z"])[:, 0], state.inner.inner
    for a in (ppl.to_numpy(at.z["z"])[:, 0], -ppl.to_numpy(at.gradient["z"])[:, 0],
              (-2.0 * ppl.to_numpy(at.log_density)) ** 0.5):  # fmt: skip
        np.testing.assert_allclose(a, z, rtol=1e-5)
    return np.round(100.0 * (z - 1.0)).astype(int).reshape(SHAPE)


@pytest.mark.parametrize("how", ["accepts nothing", "lags"])
def test_a_chain_takes_the_place_of_another_of_its_datum_and_replica(ppl, state, how):
    accepted, value = np.full(12, 30.0), np.zeros(12)
    lost = np.array([1, 4, 5])  # datum 1, chain 0; datum 0 and 1, chain 2; of the first replica
    accepted[lost] = 0.0 if how == "accepts nothing" else 30.0
    value[lost] = 0.0 if how == "accepts nothing" else -40.0
    given = {"n_accepted": ppl.asarray(accepted), "log_density": ppl.asarray(value)}
    new, n = moved_on(ppl, state._replace(moments=state.moments._replace(**given)), SHAPE, 0)
    rows, expected = rows_of(ppl, new), np.arange(12).reshape(SHAPE)
    assert n == 3 and rows[0, 0, 1] == 3 == rows[0, 2, 1] and rows[0, 2, 0] in (0, 2)
    rows[0, 0, 1], rows[0, 2] = 1, (4, 5)
    assert (rows == expected).all()


def test_none_is_moved_where_none_counts_or_the_window_says_nothing(ppl, state):
    accepted = np.full(12, 30.0)
    accepted[::2] = 0.0  # all chains of datum 0
    still = state._replace(moments=state.moments._replace(n_accepted=ppl.asarray(accepted)))
    assert moved_on(ppl, still, SHAPE, 0)[1] == 0
    accepted[1] = 0.0
    short = state.moments._replace(n_accepted=ppl.asarray(accepted), count=ppl.asarray(10.0))
    assert moved_on(ppl, still._replace(moments=short), SHAPE, 0)[1] == 0


def test_warm_ups_of_kernels_that_differ_in_their_first_step_share_nothing():
    """What is compiled for one of them, on the same program, is not taken for the other."""
    settings = {"data": np.zeros((2, 3), np.float32), "n_warmup": 60, "n_draws": 10, "progress": False}
    fresh = lambda: pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
    program = fresh()
    pplebm.sample(program, adaptive_hmc(0.5), **settings)
    again, alone = (pplebm.sample(p, adaptive_hmc(0.05), **settings)["z1"] for p in (program, fresh()))
    np.testing.assert_array_equal(again, alone)


def test_a_window_that_leaves_steps_out_counts_their_acceptance(ppl, monkeypatch):
    monkeypatch.setattr(warmup, "MOST_NUMBERS", 1)
    accepted, zero = np.array([[1, 0], [0, 0], [0, 0], [0, 0]], bool), np.zeros((4, 2))
    place, value = ppl.asarray(np.zeros((4, 2, 3))), ppl.asarray(zero)
    kernel = warming(adaptive_hmc(), (1, 2, 1))
    state = kernel.init(ppl, {"a": place[0]}, lambda z: -0.5 * (z["a"] ** 2).sum(1))
    seen = Seen(place, place, value, ppl.asarray(accepted), value)
    found = warmup.gathered(ppl, warmup.Gathering(state, warmup.empty(ppl, state)), seen, 8)
    assert ppl.to_numpy(found.seen["is_accepted"]).tolist() == [[0.25, 0.0]]
