"""Runs that learn from all rows and hold out none."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from click.testing import CliRunner

import pplebm
from pplebm import data as datasets
from pplebm import report
from pplebm.cli import main
from pplebm.errors import PplebmError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of a file, so that its data are found again."""
    folder = tmp_path_factory.mktemp("all")
    np.save(folder / "x.npy", tiny.data())
    return pplebm.fit(
        "conjugate_tilt", folder / "x.npy", "short_run_mle", folder / "run", updates=2, hyper=tiny.FEW, compiled=False,
        held_out_fraction=0, progress=False,
    )  # fmt: skip


def test_every_row_is_learned_from(run):
    assert (run.manifest.data.n_train, run.manifest.data.n_held_out) == (40, 0)
    train = run.load().train
    assert sorted(map(tuple, train.round(4))) == sorted(map(tuple, run.scaling.to_model(tiny.data()).round(4)))
    assert not any("held_out_error" in row for row in run.metrics)


def test_it_goes_on_and_opens_again(run):
    before = {name: p.clone() for name, p in run.params.items()}
    on = pplebm.fit("conjugate_tilt", run.manifest.settings.data_path, out=run.path, resume=True, updates=3)
    assert on.manifest.updates == 3 and on.manifest.data.n_held_out == 0
    assert any((before[name] != p).any() for name, p in pplebm.open_run(run.path).params.items())


def test_the_report_says_what_is_left_out(run):
    assert "learned from all rows" in report.write(run).read_text()


@pytest.mark.parametrize("command", [["evaluate"], ["diagnose", "--chains", "4", "--draws", "20"]])
def test_what_needs_rows_that_were_held_out_is_refused(run, command):
    told = CliRunner().invoke(main, [command[0], str(run.path), *command[1:]])
    assert told.exit_code == 2 and "no rows of 'x.npy' were held out" in told.output
    with pytest.raises(PplebmError, match="give data that the run did not learn from"):
        run.held_out()


def test_patience_and_fractions_that_are_none_are_refused(tmp_path):
    with pytest.raises(PplebmError, match="patience looks at held-out rows"):
        tiny.fit(tmp_path / "a", held_out_fraction=0, patience=2)
    for wrong in (1.0, -0.1, float("nan"), "all"):
        with pytest.raises(PplebmError, match=r"held_out_fraction must lie in \[0, 1\)"):
            tiny.fit(tmp_path / "b", held_out_fraction=wrong)


def test_a_source_with_a_part_of_its_own_keeps_it(tmp_path):
    x = tiny.data()
    np.savez(tmp_path / "x.npz", train=x[:30], held_out=x[30:])
    found = datasets.load(tmp_path / "x.npz", held_out_fraction=0)
    assert (found.n_train, found.n_held_out) == (30, 10)
