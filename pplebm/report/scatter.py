"""Scatter plots and histograms of a report: columns of a table, and latents in their principal plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA

from pplebm.report.figures import BASE, DATA, PRIOR, WIDTH, blank, styled
from pplebm.report.gathered import Draws

MAX_COLUMNS = 6  # of a table that are shown

Sets = Sequence[tuple[str, str, Draws]]  # title, colour, draws


@styled
def pairs(data: np.ndarray | None, prior: np.ndarray | None, base: np.ndarray, names: Sequence[str]) -> Figure:
    """Histograms on the diagonal; scatter of data on tilted model below it, of data on base above it."""
    d = min(base.shape[1], MAX_COLUMNS)
    size = min(WIDTH, 1.0 + 1.4 * d) if d > 1 else WIDTH / 2
    figure = Figure(figsize=(size, size * 0.85), layout="constrained")
    axes = figure.subplots(d, d, squeeze=False)
    every = [("base", BASE, base), ("tilted model", PRIOR, prior), ("held-out data", DATA, data)]
    there = [(label, colour, a) for label, colour, a in every if a is not None]
    limits = [common_limits([a[:, j] for _, _, a in there]) for j in range(d)]
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
            ax.xaxis.set_major_locator(MaxNLocator(3))
            if i == d - 1:
                ax.set_xlabel(names[j])
            if j == 0 and d > 1:
                ax.set_ylabel(names[i])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


@styled
def latents(site: str, sets: Sets, labels: np.ndarray | None) -> tuple[list[Figure], list[Figure]]:
    """Principal plane of one site's latents, a figure per set, and histograms along the first directions.

    A latent of one dimension has no plane, and its histogram tells the sets apart by a legend.
    """
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
    limits = [common_limits([v[:, i] for v in values]) for i in range(k)]
    planes, histograms = [], []
    for i in range(len(sets) if k > 1 else 0):
        figure, ax = blank(WIDTH / 3, 3.3)
        _scatter(ax, sets[i][:2], values[i], labels if i == len(sets) - 1 else None, limits)
        ax.set_xlabel(names[0])
        ax.set_ylabel(names[1])
        planes.append(figure)
    for i in range(k):
        figure, ax = blank(WIDTH / max(k, 2), 2.2)
        _histograms(ax, [(label, colour, v[:, i]) for (label, colour, _), v in zip(sets, values)], limits[i])
        ax.set_xlabel(names[i])
        if k == 1:
            ax.legend(fontsize=8)
        histograms.append(figure)
    return planes, histograms


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


def common_limits(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    """Common limits that leave out the farthest hundredth of each column."""
    ends = [np.quantile(c[np.isfinite(c)], (0.005, 0.995)) for c in columns if np.isfinite(c).any()] or [(0.0, 1.0)]
    low, high = min(float(e[0]) for e in ends), max(float(e[1]) for e in ends)
    margin = 0.12 * (high - low) or 0.5
    return low - margin, high + margin
