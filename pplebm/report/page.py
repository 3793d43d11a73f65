"""The page itself: sections of text, tables and pictures, joined into one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html as markup
import io
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from pplebm.report import figures, reproduce, tables
from pplebm.report.gathered import LENGTHEN, N_CHAINS, Draws, Material, is_image, shown_shape
from pplebm.report.style import CSS

DPI = 160  # sharp on fine screens
PROFILE = (
    f"{N_CHAINS} chains, run {LENGTHEN} times longer than in learning; the dotted line marks where learning stops "
    "them. Good: both curves are flat from before the dotted line on, and lie near the dashed line, which is the "
    "tilted prior itself (shown where base draws reach it; chains of finite steps settle a little above it in energy). "
    "Bad: curves that still climb or fall at the dotted line. Samples then depend on the number of steps, "
    "so keep the number of learning."
)
STRIP = (
    "Six prior chains, one per row, from their start (step 0) to where learning stops them; decoded means without "
    "noise. Good: rows change at first and end as credible data, all different. Bad: rows that never change (steps too "
    "small), that end alike (collapse), or that leave credible data and do not come back."
)
LATENTS = (
    "Above: the two directions in which the latents given held-out data vary most, on common axes; percentages are "
    "shares of that variance. Below: histograms along the first directions. Good: orange covers what blue covers, "
    "closer than grey does. Bad: orange where there is no blue (samples unlike the data), or blue that "
    "orange misses (data the model never draws)."
)
BASE_MAY_DIFFER = (
    " The base is the model without its tilt and may look worse: what the tilt adds is the step from grey to orange."
)
LATENTS_UNTILTED = (
    "Above: the two directions in which the latents given held-out data vary most, on common axes; percentages are "
    "shares of that variance. Below: histograms along the first directions. Good: blue and grey cover the same ground. "
    "Bad: grey where there is no blue (samples unlike the data), or blue that grey misses (data the model never draws)."
)
LATENTS_WITHOUT_DATA = (
    "Above: the two directions in which the latents of the last panel vary most, on common axes. Below: histograms "
    "along the first directions. Look for what the tilt moves: where orange leaves grey."
)
PAIRS = (
    "Diagonal: histograms. Below it: held-out data (black) over the tilted model (orange). Above it: held-out data "
    "over the base (grey). Good: below the diagonal the two clouds coincide; the base need not match the data."
)


def html(m: Material, diagnosis: str = "") -> str:
    """The whole page; `diagnosis` is the section that `pplebm diagnose` made."""
    title = f"{m.run.manifest.model.name} on {m.run.manifest.data.name}"
    sections = [
        ("figures", "Figures", tables.figures_table(m)),
        ("curves", "Learning", "".join(_curves(m))),
        ("samples", "Data and samples", "".join(_samples(m))),
        ("chains", "Prior chains", "".join(_chains(m))),
        ("latents", "Latents", "".join(_latents(m))),
        ("reproduce", "How to reproduce", reproduce.footer(m)),
    ]
    names = [(name, heading) for name, heading, _ in sections]
    if diagnosis:
        names.insert(-1, ("diagnosis", "Long chains and short runs"))
    links = " · ".join(f'<a href="#{name}">{heading}</a>' for name, heading in names)
    written = [f'<section id="{name}"><h2>{heading}</h2>{text}</section>' for name, heading, text in sections]
    body = "".join([*written[:-1], diagnosis, written[-1]])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{markup.escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{markup.escape(title)}</h1>{tables.header(m)}<nav>{links}</nav></header>{body}</main></body></html>\n"
    )


def picture(figure: Figure, caption: str, alt: str) -> str:
    """A figure as part of the page, with its caption."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    width = int(figure.get_figwidth() * 100)
    return (
        f'<figure><div class="plate"><img alt="{markup.escape(alt)}" style="width:{width}px" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{caption}</figcaption></figure>'
    )


def remark(text: str) -> str:
    """A sentence in place of something that cannot be shown."""
    return f'<p class="remark">{markup.escape(text)}</p>' if text else ""


# --- sections


def _curves(m: Material) -> Iterator[str]:
    if not m.rows:
        yield remark("No figures by update were kept.")
        return
    known, others = _panels(m)
    if m.prior is None:
        yield remark("The model has no tilt, so there is no tilt gap, and learning needs no negative samples.")
    if known:
        rollbacks = [r.update for r in m.run.manifest.rollbacks]
        yield picture(
            figures.curves(m.rows, known, rollbacks),
            "Faint: single updates; strong: running mean over a tenth of the run. "
            + (
                "Energy gap: the mean tilt of positive samples less that of negative samples; good: it stays small and "
                "level, a nat or so; bad: it grows without end, because negative chains do not follow the tilt. "
                if m.prior is not None
                else ""
            )
            + "Reconstruction error should fall and level off, log-likelihood rise and level off. Gradient norms may "
            "fluctuate but not grow. Divergent chains should be at zero throughout, shortened steps few in the end."
            + (" Red dotted lines: roll-backs." if rollbacks else ""),
            "curves of learning by update",
        )
    if others:
        yield picture(
            figures.curves(m.rows, others),
            "Further figures that this algorithm reports, by update. Look for curves that level off.",
            "further curves by update",
        )


def _panels(m: Material) -> tuple[list[figures.Panel], list[figures.Panel]]:
    """Panels of the columns that are known, and of all others."""
    plain, blue, orange = figures.DATA, figures.POSTERIOR, figures.PRIOR
    wanted: list[figures.Panel] = [
        ("Energy gap, nats", [("tilt_gap", "", orange)], False),
        ("Held-out reconstruction error", [("held_out_error", "", blue)], False),
        ("Log-likelihood log p(x|z), nats", [("log_likelihood", "", blue)], False),
        ("Mean tilt f, nats", [("tilt_positive", "positive", blue), ("tilt_negative", "negative", orange)], False),
        ("Gradient norm", [("grad_norm", "all parameters", plain), ("grad_norm_tilt", "tilt", orange)], True),
        (
            "Share of divergent chains",
            [("divergent_positive", "positive", blue), ("divergent_negative", "negative", orange)],
            False,
        ),
        (
            "Share of shortened steps",
            [("tamed_positive", "positive", blue), ("tamed_negative", "negative", orange)],
            False,
        ),
    ]
    hidden = tables.OF_TILT if m.prior is None else set()
    known: list[figures.Panel] = []
    seen = {"update", "seconds"}
    for title, lines, logarithmic in wanted:
        seen |= {name for name, _, _ in lines}
        there = [line for line in lines if line[0] not in hidden and len(figures.column(m.rows, line[0])[0])]
        if there:
            known.append((title, there, logarithmic))
    rest = dict.fromkeys(name for row in m.rows for name in row if name not in seen)
    if m.prior is None:
        rest = {name: None for name in rest if not name.startswith("tilt")}
    shown = [name for name in rest if len(figures.column(m.rows, name)[0])]
    others: list[figures.Panel] = [(n.replace("_", " "), [(n, "", figures.OTHER)], False) for n in shown]
    return known, others


def _samples(m: Material) -> Iterator[str]:
    yield remark(m.why.get("held", ""))
    yield remark(m.why.get("samples", ""))
    shape = shown_shape(m.run)
    if m.samples is None:
        return
    if not is_image(shape) and len(shape) != 1:
        yield remark(f"Data of shape {shape} are neither pictures nor rows of a table, so samples are not drawn here.")
        return
    if m.prior is None:
        yield remark("The model has no tilt: its base is the model.")
    if len(shape) == 1:
        yield from _table_samples(m)
        return
    sets = [("Base", figures.BASE, m.samples.base)]
    if m.samples.prior is not None:
        sets.append(("Tilted model", figures.PRIOR, m.samples.prior))
    if m.held is not None:
        if m.held.reconstructions is not None:
            sets.insert(0, ("Their reconstructions", figures.POSTERIOR, m.held.reconstructions))
        sets.insert(0, ("Held-out data", figures.DATA, m.held.x))
    yield picture(
        figures.grids(sets, *_range(m)),
        "All on one grey scale; samples are means, without observation noise. Good: reconstructions repeat the data "
        "next to them place by place; samples look like other data of the same kind and differ among themselves."
        + BASE_MAY_DIFFER
        * (m.prior is not None),
        "pictures: " + ", ".join(title.lower() for title, _, _ in sets),
    )


def _table_samples(m: Material) -> Iterator[str]:
    assert m.samples is not None
    width = shown_shape(m.run)[0]
    names = [f"column {i + 1}" for i in range(min(width, figures.MAX_COLUMNS))]
    if width > len(names):
        yield remark(f"The first {len(names)} of {width} columns.")
    data = None if m.held is None else m.held.x
    caption = "Good: histograms of data and model coincide." if width == 1 else PAIRS
    if data is None or m.samples.prior is None:
        caption = "Diagonal: histograms; elsewhere: scatter of what is there. Colours as in the legend."
    yield picture(
        figures.pairs(data, m.samples.prior, m.samples.base, names), caption, "histograms and scatter of columns"
    )


def _chains(m: Material) -> Iterator[str]:
    if m.chain is None:
        yield remark(m.why.get("chain", ""))
        return
    if m.chain.strip is not None:
        yield picture(figures.strip(m.chain, *_range(m)), STRIP, "decoded means along six prior chains")
    yield picture(figures.profile(m.chain), PROFILE, "energy and tilt along prior chains")


def _latents(m: Material) -> Iterator[str]:
    sets: list[tuple[str, str, Draws]] = [("Base", figures.BASE, m.base)]
    if m.prior is not None:
        sets.append(("Tilted prior", figures.PRIOR, m.prior))
    if m.held is not None:
        sets.append(("Given held-out data", figures.POSTERIOR, m.held.draws))
    else:
        yield remark("Without data there are no latents given data.")
    caption = LATENTS_WITHOUT_DATA if m.held is None else LATENTS_UNTILTED if m.prior is None else LATENTS
    for i, site in enumerate(m.run.program.latents):
        shape = "scalar" if not site.shape else "dimension " + " × ".join(map(str, site.shape))
        bounded = "" if site.support == "real" else f"; unconstrained coordinates of a {site.support} site"
        yield f"<h3>{markup.escape(site.name)} <small>{shape}{markup.escape(bounded)}</small></h3>"
        if not all(np.isfinite(draws.latents[site.name]).all() for _, _, draws in sets):
            yield remark("Some latents of this layer are not finite, so they are not drawn.")
            continue
        labels = None if m.held is None else m.held.labels
        figure = figures.latents(site.name, sets, labels)
        coloured = (
            " Colours in the last panel: labels of the data, which learning did not see." if labels is not None else ""
        )
        yield picture(figure, caption + coloured if i == 0 else "As above.", f"latents of {site.name}")


def _range(m: Material) -> tuple[float, float]:
    """Black and white of all pictures: the range of the data's units."""
    scaling = m.run.scaling
    if scaling.kind == "range":
        return float(scaling.to_user(-1.0)), float(scaling.to_user(1.0))
    seen: Sequence[np.ndarray] = [a for a in (m.held and m.held.x, m.samples and m.samples.base) if a is not None]
    low, high = (float(q) for q in np.quantile(seen[0], (0.0, 1.0)))
    return low, max(high, low + 1e-12)
