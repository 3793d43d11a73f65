"""The section of a report that `pplebm diagnose` writes: tables and pictures of long chains beside short runs."""

from __future__ import annotations

import html as markup
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pplebm.report import captions
from pplebm.report.figures import BASE, POSTERIOR, PRIOR, WIDTH, blank, styled
from pplebm.report.page import picture
from pplebm.report.tables import reflowing
from pplebm.runs.short_run_bias import Bias, Comparison
from pplebm.sampling.diagnostics import Row

N_SHOWN = 6  # scalars of a picture: those that look worst
NARROW = WIDTH / N_SHOWN
MAX_LAG = 40


def section(found: list[Comparison], updates: int) -> str:
    """The whole section, marked with the updates the run had when it was examined."""
    parts = "".join("".join(_target(target)) for target in found)
    return (
        f'<!-- after {updates} updates --><section id="diagnosis"><h2>Long chains and short runs</h2>{parts}</section>'
    )


def _target(found: Comparison) -> Iterator[str]:
    d = found.diagnosis
    colour = PRIOR if found.long.data is None else POSTERIOR
    yield f"<h3>{markup.escape(found.title)}</h3>"
    sentences = d.verdict or [
        "The long chains agree: no R-hat, sample size, divergence or energy gives cause for doubt."
    ]
    yield "<ul>" + "".join(f"<li>{markup.escape(s)}</li>" for s in sentences) + "</ul>"
    yield table(found)
    yield picture(captions.SHIFTS, "short run and long chains", shifts(found, colour))
    yield picture(captions.RANKS, "rank plots", ranks(found))
    if "energy" in found.long.stats:
        yield picture(captions.ENERGIES, "energy of the chains", [energies(found)])
    yield picture(captions.AUTOCORRELATIONS, "autocorrelations", autocorrelations(found))


def lines(found: Comparison) -> list[tuple[str, ...]]:
    """The table as text: scalars that look worst, long chains and short run side by side."""
    rows = {row.name: row for row in found.diagnosis.rows}
    told = []
    for bias in worst_biases(found, 2 * N_SHOWN):
        row = rows.get(bias.name)
        quality = ("", "", "") if row is None else (f"{row.r_hat:.3f}", f"{row.ess_bulk:.0f}", f"{row.ess_tail:.0f}")
        numbers = (bias.long_mean, bias.long_sd, bias.short_mean, bias.short_sd)
        told.append((bias.name, *(f"{v:.3g}" for v in numbers), f"{bias.shift:+.2f}", f"{bias.sigmas:+.1f}", *quality))
    return told


HEAD = ("scalar", "mean", "sd", "short: mean", "short: sd", "shift, sd", "σ", "R-hat", "ESS bulk", "ESS tail")


def table(found: Comparison) -> str:
    """The table of the page."""
    rows = [[markup.escape(cell) for cell in row] for row in lines(found)]
    return reflowing("scalars", HEAD, rows) + f'<p class="soft">{captions.SCALARS}</p>'


def worst_biases(found: Comparison, n: int) -> list[Bias]:
    """Scalars by the size of their shift, the largest first; tilt and likelihood always among them."""
    ordered = sorted(found.biases, key=lambda b: -abs(b.shift))
    special = [b for b in ordered if "(" in b.name]
    return special[: n // 2] + [b for b in ordered if "(" not in b.name][: n - min(len(special), n // 2)]


def _worst_rows(found: Comparison) -> list[Row]:
    return sorted(found.diagnosis.rows, key=lambda r: -(r.r_hat if np.isfinite(r.r_hat) else 0.0))[:N_SHOWN]


def _scalar(arrays: dict[str, np.ndarray], name: str, leading: int) -> np.ndarray:
    site, _, rest = name.partition("[")
    index = tuple(int(i) for i in rest.rstrip("]").split(",")) if rest else ()
    return arrays[site][(slice(None),) * leading + index]


def _bins(values: np.ndarray, n: int) -> np.ndarray:
    """Edges that leave out the farthest values."""
    low, high = (float(q) for q in np.quantile(values, (0.002, 0.998)))
    return np.linspace(low, high, n)


@styled
def shifts(found: Comparison, colour: str) -> list[Figure]:
    """Histograms of the scalars whose short run differs most."""
    drawn = []
    for bias in [b for b in worst_biases(found, 2 * N_SHOWN) if "(" not in b.name][:N_SHOWN]:
        long = _scalar(found.long.values, bias.name, 2).ravel()
        short = _scalar(found.short, bias.name, 1)
        bins = _bins(np.concatenate([long, short]), 31)
        figure, ax = blank(NARROW, 1.8, bias.name)
        ax.stairs(np.histogram(long, bins, density=True)[0], bins, fill=True, color=BASE, alpha=0.4)
        ax.stairs(np.histogram(short, bins, density=True)[0], bins, color=colour, linewidth=1.5)
        ax.set_yticks([])
        drawn.append(figure)
    return drawn


@styled
def ranks(found: Comparison) -> list[Figure]:
    """Histograms of ranks, a line per chain, as shares of what equal chains would have."""
    drawn = []
    for row in _worst_rows(found):
        x = _scalar(found.long.values, row.name, 2)
        n_bins = max(4, min(10, x.shape[1] // 20))
        order = x.ravel().argsort().argsort().reshape(x.shape)
        figure, ax = blank(NARROW, 1.8, f"{row.name}\nR-hat {row.r_hat:.3f}")
        for chain, shade in zip(order, matplotlib.colormaps["viridis"](np.linspace(0, 1, len(x)))):
            counts = np.histogram(chain, n_bins, (0, x.size))[0] * n_bins / x.shape[1]
            ax.stairs(counts, color=shade, linewidth=0.8, alpha=0.8)
        ax.axhline(1.0, color=BASE, linewidth=1.5)
        ax.set_ylim(0, None)
        ax.set_xticks([])
        drawn.append(figure)
    return drawn


@styled
def energies(found: Comparison) -> Figure:
    """Marginal energy and energy transitions."""
    energy = found.long.stats["energy"]
    centered, change = (energy - energy.mean(1, keepdims=True)).ravel(), np.diff(energy, axis=1).ravel()
    figure, ax = blank(WIDTH / 2, 2.4)
    bins = _bins(np.concatenate([centered, change]), 41)
    ax.stairs(np.histogram(centered, bins, density=True)[0], bins, fill=True, color=BASE, alpha=0.5, label="energy")
    ax.stairs(np.histogram(change, bins, density=True)[0], bins, color=PRIOR, linewidth=1.5, label="changes")
    ax.set_yticks([])
    ax.set_xlabel(f"nats; smallest BFMI {found.diagnosis.bfmi:.2f}")
    ax.legend(fontsize=8)
    return figure


def autocorrelation(x: np.ndarray, n_lags: int) -> np.ndarray:
    """Autocorrelation of the last axis at lags 0 to n_lags - 1.

    >>> autocorrelation(np.array([1., -1., 1., -1.]), 2).tolist()
    [1.0, -0.75]
    """
    centered = x - x.mean(-1, keepdims=True)
    products = [(centered[..., : x.shape[-1] - k] * centered[..., k:]).sum(-1) for k in range(n_lags)]
    return np.stack(products, -1) / np.maximum(products[0], 1e-30)[..., None]


@styled
def autocorrelations(found: Comparison) -> list[Figure]:
    """Autocorrelation of the worst scalars, on one axis."""
    drawn, lowest = [], -0.05
    for row in _worst_rows(found):
        x = _scalar(found.long.values, row.name, 2)
        by_lag = autocorrelation(x, min(MAX_LAG, x.shape[1] // 2)).T
        figure, ax = blank(NARROW, 1.8, f"{row.name}\nESS {row.ess_bulk:.0f}")
        ax.plot(by_lag, color=POSTERIOR, alpha=0.4, linewidth=0.8)
        ax.axhline(0.0, color=BASE, linewidth=1.0)
        ax.set_xlabel("lag")
        lowest = min(lowest, 1.05 * float(by_lag.min()))
        drawn.append(figure)
    for figure in drawn:
        figure.axes[0].set_ylim(lowest, 1.05)
    return drawn
