"""The pictures of a report: arrays in, matplotlib figures out, no state of matplotlib changed.

A picture of several panels is a figure per panel, so that they stand side by side on a screen and below each other on a
phone, at a size that reads on both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pplebm.runs.long_run import LongRun

BASE, PRIOR, POSTERIOR, DATA = "#8c8c8c", "#e08600", "#0072b2", "#000000"  # told apart by colour-blind readers
OTHER = "#009e73"
WIDTH = 9.3  # of a row of panels, inches of 100 pixels
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "figure.facecolor": "white",
}

Rows = list[dict[str, Any]]


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draw in the report's style, and leave matplotlib's own settings as they were."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


# --- curves


def column(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates and values of one column, where it is a finite number."""
    pairs = [(r["update"], r[name]) for r in rows if type(r.get(name)) in (int, float) and np.isfinite(r[name])]
    return np.array([p[0] for p in pairs], dtype=float), np.array([p[1] for p in pairs], dtype=float)


def smooth(y: np.ndarray) -> np.ndarray:
    """Running mean over a tenth of the row, shorter at both ends.

    >>> smooth(np.ones(30)).round(6).tolist() == [1.0] * 30
    True
    """
    window = np.ones(max(1, len(y) // 10))
    return np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")


class Panel(NamedTuple):
    """One panel of curves: its title, the columns it shows with their colours, and whether its axis is logarithmic."""

    title: str
    lines: Sequence[tuple[str, str]]
    is_logarithmic: bool = False


@styled
def curves(rows: Rows, panels: Sequence[Panel], rollbacks: Sequence[int] = ()) -> list[Figure]:
    """Columns by update, a figure per panel: rows faint, running means strong, roll-backs as dotted lines."""
    n = len(panels)
    across = 2 if n in (2, 4) else 4 if n in (7, 8) else 3
    return [_curve(rows, panel, rollbacks, WIDTH / across) for panel in panels]


def _curve(rows: Rows, panel: Panel, rollbacks: Sequence[int], width: float) -> Figure:
    figure, ax = blank(width, 2.3, panel.title)
    lowest = np.inf
    for name, colour in panel.lines:
        x, y = column(rows, name)
        lowest = min(lowest, *y, np.inf)
        ax.plot(x, y, color=colour, alpha=0.3, linewidth=0.8, marker="." if len(x) < 12 else None)
        ax.plot(x, smooth(y), color=colour, linewidth=1.8, label=name, marker="o" if len(x) == 1 else None)
    if panel.is_logarithmic and 0 < lowest < np.inf:
        ax.set_yscale("log")
    if panel.title.startswith("Share"):
        ax.set_ylim(-0.02, max(0.2, 1.05 * ax.get_ylim()[1]))
    for update in rollbacks:
        ax.axvline(update, color="#cc3311", linewidth=0.8, linestyle=":")
    ax.legend(fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_xlabel("update")
    return figure


def blank(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """A figure of one panel, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title)
    return figure, ax


# --- data


def tiled(images: np.ndarray, across: int, low: float, high: float) -> np.ndarray:
    """Images (N, H, W[, C]) as one grid of colours in 0..1 with white lines in between; missing ones stay white."""
    x = np.clip((images - low) / (high - low), 0, 1)
    x = x[..., None] if x.ndim == 3 else x
    x = np.repeat(x, 3, axis=3) if x.shape[3] == 1 else x
    gap = gap_of(x.shape[1])
    x = np.pad(x, ((0, -len(x) % across), (0, gap), (0, gap), (0, 0)), constant_values=1.0)
    h, w = x.shape[1:3]
    return x.reshape(-1, across, h, w, 3).swapaxes(1, 2).reshape(-1, across * w, 3)[:-gap, :-gap]


def gap_of(height: int) -> int:
    """Width of the white lines between pictures of a height, in pixels."""
    return max(1, height // 14)


@styled
def grids(sets: Sequence[tuple[str, str, np.ndarray]], low: float, high: float) -> list[Figure]:
    """Grids of 8 x 8 pictures on one grey scale, a figure per set; (title, colour, images) each."""
    drawn, width = [], WIDTH / max(len(sets), 3)
    for title, colour, images in sets:
        figure, ax = blank(width, width + 0.25)
        ax.imshow(tiled(images[:64], 8, low, high), interpolation="nearest")
        ax.set_title(title, color=colour, fontweight="bold")
        ax.set_axis_off()
        drawn.append(figure)
    return drawn


# --- chains


@styled
def strip(chain: LongRun, low: float, high: float) -> list[Figure]:
    """One chain per row, from its start to the last step that learning takes; a figure for either half."""
    assert chain.strip is not None
    half = -(-len(chain.strip) // 2)
    drawn = []
    for part in (slice(0, half), slice(half, None)):
        steps, images = chain.strip_steps[part], chain.strip[part].swapaxes(0, 1)
        if not len(steps):
            continue
        grid = tiled(images.reshape(-1, *images.shape[2:]), len(steps), low, high)
        figure, ax = blank(WIDTH / 2, WIDTH / 2 * grid.shape[0] / grid.shape[1] + 0.4)
        ax.imshow(grid, interpolation="nearest")
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.set_xticks((np.arange(len(steps)) + 0.5) * grid.shape[1] / len(steps), [str(s) for s in steps])
        ax.set_yticks([])
        ax.tick_params(length=0)
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        ax.set_xlabel("step of the chain")
        drawn.append(figure)
    return drawn


@styled
def profile(chain: LongRun) -> list[Figure]:
    """Energy and tilt along the prior chains, a figure each: mean, band from the 10th to the 90th percentile."""
    finite = np.isfinite(chain.energy).all(0) & np.isfinite(chain.tilt).all(0)
    drawn = []
    for i, (title, values) in enumerate((("Energy −log p̃(z), nats", chain.energy), ("Tilt f(z), nats", chain.tilt))):
        figure, ax = blank(WIDTH / 2, 3.3, title)
        if finite.any():
            low, high = np.quantile(values[:, finite], (0.1, 0.9), axis=1)
            ax.fill_between(chain.steps, low, high, color=PRIOR, alpha=0.2, linewidth=0, label="10–90 % of chains")
            ax.plot(chain.steps, values[:, finite].mean(1), color=PRIOR, linewidth=1.8, label="mean of chains")
        if chain.level is not None:
            ax.axhline(chain.level[i], color=BASE, linestyle="--", linewidth=1.2, label="base draws, reweighted")
        ends = f"step {chain.learned}: end in learning"
        ax.axvline(chain.learned, color=DATA, linewidth=1.0, linestyle=":", label=ends)
        ax.set_xlabel("step of the chain")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        drawn.append(figure)
    return drawn
