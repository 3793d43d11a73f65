"""The parts of the page that are words and numbers: header and table of figures."""

from __future__ import annotations

import html as markup
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pplebm.report import figures
from pplebm.report.gathered import N_BASE, Material
from pplebm.report.metrics import METRICS, is_shown
from pplebm.runs.long_run import MIN_BASE_ESS
from pplebm.runs.manifest import Manifest, PageEntry
from pplebm.sampling.importance import effective_size, weighted_mean

TILT_WORDS = (
    "<dfn>Tilted prior</dfn>: the law of the latents z of the model, p(z) ∝ e<sup>f(z)</sup> p₀(z).",
    "<dfn>Base</dfn>: p₀, the law of the latents of the program without its <dfn>tilt</dfn> f.",
    "<dfn>Positive</dfn> samples and chains are of the posterior p(z|x) of data, <dfn>negative</dfn> ones of the "
    "tilted prior; learning compares the two.",
)
NONCENTERED = (
    "<dfn>Noncentered coordinates</dfn> of a latent: the number, standard normal under the base, whose product with "
    "the scale is added to the mean given its parents.",
)


class Row(NamedTuple):
    """A figure: its name, its value, one line on how to read it, and the metric it is a mean of."""

    name: str
    value: str
    line: str
    metric: str = ""


def number(value: float, error: float | None = None) -> str:
    """A number with sensible digits; with a standard error, to two digits of the error.

    >>> number(1.23456), number(-1234.5), number(0.5, 0.0123), number(12.0, float("nan"))
    ('1.23', '−1,234', '0.500 ± 0.012', '12')
    """
    if not math.isfinite(value):
        return "not finite"
    if error is not None and math.isfinite(error) and error > 0:
        digits = max(0, 1 - math.floor(math.log10(error)))
        return f"{value:.{digits}f} ± {error:.{digits}f}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(7.26), duration(135), duration(7500)
    ('7.3 s', '2 min 15 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


# --- header


def header(m: Material) -> str:
    """Model, algorithm, data and settings of the run, and what differs from the papers."""
    run, entry = m.run.manifest, m.run.manifest.data
    shape = " × ".join(map(str, entry.event_shape))
    shape = f"{shape} columns" if len(entry.event_shape) == 1 else f"each {shape}"
    if not entry.event_shape:
        named = [f"{name} {tuple(shape)}" if shape else name for name, shape in entry.shapes.items() if name]
        shape = ", ".join(named) or "a number each"
    sizes = f"{entry.n_train:,} for learning, {entry.n_held_out:,} held out, {shape}"
    updates = f"{run.updates:,}"
    if run.updates < (target := target_of(run)):
        updates += f" of {target:,}: learning was stopped early"
    facts: list[tuple[str, str]] = [
        ("Model", _cited(run.model)),
        ("Algorithm", _cited(run.inference)),
        ("Data", f"<strong>{_e(entry.name)}</strong> {sizes}"),
        ("Seed", str(run.settings.seed)),
        ("Updates", updates),
        ("Time", duration(m.rows[-1]["seconds"]) if m.rows and "seconds" in m.rows[-1] else "not known"),
    ]
    deviations = [*run.model.deviations, *run.inference.deviations]
    words = TILT_WORDS * (m.prior is not None) + NONCENTERED * any("oncentered" in sentence for sentence in deviations)
    if words:
        facts.append(("Words", _items(words)))
    if entry.notes:
        facts.append(("On the data", _list(entry.notes)))
    for whose, page in (("Model", run.model), ("Algorithm", run.inference)):
        if page.deviations:
            facts.append((f"{whose}: differs from the paper", _list(page.deviations)))
    if run.rollbacks:
        told = [f"update {r.update}: {r.reason}; went back to update {r.to}" for r in run.rollbacks]
        facts.append(("Roll-backs", _list(told[:20] + [f"and {len(told) - 20} more"] * (len(told) > 20))))
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts) + "</dl>"


def target_of(run: Manifest) -> int:
    """Updates the run was to take."""
    return int(run.inference.hyper["updates"])


def _cited(entry: PageEntry) -> str:
    paper = f' <span class="soft">{_e(entry.paper)}</span>' if entry.paper else ""
    return f"<strong>{_e(entry.name)}</strong>{paper}"


def _list(sentences: Iterable[Any]) -> str:
    return _items(_e(str(s)) for s in sentences)


def _items(parts: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{part}</li>" for part in parts) + "</ul>"


def _e(text: str) -> str:
    return markup.escape(text)


# --- tables


def reflowing(kind: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells in HTML, whose rows become blocks on a narrow screen, each cell below the name of its column."""
    top = "".join(f"<th>{_e(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-column="{_e(name)}">{cell}</td>' for name, cell in zip(head, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<table class="reflow {kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def figures_table(m: Material) -> str:
    """Numbers that sum up the run, each with a line on how to read it."""
    rows = [*_learning_rows(m), *_held_rows(m), *_tilt_rows(m), _size_row(m)]
    cells = [
        (_e(row.name) + (f" <code>{row.metric}</code>" if row.metric else ""), _e(row.value), _e(row.line))
        for row in rows
    ]
    return (
        reflowing("figures", ("Figure", "Value", "How to read it"), cells)
        + '<p class="soft">“±” is one standard error over draws. Figures with the name of a metric are its mean over '
        "the last tenth of the logged updates. A nat is the unit of natural logarithms.</p>"
    )


def _late(m: Material, name: str) -> float | None:
    """Mean of a column over the last tenth of the rows."""
    values = figures.column(m.rows[-max(1, len(m.rows) // 10) :], name)[1]
    return float(values.mean()) if len(values) else None


def _learning_rows(m: Material) -> list[Row]:
    rows = []
    for column, metric in METRICS.items():
        value = _late(m, column)
        if value is None or not metric.sentence or not is_shown(column, m.prior is not None):
            continue
        text = f"{100 * value:.3g} %" if metric.is_share else number(value)
        rows.append(Row(metric.name, text, metric.sentence, column))
    return rows


def _held_rows(m: Material) -> list[Row]:
    rows: list[Row] = []
    held, name = m.held, "Held-out reconstruction error"
    if held is not None and held.error is not None:
        share = f" ({100 * held.error.mean() / held.spread:.0f} %)" if held.spread > 0 else ""
        line = "Mean squared, model units, at one posterior draw per datum; in brackets: share of the data's variance."
        rows.append(Row(name, number(*_mean(held.error)) + share, line))
    elif (last := figures.column(m.rows, "held_out_error")[1]).size:
        line = "Mean squared, in the model's units, when it was last measured in learning."
        rows.append(Row(name, number(float(last[-1])), line, "held_out_error"))
    line = "Mean of log p(x|z) at posterior draws, nats per datum. It leaves out the prior."
    if held is not None and held.log_likelihood is not None:
        rows.append(Row("Held-out log-likelihood given latents", number(*_mean(held.log_likelihood)), line))
    if (late := _late(m, "log_likelihood")) is not None:
        line = "The same for batches in learning. Far above the held-out value: overfitting." if rows else line
        rows.append(Row("Log-likelihood given latents", number(late), line, "log_likelihood"))
    return rows


def _tilt_rows(m: Material) -> list[Row]:
    if m.prior is None:
        line = "The model is its base: prior draws are exact and there is no constant to estimate."
        return [Row("Tilt", "none", line)]
    line = "By the chains of learning; should be near the lines below, up to their errors."
    rows = [
        Row("Mean tilt of base draws, nats", number(*_mean(m.base.tilt)), "Where the base alone puts its latents."),
        Row("Mean tilt of tilted prior draws", number(*_mean(m.prior.tilt)), line),
    ]
    size = effective_size(m.base.tilt)
    if size > MIN_BASE_ESS:
        value = number(*weighted_mean(m.base.tilt, m.base.tilt))
        line = "Base draws with weights e^f. Needs no chain; a difference shows how far chains are off."
        rows.append(Row("The same, reweighted base draws", value, line))
    if m.held is not None:
        line = "Held-out data. The difference from the tilted prior is the tilt gap on new data; good: small."
        rows.append(Row("Mean tilt of posterior draws", number(*_mean(m.held.draws.tilt)), line))
    line = (
        "How many independent draws of the tilted prior the base draws with weights e^f are worth. "
        "Below 1 %: the two are far apart."
    )
    text = f"{number(size)} of {N_BASE:,} ({number(100 * size / N_BASE)} %)"
    return [*rows, Row("Effective sample size of the base", text, line)]


def _size_row(m: Material) -> Row:
    sizes = {name: int(np.prod(a.shape)) for name, a in m.run.params.items()}
    tilt = sum(size for name, size in sizes.items() if name in m.run.program.tilt_params)
    return Row("Parameters", f"{sum(sizes.values()):,}, of which tilt {tilt:,}", "Numbers that learning adjusts.")


def _mean(values: np.ndarray) -> tuple[float, float | None]:
    """Mean and its standard error over the finite values."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return (float(finite[0]) if len(finite) else math.nan), None
    return float(finite.mean(dtype=float)), float(finite.std(ddof=1, dtype=float) / len(finite) ** 0.5)
