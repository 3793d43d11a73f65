"""kill -9 at random instants: what was learned in the end, and its metrics, are those of a run that was left alone."""

from __future__ import annotations

import killed
import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_run_that_is_killed_twice_ends_the_same(tmp_path, backend):
    killed.check(tmp_path, "short_run_mle", backend, 2, 60, np.random.default_rng(0))


@pytest.mark.kill
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("algorithm", ["short_run_mle", "variational_joint", "persistent_mle"])
def test_a_run_that_is_killed_twenty_times_ends_the_same(tmp_path, algorithm, backend):
    killed.check(tmp_path, algorithm, backend, 20, 300, np.random.default_rng(), is_small=False)
