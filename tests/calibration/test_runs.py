"""Calibration of runs: by what learning does and by chains, on the command line and in the report."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

import pplebm
from pplebm import report
from pplebm.cli import main
from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.report import page
from pplebm.runs import files
from pplebm.runs.calibrate import calibrate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose posterior chains are far too short."""
    data = np.random.default_rng(0).normal(size=(60, 3))
    folder = tmp_path_factory.mktemp("fitted") / "run"
    short = {"batch_size": 16, "n_steps_prior": 3, "n_steps_posterior": 1}
    return pplebm.fit("conjugate_tilt", data, "short_run_mle", out=folder, updates=1, hyper=short)


def test_what_learning_does_is_told_from_chains_and_stands_in_the_report(run, monkeypatch):
    monkeypatch.setattr(page, "DPI", 40)
    result = CliRunner().invoke(main, ["calibrate", str(run.path), "--replications", "100"])
    assert result.exit_code == 0, result.output
    first, second = result.output.split("posteriors by ")[1:]
    assert first.startswith("learning's own inference: 100 replications, 100 draws of each")
    assert "are not uniform" in first and "chi² p" in first
    assert second.startswith("adjusted chains") and "are uniform as far as 100 replications tell" in second
    text = (run.path / files.REPORT).read_text()
    assert 'href="#calibration"' in text and text.count("ECDF of ranks") == 2 and "are not uniform" in text
    kept = run.path / files.CALIBRATION
    assert kept.read_text().startswith("<!-- after 1 updates -->")
    kept.write_text(kept.read_text().replace("after 1 updates", "after 99 updates"))
    assert "ECDF of ranks" not in report.write(run).read_text(), "a section of another state is left out"


def test_a_run_gives_arviz_its_evidence(run):
    x = np.random.default_rng(1).normal(size=(4, 3))
    evidence = Evidence.of("ais", [-1.0, -2.0, -3.0, -4.0], [0.1] * 4)
    tree = run.to_arviz(x, evidence=evidence, n_chains=2, n_draws=4, n_warmup=20)
    np.testing.assert_array_equal(tree["log_likelihood"]["x"].values[1, 3], evidence.value)


def test_a_way_that_is_not_known_is_refused(run):
    with pytest.raises(PplebmError, match="'guess' is no way of inference; choose among learning, chains"):
        calibrate(run, ways=("guess",))
