"""Pictures of ranks: arrays in, matplotlib figures out, in the style that the caller has set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from pplebm.calibration.uniformity import band, binned, distribution, ecdf_p_value

PANEL = (3.1, 2.2)  # inches
ACROSS = 3
RANKS, EXPECTED = "#0072b2", "#8c8c8c"  # told apart by colour-blind readers
LEVEL = 0.95


def ecdf_differences(ranks: dict[str, np.ndarray], n_draws: int) -> Figure:
    """A panel for every quantity: empirical distribution minus the uniform one, and the simultaneous 95 % band."""

    def draw(ax: Axes, r: np.ndarray) -> None:
        b = band(len(r), n_draws, LEVEL)
        ax.fill_between(b.at, b.low - b.at, b.high - b.at, step="mid", color=EXPECTED, alpha=0.35, linewidth=0)
        ax.step(b.at, distribution(r, n_draws) - b.at, where="mid", color=RANKS, linewidth=1.5)
        ax.axhline(0.0, color=EXPECTED, linewidth=0.8)
        ax.set_xlabel("share of the ranks")

    return _panels(ranks, n_draws, draw)


def rank_histograms(ranks: dict[str, np.ndarray], n_draws: int) -> Figure:
    """A panel for every quantity: histogram of ranks, as shares of what uniform ranks have, and a bar's 95 % range."""

    def draw(ax: Axes, r: np.ndarray) -> None:
        counts, expected, edges = binned(r, n_draws)
        low, high = stats.binom(len(r), expected / len(r)).interval(LEVEL)
        ax.stairs(counts / expected, edges, fill=True, color=RANKS, alpha=0.7)
        ax.stairs(high / expected, edges, baseline=low / expected, fill=True, color=EXPECTED, alpha=0.35)
        ax.axhline(1.0, color=EXPECTED, linewidth=0.8)
        ax.set_xlabel(f"rank among {n_draws} draws")

    return _panels(ranks, n_draws, draw)


def _panels(ranks: dict[str, np.ndarray], n_draws: int, draw: Callable[[Axes, np.ndarray], None]) -> Figure:
    across = min(ACROSS, len(ranks))
    down = -(-len(ranks) // across)
    figure = Figure(figsize=(PANEL[0] * across, PANEL[1] * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax, (name, r) in zip(axes, ranks.items(), strict=False):
        draw(ax, r)
        ax.set_title(f"{name}\np {ecdf_p_value(r, n_draws):.2g}")
    for ax in axes[len(ranks) :]:
        ax.remove()
    return figure
