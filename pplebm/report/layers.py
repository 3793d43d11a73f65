"""Pictures of what layers mean: data that share layers, data along one latent, ways between data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA

from pplebm.report.figures import BASE, OTHER, POSTERIOR, PRIOR, WIDTH, blank, gap_of, styled, tiled
from pplebm.report.scatter import common_limits
from pplebm.runs.layers import Hierarchy, Redrawn, Traversal, Way
from pplebm.runs.long_run import LongRun

MOST_ROWS = 6  # draws of the prior that are shown, each with its redraws
MOST_LATENTS = 8  # of a layer that are shown: those that change the data most
MOST_LINES = 8  # columns of a table that are followed along a latent
WHEEL = (POSTERIOR, PRIOR, OTHER, "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#000000")  # Okabe, Ito


def is_picture(decoded: np.ndarray, n_leading: int) -> bool:
    """Whether data with so many leading axes are grey or colour pictures."""
    event = decoded.shape[n_leading:]
    return len(event) == 2 or (len(event) == 3 and event[2] in (1, 3))


def grid(
    images: np.ndarray, low: float, high: float, cell: float, left: float = 0.05, top: float = 0.3, right: float = 0.1
) -> tuple[Figure, Axes, float, float]:
    """Pictures (rows, columns, H, W[, C]) side by side, `cell` inches wide each, with margins in inches.

    Also the height and the width of a cell, white lines included, in pixels of the grid, for ticks.
    """
    drawn, gap = tiled(images.reshape(-1, *images.shape[2:]), images.shape[1], low, high), gap_of(images.shape[2])
    inch = cell / (images.shape[3] + gap)
    wide, tall = inch * drawn.shape[1], inch * drawn.shape[0]
    width, height = left + wide + right, top + tall + 0.05
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((left / width, 0.05 / height, wide / width, tall / height))
    ax.imshow(drawn, interpolation="nearest", aspect="auto")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    return figure, ax, images.shape[2] + gap, images.shape[3] + gap


def told(part: Redrawn) -> str:
    """Which layers are held, and how much they settle."""
    if not part.held:
        return "Nothing held: other draws"
    return f"{', '.join(part.held)} held: {100 * part.share:.0f} ± {100 * part.share_error:.0f} % of the variance"


@styled
def hierarchy(found: Hierarchy, low: float, high: float) -> list[Figure]:
    """Draws, and beside them what is drawn anew with fewer and fewer layers held; a figure per group.

    Pictures are rows that go out from the draw at their left. Tables are scattered in the principal plane of the free
    draws (those of one number as a histogram), colours telling the draw that they go out from.
    """
    if is_picture(found.decoded, 1):
        return _picture_rows(found, low, high)
    flat = [part.decoded.reshape(*part.decoded.shape[:2], -1) for part in found.redrawn]
    free, n = flat[-1].reshape(-1, flat[-1].shape[2]), min(MOST_ROWS, len(found.decoded))
    names: list[str] = []
    if free.shape[1] > 1:
        pca = PCA(n_components=2, svd_solver="full").fit(free)
        shares = pca.explained_variance_ratio_
        names = [f"direction {i + 1} ({100 * s:.0f} %)" for i, s in enumerate(shares)]
        flat = [pca.transform(a.reshape(-1, a.shape[2])).reshape(*a.shape[:2], 2) for a in flat]
        free = flat[-1].reshape(-1, 2)
    drawn = []
    for part, a in zip(found.redrawn, flat, strict=True):
        figure, ax = blank(WIDTH / max(2, len(flat)), 3.4, told(part))
        if a.shape[2] > 1:
            colour = "#d9d9d9" if part.held else PRIOR
            ax.plot(free[:, 0], free[:, 1], ".", color=colour, markersize=4, zorder=0)
            for i in range(n if part.held else 0):
                ax.plot(a[i, :, 0], a[i, :, 1], "o", color=WHEEL[i], markersize=4, alpha=0.75, markeredgewidth=0)
            ax.set_xlabel(names[0])
            ax.set_ylabel(names[1])
            ax.set_xlim(common_limits([free[:, 0]]))
            ax.set_ylim(common_limits([free[:, 1]]))
        else:
            ax.hist(free[:, 0], 30, density=True, color="#d9d9d9")
            for i in range(n if part.held else 0):
                ax.plot(a[i, :, 0], np.full(a.shape[1], -0.02 * (i + 1) * ax.get_ylim()[1]), "|", color=WHEEL[i])
            ax.set_yticks([])
            ax.set_xlabel("mean of the datum")
        drawn.append(figure)
    return drawn


def _picture_rows(found: Hierarchy, low: float, high: float) -> list[Figure]:
    """A grid per group, the draws that its rows go out from at the left."""
    n = min(MOST_ROWS, len(found.decoded))
    draws = found.decoded[:n, None]
    white = np.full_like(draws, high)
    parts = [
        np.concatenate([draws, white, part.decoded[:n]], 1) if part.held else part.decoded[:n] for part in found.redrawn
    ]
    cell, drawn = min(0.55, (WIDTH - 0.2 * len(parts)) / sum(images.shape[1] for images in parts)), []
    for part, images in zip(found.redrawn, parts, strict=True):
        figure, ax, _, width = grid(images, low, high, cell)
        if part.held:
            ax.text(0, -0.12 * width, "Draw", fontsize=8, fontweight="bold", va="bottom")
        ax.text(2 * width * bool(part.held), -0.12 * width, told(part), fontsize=8, color=PRIOR, fontweight="bold",
                va="bottom")  # fmt: skip
        drawn.append(figure)
    return drawn


@styled
def traversal(found: Traversal, low: float, high: float) -> list[Figure]:
    """Data along each latent of a layer, those first that change them most: a grid, or lines of columns."""
    order = np.argsort(-found.change, kind="stable")[:MOST_LATENTS]
    means = found.decoded[order, :, 0]
    labels = [f"{found.site}[{found.moved[i]}]" for i in order]
    if is_picture(means, 2):
        cell = (3.4 if len(order) > 1 else 6.8) / means.shape[1]  # a single row may be wide
        figure, ax, height, width = grid(means, low, high, min(cell, 0.9), left=1.15, top=0.55)
        ax.set_title(f"{found.site}: quantiles of each latent (change of the data)", fontsize=8, loc="right", pad=16)
        told_change = [f"{name}  ({found.change[i]:.2g})" for name, i in zip(labels, order, strict=True)]
        ax.set_yticks((np.arange(len(order)) + 0.5) * height, told_change, fontsize=8)
        quantiles = [f"{100 * q:g} %" for q in found.quantiles]
        ax.set_xticks((np.arange(means.shape[1]) + 0.5) * width, quantiles, fontsize=8)
        return [figure]
    flat, drawn = means.reshape(*means.shape[:2], -1), []
    shown = np.argsort(-flat.std(1).max(0), kind="stable")[:MOST_LINES]
    limits = (flat[..., shown].min(), flat[..., shown].max())
    for k, name in enumerate(labels):
        figure, ax = blank(WIDTH / 4, 2.2, name)
        for colour, j in zip(WHEEL, sorted(shown), strict=False):
            ax.plot(found.values[order[k]], flat[k, :, j], "o-", color=colour, markersize=3, label=f"column {j + 1}")
        margin = 0.05 * (limits[1] - limits[0]) or 0.5
        ax.set_ylim(limits[0] - margin, limits[1] + margin)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel("value of the latent")
        if k == 0:
            ax.set_ylabel("mean of the data")
            ax.legend(fontsize=7)
        drawn.append(figure)
    return drawn


@styled
def long_strip(found: LongRun, low: float, high: float) -> list[Figure]:
    """Chains, one per row, at the steps that are shown."""
    assert found.strip is not None
    images = found.strip.swapaxes(0, 1)
    figure, ax, _, width = grid(images, low, high, min(0.75, (WIDTH - 0.2) / images.shape[1]), top=0.5)
    ax.set_xticks((np.arange(images.shape[1]) + 0.5) * width, [str(step) for step in found.strip_steps])
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(f"step of the chain; learning ends at step {found.learned}")
    return [figure]


@styled
def clouds(found: LongRun) -> list[Figure]:
    """Rows of a table decoded along chains, a figure per step: two principal directions of the last, or a histogram."""
    assert found.strip is not None
    flat = found.strip.reshape(*found.strip.shape[:2], -1)
    if flat.shape[2] > 1:
        pca = PCA(n_components=2, svd_solver="full").fit(flat[-1])
        flat = pca.transform(flat.reshape(-1, flat.shape[2])).reshape(*flat.shape[:2], 2)
    limits = [common_limits([a[:, j] for a in flat]) for j in range(flat.shape[2])]
    drawn = []
    for step, a in zip(found.strip_steps, flat, strict=True):
        figure, ax = blank(WIDTH / 4, 2.2, f"Step {step}")
        if a.shape[1] > 1:
            ax.plot(a[:, 0], a[:, 1], ".", color=PRIOR, markersize=4, alpha=0.7)
            ax.set_ylim(limits[1])
        else:
            ax.hist(a[:, 0], 20, range=limits[0], density=True, color=PRIOR)
            ax.set_yticks([])
        ax.set_xlim(limits[0])
        drawn.append(figure)
    return drawn


@styled
def ways(found: dict[str, Way], low: float, high: float, most: int = 13) -> list[list[Figure]]:
    """Energy along the ways between two data, and below it the data that they pass."""
    figure, ax = blank(WIDTH, 2.6, "Energy along the way, nats")
    colours = {"straight": BASE, "prior": PRIOR}
    for method, way in found.items():
        along = np.linspace(0.0, 1.0, len(way.energies.energy))
        label = "straight line" if method == "straight" else f"along the prior ({way.length:.2f} times as long)"
        ax.plot(along, way.energies.energy, color=colours[method], linewidth=1.8, marker=".", label=label)
        ax.plot(along, -way.energies.log_base, color=colours[method], linewidth=1.0, linestyle=":")
    ax.set_xlabel("points of the way, from one end to the other (dotted: energy of the base alone)")
    ax.legend()
    drawn = [[figure]]
    rows = np.stack([way.decoded for way in found.values()])
    if is_picture(rows, 2):
        chosen = np.unique(np.linspace(0, rows.shape[1] - 1, most).round().astype(int))
        images = rows[:, chosen]
        figure, ax, height, _ = grid(images, low, high, (WIDTH - 0.8) / len(chosen), left=0.7, top=0.05)
        ax.set_yticks((np.arange(len(found)) + 0.5) * height, list(found))
        drawn.append([figure])
    return drawn


def stitched(rows: Sequence[Sequence[Figure]], dpi: int = 150) -> np.ndarray:
    """Rows of figures as one picture on white, (H, W, 4) bytes; each row from its left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    lines = []
    for row in rows:
        parts = []
        for figure in row:
            figure.set_dpi(dpi)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            parts.append(np.asarray(canvas.buffer_rgba()))
        height = max(p.shape[0] for p in parts)
        pad = [np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in parts]
        lines.append(np.concatenate(pad, 1))
    width = max(line.shape[1] for line in lines)
    return np.concatenate(
        [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    )
