"""The section of a report that `pplebm calibrate` writes: tables, bands and rank plots."""

from __future__ import annotations

import html as markup
from collections.abc import Iterator

from pplebm.calibration.sbc import Calibration
from pplebm.report import captions
from pplebm.report.figures import styled
from pplebm.report.page import picture
from pplebm.report.tables import reflowing

N_ROWS = 12  # quantities of a table: those that look worst


def section(found: list[Calibration]) -> str:
    """The whole section, a part for every way of inference."""
    parts = "".join("".join(_way(one)) for one in found)
    return f'<section id="calibration"><h2>Calibration</h2>{parts}</section>'


def sentences(found: Calibration) -> list[str]:
    """The verdict, or that nothing was found."""
    return found.verdict or [
        f"Ranks of all {len(found.ranks)} quantities are uniform as far as {found.n_replications} replications tell."
    ]


def _way(found: Calibration) -> Iterator[str]:
    yield f"<h3>Posteriors by {markup.escape(found.method)}</h3>"
    yield "<ul>" + "".join(f"<li>{markup.escape(s)}</li>" for s in sentences(found)) + "</ul>"
    head, *rows = found.table()
    yield reflowing("scalars", head, [[markup.escape(cell) for cell in row] for row in rows[:N_ROWS]])
    yield picture(captions.ECDF, "ECDF of ranks", [styled(found.ecdf_figure)()])
    yield picture(captions.CALIBRATION, "histogram of ranks", [styled(found.rank_figure)()])
