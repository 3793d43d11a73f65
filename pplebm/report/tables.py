"""The parts of the page that are words and numbers: header and table of figures."""

from __future__ import annotations

import html as markup
import math
from typing import Any

import numpy as np

from pplebm.report import figures
from pplebm.report.gathered import N_BASE, Material, effective_size, reweighted
from pplebm.runs.manifest import Manifest, PageEntry

OF_TILT = {"tilt_gap", "tilt_positive", "tilt_negative", "grad_norm_tilt", "divergent_negative", "tamed_negative"}

Row = tuple[str, str, str]  # name, value, one line of explanation


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
    """What was learned, from what, how, and what differs from the papers."""
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
        (
            "Data",
            f"<strong>{_e(entry.name)}</strong> {sizes}",
        ),
        ("Seed", str(run.settings.seed)),
        ("Updates", updates),
        ("Time", duration(m.rows[-1]["seconds"]) if m.rows and "seconds" in m.rows[-1] else "not known"),
    ]
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


def _list(sentences: Any) -> str:
    return "<ul>" + "".join(f"<li>{_e(str(s))}</li>" for s in sentences) + "</ul>"


def _e(text: str) -> str:
    return markup.escape(text)


# --- table of figures


def figures_table(m: Material) -> str:
    """Numbers that sum up the run, each with a line on how to read it."""
    rows = [*_learning_rows(m), *_held_rows(m), *_tilt_rows(m), _size_row(m)]
    body = "".join(f"<tr><td>{_e(name)}</td><td>{_e(value)}</td><td>{_e(line)}</td></tr>" for name, value, line in rows)
    return (
        "<table><thead><tr><th>Figure</th><th>Value</th><th>How to read it</th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
        '<p class="soft">“±” is one standard error over draws. “During learning” is the mean of the last tenth of the '
        "logged updates.</p>"
    )


def _late(m: Material, name: str) -> float | None:
    """Mean of a column over the last tenth of the rows."""
    values = figures.column(m.rows[-max(1, len(m.rows) // 10) :], name)[1]
    return float(values.mean()) if len(values) else None


def _learning_rows(m: Material) -> list[Row]:
    names = [
        (
            "tilt_gap",
            "Energy gap during learning, nats",
            "Mean tilt of positive less negative samples. Good: small, level. Growth without end: chains lag behind.",
        ),
        (
            "grad_norm",
            "Gradient norm during learning",
            "Of all parameters, before any clipping; good: level, not growing.",
        ),
        ("grad_norm_tilt", "Gradient norm of the tilt", "Near zero from the start on: the tilt learns nothing."),
        (
            "divergent_positive",
            "Divergent posterior chains",
            "Share of chains with a step that is not finite; good: 0 %.",
        ),
        ("divergent_negative", "Divergent prior chains", "The same for chains of the tilted prior; good: 0 %."),
        (
            "tamed_positive",
            "Shortened posterior steps",
            "Share of steps cut to the greatest length; good: few at the end.",
        ),
        ("tamed_negative", "Shortened prior steps", "The same for chains of the tilted prior."),
    ]
    rows = []
    for column, name, line in names:
        value = _late(m, column)
        if value is None or (m.prior is None and column in OF_TILT):
            continue
        rows.append(
            (name, f"{100 * value:.3g} %" if column.startswith(("divergent", "tamed")) else number(value), line)
        )
    return rows


def _held_rows(m: Material) -> list[Row]:
    rows: list[Row] = []
    held = m.held
    if held is not None and held.error is not None:
        share = f" ({100 * held.error.mean() / held.spread:.2g} %)" if held.spread > 0 else ""
        line = "Mean squared, model units, at one posterior draw per datum; in brackets: share of the data's variance."
        rows.append(("Held-out reconstruction error", number(*_mean(held.error)) + share, line))
    elif (last := figures.column(m.rows, "held_out_error")[1]).size:
        line = "Mean squared, in the model's units, when it was last measured in learning."
        rows.append(("Held-out reconstruction error", number(float(last[-1])), line))
    line = "Mean of log p(x|z) at posterior draws, nats per datum. It leaves out the prior."
    if held is not None and held.log_likelihood is not None:
        rows.append(("Held-out log-likelihood given latents", number(*_mean(held.log_likelihood)), line))
    if (late := _late(m, "log_likelihood")) is not None:
        line = "The same for batches in learning. Far above the held-out value: overfitting." if rows else line
        rows.append(("Log-likelihood during learning", number(late), line))
    return rows


def _tilt_rows(m: Material) -> list[Row]:
    if m.prior is None:
        return [("Tilt", "none", "The model is its base: prior draws are exact and there is no constant to estimate.")]
    rows = [
        (
            "Mean tilt of base draws, nats",
            number(*_mean(m.base.tilt)),
            "Where the base alone puts its latents.",
        ),
        (
            "Mean tilt of tilted prior draws",
            number(*_mean(m.prior.tilt)),
            "By the chains of learning; should be near the lines below, up to their errors.",
        ),
    ]
    size = effective_size(m.base.tilt)
    if size > 50:
        value = number(*reweighted(m.base.tilt, m.base.tilt))
        rows.append(
            ("The same, reweighted base draws", value, "Needs no chain; a difference shows how far chains are off.")
        )
    if m.held is not None:
        line = "Held-out data. The difference from the tilted prior is the tilt gap on new data; good: small."
        rows.append(("Mean tilt of posterior draws", number(*_mean(m.held.draws.tilt)), line))
    line = "What base draws with weights e^f are worth as draws of the tilted prior. Below 1 %: the two are far apart."
    text = f"{number(size)} of {N_BASE:,} ({number(100 * size / N_BASE)} %)"
    return [*rows, ("Effective sample size of the base", text, line)]


def _size_row(m: Material) -> Row:
    sizes = {name: int(np.prod(a.shape)) for name, a in m.run.params.items()}
    tilt = sum(size for name, size in sizes.items() if name in m.run.program.tilt_params)
    return "Parameters", f"{sum(sizes.values()):,}, of which tilt {tilt:,}", "Numbers that learning adjusts."


def _mean(values: np.ndarray) -> tuple[float, float | None]:
    """Mean and its standard error over the finite values."""
    fine = values[np.isfinite(values)]
    if len(fine) < 2:
        return (float(fine[0]) if len(fine) else math.nan), None
    return float(fine.mean(dtype=float)), float(fine.std(ddof=1, dtype=float) / len(fine) ** 0.5)


# --- how to reproduce
