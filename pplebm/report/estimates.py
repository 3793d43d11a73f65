"""The section of a report that `pplebm estimates` writes: estimates, their standard errors, and what they rest on."""

from __future__ import annotations

import html as markup

from pplebm.estimation.table import Estimates
from pplebm.report import captions
from pplebm.report.tables import reflowing


def section(found: Estimates) -> str:
    """The whole section."""
    head, *rows = found.lines()
    table = reflowing("scalars", head, [[markup.escape(cell) for cell in row] for row in rows])
    told = " ".join(markup.escape(sentence) for sentence in found.sentences())
    return f'<section id="estimates"><h2>Estimates</h2>{table}<p>{told}</p><p>{captions.ESTIMATES}</p></section>'
