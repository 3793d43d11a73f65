"""The pictures of a report: arrays in, matplotlib figures out, no state of matplotlib changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA

from pplebm.report.gathered import Chain, Draws

BASE, PRIOR, POSTERIOR, DATA = "#8c8c8c", "#e08600", "#0072b2", "#000000"  # told apart by colour-blind readers
OTHER = "#009e73"
WIDTH = 10.0  # inches
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
MAX_COLUMNS = 6  # of a table that are shown

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


Panel = tuple[str, Sequence[tuple[str, str, str]], bool]  # title, (column, label, colour) each, logarithmic


@styled
def curves(rows: Rows, panels: Sequence[Panel], rollbacks: Sequence[int] = ()) -> Figure:
    """Small multiples of columns by update: rows faint, running means strong, roll-backs as dotted lines."""
    n = len(panels)
    across = 2 if n in (2, 4) else 4 if n in (7, 8) else min(3, n)
    down = -(-n // across)
    figure = Figure(figsize=(WIDTH if across > 1 else 5, 2.4 * down), layout="constrained")
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    for ax, (title, lines, logarithmic) in zip(axes, panels):
        ax.set_title(title)
        lowest = np.inf
        for name, label, colour in lines:
            x, y = column(rows, name)
            lowest = min(lowest, *y, np.inf)
            ax.plot(x, y, color=colour, alpha=0.3, linewidth=0.8, marker="." if len(x) < 12 else None)
            ax.plot(x, smooth(y), color=colour, linewidth=1.8, label=label, marker="o" if len(x) == 1 else None)
        if logarithmic and 0 < lowest < np.inf:
            ax.set_yscale("log")
        if title.startswith("Share"):
            ax.set_ylim(-0.02, max(0.2, 1.05 * ax.get_ylim()[1]))
        for update in rollbacks:
            ax.axvline(update, color="#cc3311", linewidth=0.8, linestyle=":")
        if len(lines) > 1:
            ax.legend(fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for ax in axes[n:]:
        ax.set_axis_off()
    for ax in axes[max(0, n - across) : n]:
        ax.set_xlabel("update")
    return figure


# --- data


def tiled(images: np.ndarray, across: int, low: float, high: float) -> np.ndarray:
    """Images (N, H, W[, C]) as one grid of colours in 0..1 with white lines in between; missing ones stay white."""
    x = np.clip((images - low) / (high - low), 0, 1)
    x = x[..., None] if x.ndim == 3 else x
    x = np.repeat(x, 3, axis=3) if x.shape[3] == 1 else x
    gap = max(1, x.shape[1] // 14)
    x = np.pad(x, ((0, -len(x) % across), (0, gap), (0, gap), (0, 0)), constant_values=1.0)
    h, w = x.shape[1:3]
    return x.reshape(-1, across, h, w, 3).swapaxes(1, 2).reshape(-1, across * w, 3)[:-gap, :-gap]


@styled
def grids(sets: Sequence[tuple[str, str, np.ndarray]], low: float, high: float) -> Figure:
    """Grids of 8 x 8 pictures side by side, on one grey scale; (title, colour, images) each."""
    figure = Figure(figsize=(WIDTH, 2.75 * 4 / max(len(sets), 3)), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    for ax, (title, colour, images) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets):
        ax.imshow(tiled(images[:64], 8, low, high), interpolation="nearest")
        ax.set_title(title, color=colour, fontweight="bold")
        ax.set_axis_off()
    return figure


@styled
def pairs(data: np.ndarray | None, prior: np.ndarray | None, base: np.ndarray, names: Sequence[str]) -> Figure:
    """Histograms on the diagonal; scatter of data on tilted model below it, of data on base above it."""
    d = min(base.shape[1], MAX_COLUMNS)
    size = min(WIDTH, 1.2 + 1.9 * d) if d > 1 else 5
    figure = Figure(figsize=(size, size * 0.85), layout="constrained")
    axes = figure.subplots(d, d, squeeze=False)
    every = [("base", BASE, base), ("tilted model", PRIOR, prior), ("held-out data", DATA, data)]
    there = [(label, colour, a) for label, colour, a in every if a is not None]
    limits = [_limits([a[:, j] for _, _, a in there]) for j in range(d)]
    for i in range(d):
        for j in range(d):
            ax = axes[i, j]
            if i == j:
                _histograms(ax, [(label, colour, a[:, i]) for label, colour, a in there], limits[i])
            else:
                shown = [there[0], there[-1]] if i < j else there[1:] or there
                for _, colour, a in shown if len(there) > 1 else there:
                    ax.plot(a[:, j], a[:, i], ".", color=colour, markersize=3, alpha=0.45, rasterized=True)
                ax.set_ylim(limits[i])
            ax.set_xlim(limits[j])
            ax.xaxis.set_major_locator(MaxNLocator(4))
            if i == d - 1:
                ax.set_xlabel(names[j])
            if j == 0 and d > 1:
                ax.set_ylabel(names[i])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


# --- chains


@styled
def strip(chain: Chain, low: float, high: float) -> Figure:
    """One chain per row, from its start to the last step that learning takes."""
    assert chain.strip is not None
    n_steps = len(chain.strip)
    pictures = chain.strip.swapaxes(0, 1).reshape(-1, *chain.strip.shape[2:])
    grid = tiled(pictures, n_steps, low, high)
    figure = Figure(figsize=(WIDTH, WIDTH * grid.shape[0] / grid.shape[1] + 0.45), layout="constrained")
    ax = figure.subplots()
    ax.imshow(grid, interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks((np.arange(n_steps) + 0.5) * grid.shape[1] / n_steps, [str(s) for s in chain.strip_steps])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("step of the chain")
    return figure


@styled
def profile(chain: Chain) -> Figure:
    """Energy and tilt along the prior chains: mean, band from the 10th to the 90th percentile."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    fine = np.isfinite(chain.energy).all(0) & np.isfinite(chain.tilt).all(0)
    panels = (("Energy −log p̃(z), nats", chain.energy), ("Tilt f(z), nats", chain.tilt))
    for i, (ax, (title, values)) in enumerate(zip(figure.subplots(1, 2), panels)):
        ax.set_title(title)
        if fine.any():
            low, high = np.quantile(values[:, fine], (0.1, 0.9), axis=1)
            ax.fill_between(chain.steps, low, high, color=PRIOR, alpha=0.2, linewidth=0, label="10–90 % of chains")
            ax.plot(chain.steps, values[:, fine].mean(1), color=PRIOR, linewidth=1.8, label="mean of chains")
        if chain.level is not None:
            ax.axhline(chain.level[i], color=BASE, linestyle="--", linewidth=1.2, label="base draws, reweighted")
        ax.axvline(
            chain.learned, color=DATA, linewidth=1.0, linestyle=":", label=f"step {chain.learned}: end in learning"
        )
        ax.set_xlabel("step of the chain")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


# --- latents


@styled
def latents(site: str, sets: Sequence[tuple[str, str, Draws]], labels: np.ndarray | None) -> Figure:
    """Principal plane of one site's latents, a panel per set, and histograms along the first directions."""
    values = [draws.latents[site].reshape(len(draws.tilt), -1) for _, _, draws in sets]
    reference = values[-1]
    k = min(4, *reference.shape)
    if reference.shape[1] > 1:
        pca = PCA(n_components=k, svd_solver="full").fit(reference)
        values = [pca.transform(v) for v in values]
        shares = pca.explained_variance_ / max(float(reference.var(0, ddof=1).sum()), 1e-12)
        names = [f"direction {i + 1} ({100 * s:.0f} %)" for i, s in enumerate(shares)]
    else:
        names = [site]
    plane = k > 1
    figure = Figure(figsize=(WIDTH, 5.6) if plane else (WIDTH / 2, 2.6), layout="constrained")
    spec = figure.add_gridspec(2 if plane else 1, 12, height_ratios=(1.6, 1) if plane else (1,))
    limits = [_limits([v[:, i] for v in values]) for i in range(k)]
    for i in range(3 if plane else 0):
        if i < len(sets):
            ax = figure.add_subplot(spec[0, 4 * i : 4 * i + 4])
            _scatter(ax, sets[i][:2], values[i], labels if i == len(sets) - 1 else None, limits)
            ax.set_xlabel(names[0])
            ax.set_ylabel(names[1] if i == 0 else "")
    for i in range(k):
        ax = figure.add_subplot(spec[-1, 12 // k * i : 12 // k * (i + 1)])
        _histograms(ax, [(label, colour, v[:, i]) for (label, colour, _), v in zip(sets, values)], limits[i])
        ax.set_xlabel(names[i])
        if not plane:
            ax.legend(fontsize=8)
    return figure


def _scatter(ax: Axes, named: tuple[str, str], v: np.ndarray, labels: np.ndarray | None, limits: Any) -> None:
    title, colour = named
    ax.set_title(title, color=colour, fontweight="bold")
    if labels is None:
        ax.plot(v[:512, 0], v[:512, 1], ".", color=colour, markersize=4, alpha=0.5)
    else:
        kinds = np.unique(labels)
        wheel = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "viridis"]
        for i, kind in enumerate(kinds):
            rows = labels == kind
            shade = wheel(i if len(kinds) <= 10 else i / (len(kinds) - 1))
            ax.plot(v[rows, 0], v[rows, 1], ".", color=shade, markersize=4, alpha=0.7, label=str(kind))
        if len(kinds) <= 10:
            ax.legend(fontsize=7, ncols=2, loc="best", handletextpad=0.1, columnspacing=0.4, borderpad=0.1)
    ax.set_xlim(limits[0])
    ax.set_ylim(limits[1])


def _histograms(ax: Axes, sets: Sequence[tuple[str, str, np.ndarray]], limits: tuple[float, float]) -> None:
    bins = np.linspace(*limits, 31 if min(len(v) for _, _, v in sets) > 200 else 19)
    for label, colour, v in sets:
        inside = np.histogram(v, bins)[0] / max(len(v), 1) / (bins[1] - bins[0])
        if label.lower() == "base":
            ax.stairs(inside, bins, fill=True, color=colour, alpha=0.35, label=label)
        else:
            ax.stairs(inside, bins, color=colour, linewidth=1.5, label=label)
    ax.set_xlim(limits)
    ax.set_yticks([])


def _limits(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    """Common limits that leave out the farthest hundredth of each column."""
    ends = [np.quantile(c[np.isfinite(c)], (0.005, 0.995)) for c in columns if np.isfinite(c).any()] or [(0.0, 1.0)]
    low, high = min(float(e[0]) for e in ends), max(float(e[1]) for e in ends)
    margin = 0.12 * (high - low) or 0.5
    return low - margin, high + margin
