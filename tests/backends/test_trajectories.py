"""Chains along trajectories: what a backend makes of the parts of a move is the move."""

from __future__ import annotations

import numpy as np
import pytest

import pplebm
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.mams import mams
from pplebm.kernels.metric import flat
from pplebm.kernels.warming import next_window, warming
from pplebm.ppl.trees import tree_leaves
from pplebm.sampling import chains
from pplebm.sampling.blocks import recording

KERNELS = {
    "adaptive_hmc": adaptive_hmc(0.2),
    "mams": mams(0.2),
    "recorded": recording(adaptive_hmc(0.2), ()),
    "warming": warming(adaptive_hmc(0.2), (1, 2, 3)),
}


@pytest.fixture
def program(ppl):
    return pplebm.Program(pplebm.bind("conjugate_tilt", ppl.name, shape=(3,)))


def begun(program, kernel, x):
    return chains.begin(program, program.ppl.key(0), program.params, x, kernel, len(x))


def assert_alike(ppl, tree, others):
    for path, a in tree_leaves(tree):
        np.testing.assert_allclose(ppl.to_numpy(a), ppl.to_numpy(others[path]), rtol=2e-3, atol=2e-3, err_msg=path)


@pytest.mark.parametrize("name", KERNELS)
def test_a_chain_of_trajectories_is_move_after_move(program, name):
    ppl, kernel = program.ppl, KERNELS[name]
    x = ppl.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    state, keys = begun(program, kernel, x), ppl.split(ppl.key(1), 4)
    end, infos = program.chain(kernel, state, keys, program.params, x)
    for i, key in enumerate(keys):
        state, info = kernel(ppl, key, state, program.log_density(program.params, x))
        assert_alike(ppl, info, {path: a[i] for path, a in tree_leaves(infos)})
    assert_alike(ppl, state, dict(tree_leaves(end)))


def test_chains_that_find_their_own_step_leave_those_that_share_one_alone(program):
    ppl, kernel = program.ppl, warming(adaptive_hmc(0.2), (1, 4, 1))
    x = ppl.asarray(np.zeros((4, 3)))
    start = begun(program, kernel, x)
    pooled = ppl.asarray([1.0, 1.0, 0.0, 1.0])
    state = next_window(
        ppl, start, start.inner.metric, flat(ppl, start.z), ppl.asarray(0.5), pooled, (1, 4, 1), 0.2
    )  # fmt: skip
    end, seen = program.chain(kernel, state, ppl.split(ppl.key(1), 20), program.params, x)
    steps = ppl.to_numpy(end.averages.log_step)
    assert steps[0] == steps[1] == steps[3] != steps[2]
    assert (ppl.to_numpy(seen.num_steps)[:, 2] <= 16).all()
