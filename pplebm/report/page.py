"""The page itself: sections of text, tables and pictures, joined into one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html as markup
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pplebm.report import captions, figures, layers, metrics, reproduce, scatter, tables
from pplebm.report.gathered import Draws, Material, is_image, shown_shape
from pplebm.report.style import CSS

DPI = 160  # sharp on fine screens


def html(m: Material, kept: Mapping[str, str] | None = None) -> str:
    """The whole page; `kept` are sections by heading that other commands made, "" for none."""
    title = f"{m.run.manifest.model.name} on {m.run.manifest.data.name}"
    sections = [
        ("figures", "Figures", tables.figures_table(m)),
        ("curves", "Learning", "".join(_curves(m))),
        ("samples", "Data and samples", "".join(_samples(m))),
        ("chains", "Prior chains", "".join(_chains(m))),
        ("latents", "Latents", "".join(_latents(m))),
        ("layers", "What the layers mean", "".join(_layers(m))),
        ("reproduce", "How to reproduce", reproduce.footer(m)),
    ]
    names = [(name, heading) for name, heading, _ in sections]
    more = {heading: text for heading, text in (kept or {}).items() if text}
    names[-1:-1] = [(text.partition('<section id="')[2].partition('"')[0], heading) for heading, text in more.items()]
    links = " · ".join(f'<a href="#{name}">{heading}</a>' for name, heading in names)
    written = [f'<section id="{name}"><h2>{heading}</h2>{text}</section>' for name, heading, text in sections]
    body = "".join([*written[:-1], *more.values(), written[-1]])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{markup.escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{markup.escape(title)}</h1>{tables.header(m)}<nav>{links}</nav></header>{body}</main></body></html>\n"
    )


def picture(caption: str, alt: str, *rows: Sequence[Figure]) -> str:
    """Rows of figures as part of the page, with a caption; a row breaks where the screen is narrower."""
    plates = "".join('<div class="plate">' + "".join(_image(f, alt) for f in row) + "</div>" for row in rows if row)
    return f"<figure>{plates}<figcaption>{caption}</figcaption></figure>"


def _image(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    titles = [title for ax in figure.axes if (title := ax.get_title("left"))]
    text = markup.escape(f"{alt}: {titles[0]}" if len(titles) == 1 else alt)
    width = round(figure.get_figwidth() * 100)
    return f'<img alt="{text}" style="width:min(100%,{width}px)" src="data:image/png;base64,{data}">'


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
        caption = captions.CURVES + captions.TILT_CURVES * (m.prior is not None) + captions.ROLLBACKS * bool(rollbacks)
        yield picture(caption, "curves of learning by update", figures.curves(m.rows, known, rollbacks))
    if others:
        caption = "Further figures that this algorithm reports, by update. Look for curves that level off."
        caption += markup.escape(metrics.explained([p.title for p in others], m.run.algorithm.reports))
        yield picture(caption, "further curves by update", figures.curves(m.rows, others))


def _panels(m: Material) -> tuple[list[figures.Panel], list[figures.Panel]]:
    """Panels of the columns that are known, and of all others."""
    names = dict.fromkeys(name for row in m.rows for name in row if name not in ("update", "seconds"))
    there = [n for n in names if metrics.is_shown(n, m.prior is not None) and len(figures.column(m.rows, n)[0])]
    known = [p._replace(lines=[line for line in p.lines if line[0] in there]) for p in metrics.PANELS]
    covered = {name for panel in known for name, _ in panel.lines}
    others = [figures.Panel(name, ((name, figures.OTHER),)) for name in there if name not in covered]
    return [panel for panel in known if panel.lines], others


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
    caption = (
        "All on one grey scale; samples are means, without observation noise. Good: reconstructions repeat the data "
        "place by place; samples look like other data of the same kind and differ among themselves."
    )
    caption += captions.BASE_MAY_DIFFER * (m.prior is not None)
    yield picture(caption, "pictures", figures.grids(sets, *_range(m)))


def _table_samples(m: Material) -> Iterator[str]:
    assert m.samples is not None
    width = shown_shape(m.run)[0]
    names = [f"column {i + 1}" for i in range(min(width, scatter.MAX_COLUMNS))]
    if width > len(names):
        yield remark(f"The first {len(names)} of {width} columns.")
    data = None if m.held is None else m.held.x
    caption = "Good: histograms of data and model coincide." if width == 1 else captions.PAIRS
    if data is None or m.samples.prior is None:
        caption = "Diagonal: histograms; elsewhere: scatter of what is there. Colours as in the legend."
    drawn = scatter.pairs(data, m.samples.prior, m.samples.base, names)
    yield picture(caption, "histograms and scatter of columns", [drawn])


def _chains(m: Material) -> Iterator[str]:
    if m.chain is None:
        yield remark(m.why.get("chain", ""))
        return
    if m.chain.strip is not None:
        yield picture(captions.STRIP, "decoded means along six prior chains", figures.strip(m.chain, *_range(m)))
    yield picture(captions.PROFILE, "energy and tilt along prior chains", figures.profile(m.chain))


def _latents(m: Material) -> Iterator[str]:
    sets: list[tuple[str, str, Draws]] = [("Base", figures.BASE, m.base)]
    if m.prior is not None:
        sets.append(("Tilted prior", figures.PRIOR, m.prior))
    if m.held is not None:
        sets.append(("Given held-out data", figures.POSTERIOR, m.held.draws))
    else:
        yield remark("Without data there are no latents given data.")
    caption = (
        captions.LATENTS_WITHOUT_DATA
        if m.held is None
        else captions.LATENTS_UNTILTED
        if m.prior is None
        else captions.LATENTS
    )
    for i, site in enumerate(m.run.program.latents):
        shape = "scalar" if not site.shape else "dimension " + " × ".join(map(str, site.shape))
        bounded = "" if site.support == "real" else f"; unconstrained coordinates of a {site.support} site"
        yield f"<h3>{markup.escape(site.name)} <small>{shape}{markup.escape(bounded)}</small></h3>"
        if not all(np.isfinite(draws.latents[site.name]).all() for _, _, draws in sets):
            yield remark("Some latents of this layer are not finite, so they are not drawn.")
            continue
        labels = None if m.held is None else m.held.labels
        drawn = scatter.latents(site.name, sets, labels)
        coloured = (
            " Colours in the last panel: labels of the data, which learning did not see." if labels is not None else ""
        )
        yield picture(caption + coloured if i == 0 else "As above.", f"latents of {site.name}", *drawn)


def _layers(m: Material) -> Iterator[str]:
    yield remark(m.why.get("hierarchy", ""))
    if m.hierarchy is not None:
        caption = captions.HIERARCHY if is_image(shown_shape(m.run)) else captions.HIERARCHY_TABLE
        yield picture(caption, "data that share layers", layers.hierarchy(m.hierarchy, *_range(m)))
    yield remark(m.why.get("traversals", ""))
    if m.traversals is not None:
        drawn = [layers.traversal(found, *_range(m)) for found in m.traversals]
        rows = [[figure for row in drawn for figure in row]] if is_image(shown_shape(m.run)) else drawn
        yield picture(captions.TRAVERSAL, "data along single latents", *rows)


def _range(m: Material) -> tuple[float, float]:
    """Black and white of all pictures: the range of the data's units."""
    scaling = m.run.scaling
    if scaling.kind == "range":
        return float(scaling.to_user(-1.0)), float(scaling.to_user(1.0))
    seen: Sequence[np.ndarray] = [a for a in (m.held and m.held.x, m.samples and m.samples.base) if a is not None]
    low, high = (float(q) for q in np.quantile(seen[0], (0.0, 1.0)))
    return low, max(high, low + 1e-12)
