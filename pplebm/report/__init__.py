"""The report of a run: one page, `report.html`, that reads in a browser and on a phone.

`gathered` draws from a run, as arrays, all that the page shows. `metrics`, `tables`, `figures`, `scatter`, `layers`
and `captions` turn them into numbers, pictures and sentences, and `page` joins these with the command of `reproduce`.
`pictures` draws one of them by itself, for `pplebm picture`. `evaluation`, `estimates`, `diagnosis` and `calibration`
make the sections that the commands `evaluate`, `estimates`, `diagnose` and `calibrate` add. Nothing flows back: a
report changes no run.
"""

from __future__ import annotations

from pathlib import Path

from pplebm.calibration.sbc import Calibration
from pplebm.data import Source
from pplebm.estimation.table import Estimates
from pplebm.report.calibration import section as calibration_section
from pplebm.report.diagnosis import section
from pplebm.report.estimates import section as estimates_section
from pplebm.report.evaluation import section as evaluation_section
from pplebm.report.gathered import gather
from pplebm.report.page import html
from pplebm.runs import files
from pplebm.runs.evaluate import Row
from pplebm.runs.run import Run
from pplebm.runs.short_run_bias import Comparison

__all__ = ["keep_calibration", "keep_diagnosis", "keep_estimates", "keep_evaluation", "write"]


def write(run: Run, data: Source | None = None) -> Path:
    """Write `report.html` into the run's folder, whole or not at all, and return its path.

    The page stands alone: pictures are part of it, and it links to nothing. It is the same every time.

    Args:
        run: what `pplebm.fit` returned or `pplebm.open_run` opened.
        data: what the run learned from, in any form that `pplebm.fit` takes; a named data set is found by itself.
            Without data the parts that need them are left out, and the page says so.

    Raises:
        PplebmError: if the data given have another shape than those the run learned from.

    Example:
        >>> import tempfile, numpy, pplebm
        >>> data = numpy.random.default_rng(0).normal(size=(60, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     short = {"batch_size": 8, "n_steps_prior": 2}
        ...     run = pplebm.fit("conjugate_tilt", data, out=f"{folder}/run", updates=1, hyper=short)
        ...     write(run).name
        'report.html'
    """
    target = run.path / files.REPORT
    sections = {
        "Evidence": files.EVALUATION,
        "Estimates": files.ESTIMATES,
        "Long chains and short runs": files.DIAGNOSIS,
        "Calibration": files.CALIBRATION,
    }
    files.write_whole(target, html(gather(run, data), {name: _kept(run, file) for name, file in sections.items()}))
    return target


def keep_diagnosis(run: Run, found: list[Comparison]) -> None:
    """Keep what `short_run_bias` found as a section of every report of the run as it is now."""
    files.write_whole(run.path / files.DIAGNOSIS, section(found, run.manifest.updates))


def keep_calibration(run: Run, found: list[Calibration]) -> None:
    """Keep what calibration by simulation found, by ways of inference, as a section of every report of the run."""
    files.write_whole(run.path / files.CALIBRATION, _mark(run) + calibration_section(found))


def keep_evaluation(run: Run, rows: list[Row]) -> None:
    """Keep the evidence of a run, its base and its twin as a section of every report of the run as it is now."""
    files.write_whole(run.path / files.EVALUATION, _mark(run) + evaluation_section(rows))


def keep_estimates(run: Run, found: Estimates) -> None:
    """Keep estimates and their standard errors as a section of every report of the run as it is now."""
    files.write_whole(run.path / files.ESTIMATES, _mark(run) + estimates_section(found))


def _kept(run: Run, name: str) -> str:
    """A section that was kept, unless it is of an earlier state of the run."""
    kept = run.path / name
    text = kept.read_text() if kept.is_file() else ""
    return text if text.startswith(_mark(run)) else ""


def _mark(run: Run) -> str:
    return f"<!-- after {run.manifest.updates} updates -->"
