"""The report of a run: one page, `report.html`, that reads in a browser and on a phone.

`gathered` draws from a run, as arrays, all that the page shows. `metrics`, `tables`, `figures`, `scatter`, `layers`
and `captions` turn them into numbers, pictures and sentences, and `page` joins these with the command of `reproduce`.
`pictures` draws one of them by itself, for `pplebm picture`.
`diagnosis` makes the section that `pplebm diagnose` adds. Nothing flows back: a report changes no run.
"""

from __future__ import annotations

from pathlib import Path

from pplebm.data import Source
from pplebm.report.diagnosis import section
from pplebm.report.gathered import gather
from pplebm.report.page import html
from pplebm.runs import files
from pplebm.runs.run import Run
from pplebm.runs.short_run_bias import Comparison

__all__ = ["keep_diagnosis", "write"]


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
    target, kept, diagnosis = run.path / files.REPORT, run.path / files.DIAGNOSIS, ""
    if kept.is_file() and kept.read_text().startswith(_mark(run)):  # not of an earlier state of the run
        diagnosis = kept.read_text()
    files.write_whole(target, html(gather(run, data), diagnosis))
    return target


def keep_diagnosis(run: Run, found: list[Comparison]) -> None:
    """Keep what `short_run_bias` found as a section of every report of the run as it is now."""
    files.write_whole(run.path / files.DIAGNOSIS, section(found, run.manifest.updates))


def _mark(run: Run) -> str:
    return f"<!-- after {run.manifest.updates} updates -->"
