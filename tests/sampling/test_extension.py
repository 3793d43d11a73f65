"""Finished runs go on to more draws: the draws of one call, whatever the pieces."""

from __future__ import annotations

import numpy as np
import pytest
from conjugate import BACKENDS, hierarchy, scalars

import pplebm
from pplebm.errors import PplebmError
from pplebm.kernels.hmc import hmc
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.tempering import parallel_tempering
from pplebm.sampling import job as sampling

X = np.array([28.0, 8.0, -3.0, 7.0], np.float32)
CALLS = {
    "posteriors": (scalars, lambda: mala(0.5), {"data": X}),
    "thinned": (scalars, lambda: mala(0.5), {"data": X, "thin": 3}),
    "a prior, without adaptation": (scalars, lambda: langevin(0.3), {"n_warmup": 0}),
    "tempered": (scalars, lambda: parallel_tempering(hmc(2, 0.3), (0.0, 1.0)), {"data": X}),
    "a global latent": (hierarchy, lambda: hmc(2), {"data": X, "extra_fields": ("z",)}),
}


@pytest.fixture(params=BACKENDS, scope="module")
def programs(request):
    return {make: make(request.param) for make in (scalars, hierarchy)}


def caller(programs, case):
    make, kernel, settings = CALLS[case]
    whole = {"n_chains": 2, "n_warmup": 12, **settings}
    return lambda n_draws, **more: pplebm.sample(programs[make], kernel(), n_draws=n_draws, **whole, **more)


def assert_same(draws, others):
    for kind in ("latents", "values", "stats"):
        ours, theirs = getattr(draws, kind), getattr(others, kind)
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("case", CALLS)
def test_extended_equals_uninterrupted(programs, case, monkeypatch):
    """From inside, the end and the start of a block, and twice; what was given stays as it was."""
    monkeypatch.setattr(sampling, "BASE_WINDOW", 6)
    monkeypatch.setattr(sampling, "DRAWS_PER_BLOCK", 6)
    call = caller(programs, case)
    whole = call(17)
    for cut in (1, 6, 10):
        first = call(cut)
        before = {name: a.copy() for name, a in first.values.items()}
        assert_same(call(17, resume=call(13, resume=first)), whole)
        assert first.n_draws == cut
        for name, a in before.items():
            np.testing.assert_array_equal(first[name], a)
            np.testing.assert_array_equal(whole[name][:, :cut], a)


def test_an_extension_has_no_warm_up(programs, monkeypatch):
    call = caller(programs, "posteriors")
    first, blocks, advance = call(5), [], sampling.Job.advance
    monkeypatch.setattr(
        sampling.Job, "advance", lambda job, draws, block: (blocks.append(block), advance(job, draws, block))
    )
    call(9, resume=first)
    assert [block.n_draws for block in blocks] == [4]


def test_extended_from_a_file(programs, tmp_path):
    call = caller(programs, "thinned")
    call(5).save(tmp_path / "draws.safetensors")
    assert_same(call(9, resume=tmp_path / "draws.safetensors"), call(9))


def test_draws_do_not_depend_on_how_many_fit_into_memory(programs, monkeypatch):
    call = caller(programs, "thinned")
    whole = call(60)
    monkeypatch.setattr(sampling, "NUMBERS_PER_BLOCK", 100)
    assert_same(call(60), whole)


def test_fewer_draws_than_there_are_is_refused(programs):
    call = caller(programs, "posteriors")
    with pytest.raises(PplebmError, match=r"5 draws of each chain already.*n_draws=5 or more"):
        call(4, resume=call(5))
