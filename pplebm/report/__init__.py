"""One page about a run, `report.html`: figures, curves, samples, chains and latents, to be read in a browser."""

from __future__ import annotations

from pathlib import Path

from pplebm import folder as files
from pplebm.data import Source
from pplebm.report.gathered import gather
from pplebm.report.page import html
from pplebm.runs import Run

__all__ = ["write"]


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
        ...     run = pplebm.fit("conjugate_tilt", data, out=f"{folder}/run", steps=1, hyper=short)
        ...     write(run).name
        'report.html'
    """
    target = run.path / files.REPORT
    files.write_whole(target, html(gather(run, data)))
    return target
