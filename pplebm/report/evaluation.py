"""The section of a report that `pplebm evaluate` writes: evidence of the model, its base and its twin."""

from __future__ import annotations

import html as markup

from pplebm.report import captions
from pplebm.report.tables import reflowing
from pplebm.runs.evaluate import HEAD, Row, lines


def section(rows: list[Row]) -> str:
    """The whole section."""
    first = rows[0].evidence
    told = f"{len(first)} data, by {markup.escape(first.method)}; nats per datum in model units."
    table = reflowing("scalars", HEAD, [[markup.escape(cell) for cell in row] for row in lines(rows)])
    return f'<section id="evidence"><h2>Evidence</h2><p>{told}</p>{table}<p>{captions.EVALUATION}</p></section>'
