"""More data than run at once: batches that know nothing of one another."""

from __future__ import annotations

import numpy as np
import pytest
from conjugate import BACKENDS, hierarchy, scalars

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.kernels.mala import mala
from pplebm.sampling import job as sampling
from pplebm.sampling.wide import batch_rows

X = np.array([28.0, 8.0, -3.0, 7.0, 1.0], np.float32)
SETTINGS = {"n_chains": 2, "n_warmup": 12, "n_draws": 8, "rows_at_once": 4}  # batches of 2, 2 and 1 data


@pytest.fixture(params=BACKENDS, scope="module")
def program(request):
    return scalars(request.param)


@pytest.fixture(scope="module")
def whole(program):
    return pplebm.sample(program, mala(), X, **SETTINGS)


def assert_same(draws, others):
    np.testing.assert_array_equal(draws["z"], others["z"])
    np.testing.assert_array_equal(draws.stats["energy"], others.stats["energy"])


def test_the_first_batch_is_a_call_of_its_own(program, whole):
    assert whole["z"].shape == (2, 8, 5) == whole.stats["log_density"].shape
    alone = pplebm.sample(program, mala(), X[:2], **SETTINGS)
    np.testing.assert_array_equal(whole["z"][:, :, :2], alone["z"])


def test_no_draw_depends_on_data_of_another_batch(program, whole):
    other = pplebm.sample(program, mala(), X + np.array([9.0, 9.0, 0.0, 0.0, 9.0], np.float32), **SETTINGS)
    np.testing.assert_array_equal(whole["z"][:, :, 2:4], other["z"][:, :, 2:4])
    assert (whole["z"] != other["z"])[:, :, [0, 1, 4]].all()


def test_batches_have_noise_of_their_own(program):
    """The same datum everywhere: no two chains are alike."""
    draws = pplebm.sample(program, mala(), np.zeros(6, np.float32), **SETTINGS)
    assert len(np.unique(draws["z"][:, -1])) == 12


def test_draws_of_every_batch_follow_the_posterior(program):
    """N(x/2, 1/2) of every datum, seen by 200 chains."""
    draws = pplebm.sample(program, mala(), X, n_chains=200, n_draws=20, n_warmup=100, rows_at_once=400)
    by_chain = draws["z"].mean(1)
    assert (np.abs(by_chain.mean(0) - X / 2) < 5 * by_chain.std(0, ddof=1) / np.sqrt(200)).all()


def test_extended_in_batches(program, whole):
    first = pplebm.sample(program, mala(), X, **SETTINGS | {"n_draws": 3})
    assert_same(pplebm.sample(program, mala(), X, resume=first, **SETTINGS), whole)


@pytest.mark.parametrize("where", [1, 4], ids=["in warm-up", "in the draws"])
def test_interrupted_between_batches(program, whole, where, monkeypatch, tmp_path):
    """What batches have done of a block is not done again; a file begins with the block."""
    advance, done = sampling.Job.advance, []

    def stopped(job, draws, block):
        if len(done) == where:
            raise KeyboardInterrupt
        done.append(block)
        advance(job, draws, block)

    monkeypatch.setattr(sampling.Job, "advance", stopped)
    with pytest.warns(PplebmWarning, match="resume="):
        part = pplebm.sample(program, mala(), X, **SETTINGS)
    part.save(tmp_path / "draws.safetensors")
    where = 99
    assert_same(pplebm.sample(program, mala(), X, resume=part, **SETTINGS), whole)
    assert len(done) == 6  # a block of warm-up and one of draws, of three batches
    assert_same(pplebm.sample(program, mala(), X, resume=tmp_path / "draws.safetensors", **SETTINGS), whole)


def test_given_starts_of_every_batch(program):
    """Of the prior, where chains that cannot move stay."""
    start = {"z": program.ppl.asarray(np.arange(10.0, dtype=np.float32))}
    draws = pplebm.sample(program, mala(1e-6), X, init=start, **SETTINGS | {"n_warmup": 0})
    np.testing.assert_allclose(draws["z"][:, 0], np.arange(10.0).reshape(2, 5), atol=1e-3)


def test_the_bar_says_which_batch(program, capsys):
    pplebm.sample(program, mala(), X, progress=True, **SETTINGS)
    assert "draws, data 2 of 3" in capsys.readouterr().err


def test_by_default_what_is_held_at_once_is_bounded(program):
    x = program.data(np.zeros(100, np.float32))
    assert batch_rows(program, x, 4, 100, None) == 400
    assert batch_rows(program, x, 4, 10**8, None) == 8_000_000  # of one latent and one number each
    assert batch_rows(program, x, 4, 100, 403) == 400 == batch_rows(program, x, 4, 100, 10**9)


def test_what_cannot_be_split_is_refused(program):
    joint = hierarchy(program.ppl.name)
    for call, words in (
        (lambda: pplebm.sample(joint, data=X[:4], n_chains=4, rows_at_once=2), "the one posterior.*adapt together"),
        (lambda: pplebm.sample(program, n_chains=4, rows_at_once=2), "give 4 or more"),
        (lambda: pplebm.sample(program, data=X, n_chains=4, rows_at_once=3), "chains of a datum"),
        (lambda: pplebm.sample(program, data=X, rows_at_once=0), "rows_at_once must be"),
        (lambda: pplebm.sample(program, data=X, rows_at_once=8, init={"z": program.ppl.asarray(X)}), "given start"),
    ):
        with pytest.raises(PplebmError, match=words):
            call()
