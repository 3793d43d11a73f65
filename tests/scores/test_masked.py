"""What is masked is not there: no score and no held-out figure depends on the numbers that stand in its place."""

from __future__ import annotations

import numpy as np
import pytest

import pplebm
from pplebm.runs.config import RunConfig
from pplebm.runs.held_out import HeldOut
from pplebm.runs.job import new_job

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype(np.float32)
SEEN = RNG.random((24, 5)) < 0.6
SEEN[0] = False  # a row of which nothing is seen
SMALL = {"latent_dim": 2, "width": 6, "depth": 1}
FEW = {"n_chains": 2, "n_draws": 3, "n_warmup": 10}


def of_numbers(fill):
    """latent_flow: any numbers may be missing."""
    return "latent_flow", {"x": np.where(SEEN, X, np.float32(fill)), "observed_x": SEEN}, SMALL | {"flow_width": 4}


def of_rows(fill):
    """multimodal_ebm: whole views may be missing in a row."""
    rows = SEEN.any(1) & (np.arange(24) % 3 > 0)
    views = {"a": X[:, :3], "b": np.where(rows[:, None], X[:, 3:], np.float32(fill))}
    return "multimodal_ebm", views | {"observed_a": np.ones(24, bool), "observed_b": rows}, SMALL | {"tilt_width": 6}


def program_of(ppl, made):
    page, data, hyper = made
    shape = {name: a.shape[1:] for name, a in data.items()}
    program = pplebm.Program(pplebm.bind(page, ppl.name, shape=shape, **hyper), data=data)
    return program, program.data(data)


@pytest.mark.parametrize("made", [of_numbers, of_rows])
def test_masks_are_those_of_the_data(ppl, made):
    program, data = program_of(ppl, made(0.0))
    found = {name: ppl.to_numpy(a).astype(bool) for name, a in program.observed_masks(data).items()}
    if made is of_numbers:
        np.testing.assert_array_equal(found["x"], SEEN)
    else:
        np.testing.assert_array_equal(found["b"], np.repeat(made(0.0)[1]["observed_b"][:, None], 2, 1))
        assert found["a"].all()


@pytest.mark.parametrize("made", [of_numbers, of_rows])
def test_no_score_depends_on_what_is_masked(ppl, made):
    names = ["reconstruction", "likelihood"]
    found = []
    for fill in (0.0, 50.0):
        program, data = program_of(ppl, made(fill))
        found.append(pplebm.anomaly_scores(program, data, names, seed=0, **FEW))
    for name in names:
        np.testing.assert_allclose(found[0][name].value, found[1][name].value, rtol=1e-4, atol=1e-4)
    assert made is of_rows or abs(found[0]["reconstruction"].value[0]) < 1e-12  # nothing is seen, nothing is wrong


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_the_held_out_error_does_not_depend_on_what_is_masked(backend, tmp_path):
    errors = []
    for fill in (0.0, 50.0):
        page, data, hyper = of_numbers(fill)
        config = RunConfig(page, data, "short_run_mle", updates=2, backend=backend,
                           hyper=hyper | {"batch_size": 8}).checked()  # fmt: skip
        from pplebm.ppl.language import load_backend

        job, _ = new_job(tmp_path / f"run{fill:.0f}", config, load_backend(backend).parallel(1, 1, "auto"))
        errors.append(HeldOut(job).error(1, job.algorithm.program.params))
    assert errors[0] == pytest.approx(errors[1], rel=1e-4) and 0.1 < errors[0] < 10.0
