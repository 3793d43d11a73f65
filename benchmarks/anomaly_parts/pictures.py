"""LLR^{>k} of normal data and of anomalies, for every k, as histograms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NORMAL, ANOMALIES = "#0072b2", "#d55e00"


def draw(rows: dict[str, dict[str, Any]], folder: Path) -> list[Path]:
    """A picture of every cell: a row of panels for each model, a panel for each k. Their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, row in rows.items():
        models = row["histograms"]
        scores = [s for s in models["tilted"] if s.startswith("llr>")]
        figure, axes = plt.subplots(len(models), len(scores), squeeze=False, layout="constrained",
                                    figsize=(4.0 * len(scores), 2.2 * len(models)))  # fmt: skip
        for i, (model, found) in enumerate(models.items()):
            for ax, score in zip(axes[i], scores, strict=True):
                panel(ax, found[score], f"{model}: {score}, nats; AUROC {row['models'][model][score]['auroc'][0]:.3f}")
        axes[0, 0].legend(frameon=False)
        figure.suptitle(name, fontsize=10)
        paths.append(folder / f"{re.sub('[^a-z0-9_]+', '-', name)}.png")
        figure.savefig(paths[-1], dpi=120)
        plt.close(figure)
    return paths


def panel(ax: Any, found: dict[str, Any], title: str) -> None:
    """Both kinds over common bins."""
    for kind, colour in (("normal", NORMAL), ("anomalies", ANOMALIES)):
        ax.stairs(found[kind], found["edges"], color=colour, fill=True, alpha=0.45, label=kind)
    ax.set_title(title, fontsize=9)
    ax.set_yticks([])
