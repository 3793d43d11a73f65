"""Evidence of a run: right in its units, kept in the folder, gone on with, and told by the command line."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

import pplebm
from pplebm.cli import main
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.evidence import annealed, estimators
from pplebm.runs.evaluate import compared, evaluate, lines
from pplebm.runs.evidence import bits_per_dimension

X = np.random.default_rng(0).normal(2.0, 3.0, size=(160, 4))
SMALL = {"n_particles": 32}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The conjugate page after a few updates on data in units of their own."""
    folder = tmp_path_factory.mktemp("run") / "a"
    return pplebm.fit("conjugate_tilt", X, "persistent_mle", backend="numpyro", updates=3, out=folder, progress=False)


def closed_form(run, x):
    """log Z, and log p(x) in model units."""
    page = pplebm.load("conjugate_tilt")
    values = {name: run.program.ppl.to_numpy(a) for name, a in run.params.items()}
    hyper, rows = page.Hyper(), run.program.ppl.to_numpy(run.data(x))
    constant = page.closed_form(values, hyper).log_constant
    return constant, np.array([page.closed_form(values, hyper, row).log_constant for row in rows]) - constant


def test_evidence_of_a_run_is_that_of_its_parameters(run):
    constant, exact = closed_form(run, X[:5])
    assert abs(run.log_z().value[0] - constant) < 4 * run.log_z().error[0] < 0.4
    found = run.log_evidence(X[:5])
    assert (abs(found.value - exact) < 4.5 * found.error).all() and found.error.max() < 0.5
    width = np.log(2.0) * 4
    in_user_units = -(exact.mean() + run.log_jacobian) / width
    assert bits_per_dimension(run, exact.mean()) == pytest.approx(in_user_units)
    assert run.log_jacobian == pytest.approx(-np.log(X[:128].std(0)).sum(), abs=0.5)  # columns are standardised


def test_what_is_done_is_kept_and_gone_on_with(run, monkeypatch):
    """An interruption after two of three batches: the same call does the third alone, with the same numbers."""
    seeds, estimator = [], estimators.METHODS["ais"].estimate

    def counting(*args, **settings):
        seeds.append(settings["seed"])
        if len(seeds) == 3:
            raise KeyboardInterrupt
        return estimator(*args, **settings)

    settings = {**SMALL, "rows_at_once": 64, "seed": 7, "base": True}
    whole = pplebm.log_evidence(run.program, run.data(X[:6]), params=run.params, **settings)
    monkeypatch.setitem(estimators.METHODS, "ais", estimators.METHODS["ais"]._replace(estimate=counting))
    with pytest.raises(KeyboardInterrupt):
        run.log_evidence(X[:6], **settings)
    found = run.log_evidence(X[:6], **settings)
    assert len(seeds) == 4 and seeds[2] == seeds[3]
    np.testing.assert_array_equal(found.value, whole.value)
    again = run.log_evidence(X[:6], **settings)
    assert len(seeds) == 4
    np.testing.assert_array_equal(again.error, found.error)
    run.log_evidence(X[:6] + 1e-3, **settings)
    assert len(seeds) == 7  # other data are other numbers


def test_a_damaged_file_is_estimated_again(run):
    first = run.log_z(seed=5)
    for file in (run.path / "evidence").glob("log_z-*.npz"):
        file.write_bytes(file.read_bytes()[:50])
    np.testing.assert_array_equal(run.log_z(seed=5).value, first.value)


def test_log_z_of_other_parameters_is_not_taken(run):
    other = pplebm.open_run(run.path)
    other.params = {name: 1.5 * a for name, a in other.params.items()}
    assert abs(other.log_z().value[0] - run.log_z().value[0]) > 0.05


def test_the_table_compares_on_the_same_data(run):
    rows = evaluate(run, X[:8], **SMALL)
    assert [row.model for row in rows] == ["tilted model", "its base"]
    _, exact = closed_form(run, X[:8])
    assert abs(rows[0].mean - exact.mean()) < 4 * rows[0].error
    difference = rows[1].evidence.value - rows[0].evidence.value
    assert rows[1].difference == pytest.approx(difference.mean())
    own = difference.std(ddof=1) / 8**0.5
    assert rows[1].difference_error == pytest.approx(np.hypot(own, rows[0].evidence.common_error))
    kept = json.loads((run.path / "evaluation.json").read_text())
    assert kept[0]["mean"] == pytest.approx(rows[0].mean) and kept[1]["log_z"] == 0.0
    assert len(lines(rows)) == 2 and compared(rows[0].evidence, rows[0].evidence) == (0.0, 0.0)


def test_a_twin_in_other_units_is_refused(run, tmp_path):
    other = pplebm.fit("conjugate_tilt", 10 * X, "persistent_mle", backend="numpyro", updates=1, out=tmp_path / "b",
                       progress=False)  # fmt: skip
    with pytest.raises(PplebmError, match="other units"):
        evaluate(run, X[:3], other, **SMALL)


def test_a_row_that_cannot_be_trusted_is_told(run, monkeypatch):
    monkeypatch.setattr(annealed, "GOOD_K_HAT", 0.0)
    with pytest.warns(PplebmWarning, match=r"of \d+ of 12 data .* is NaN; the first of them"):
        found = pplebm.log_evidence(run.program, run.data(X[:12]), params=run.params, base=True, **SMALL)
    assert np.isnan(found.value[~found.is_trusted]).all() and np.isnan(found.mean)
    with pytest.raises(PplebmError, match="cannot be trusted: k-hat"):
        monkeypatch.setattr(annealed, "GOOD_K_HAT", -np.inf)
        pplebm.log_evidence(run.program, run.data(X[:2]), params=run.params, base=True, **SMALL)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"method": "magic"}, "choose one of ais, smc"), ({"n_particles": 3}, "from 16 on"), ({"n_particles": 2.5}, "16")],
)
def test_slips_are_told(run, settings, sentence):
    with pytest.raises(PplebmError, match=sentence):
        run.log_z(**settings)


def test_the_command_prints_a_table_and_writes_a_file(run, tmp_path):
    np.save(tmp_path / "x.npy", X[:5])
    out = tmp_path / "scores.csv"
    arguments = ["evaluate", str(run.path), "--data", str(tmp_path / "x.npy"), "--particles", "32", "--out", str(out)]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 0, told.output
    assert "log p(x) of 5 data by annealed importance sampling" in told.output and "its base" in told.output
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0][:3] == ["index", "tilted model log p(x)", "tilted model error"] and len(rows) == 6
    told = CliRunner().invoke(main, ["evaluate", str(run.path)])
    assert told.exit_code == 2 and "give --data" in told.output
