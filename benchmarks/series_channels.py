"""Anomalies and missing values of channels of two spacecraft, SMAP and MSL, by factors of windows.

    python benchmarks/series_channels.py --data data/SMAP_MSL --seeds 0 1 2

A channel is telemetry and, beside it, commands that were sent: 25 columns of SMAP, 55 of MSL. Channels are the first
of either spacecraft in the order of the alphabet, as many as --each says; parts to learn from and to score are as
given. All commands that change in the training part are modelled beside the telemetry, in windows of 64 points; others
are left out. Telemetry is scaled by its training part, commands stay 0 and 1. A tenth of the entries of the training
part, drawn at random, is missing, for the models as for the scores beside them: the distance of a window to the nearest
one of training, whose gaps are filled by straight lines, averaged over the windows that hold a point; the squared
distance of a point to the training mean; and random scores. Scores of points are averaged over columns; those of
telemetry alone stand beside. Blocks of 8 points of telemetry are taken out of windows that end before the first
labelled point, and intervals are of 200 posterior draws by chains that accept and reject, where telemetry moves at all
in training. The page has its own settings but for the latents, which are as many as in the paper. A seed starts
learning, and draws what is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from series_parts.channels import Channel, prepared, read
from series_parts.learned import How, Task, compare
from series_parts.tables import by_series, detection, figures, missing

RESULT = Path(__file__).with_suffix(".json")
WINDOW, STRIDE, MISSING = 64, 4, 0.1
HYPER = (("model.latent_dims", (20, 5)),)  # z1, z2: the paper's
EACH = 3  # channels of either spacecraft


def of_channel(channel: Channel, how: How, seed: int) -> dict[str, Any]:
    """Both models on one channel, and how many commands are modelled."""
    parts = prepared(channel, MISSING, seed)
    quiet = parts.test.values[: int(np.argmax(channel.labels))]
    whole = parts.test._replace(values=quiet) if parts.varies and len(quiet) >= WINDOW else None
    found = compare(Task(parts.train, parts.test, channel.labels.astype(int), whole), how, seed)
    return found | {"commands": parts.n_commands}


def table(rows: dict[str, Any]) -> str:
    """All tables in Markdown."""
    columns = [
        ("commands", "commands", "mean"), ("prevalence", "prevalence", "mean"),
        ("tilted, windows", "tilted", "log_joint", "vus_pr"), ("twin, windows", "twin", "log_joint", "vus_pr"),
        ("tilted, points", "tilted", "reconstruction", "vus_pr"),
        ("its telemetry", "tilted", "reconstruction of the first", "vus_pr"), ("nearest", "nearest", "vus_pr"),
        ("its telemetry", "nearest of the first", "vus_pr"), ("mean", "deviation", "vus_pr"),
        ("its telemetry", "deviation of the first", "vus_pr"), ("random", "random", "vus_pr", "mean"),
    ]  # fmt: skip
    prevalence = f"prevalence {figures(rows, 'prevalence')[0]:.3f}"
    parts = detection(rows), [prevalence], by_series(rows, "channel", columns, 2), missing(rows)
    return "\n\n".join("\n".join(lines) for lines in parts)


def main() -> None:
    """Every channel by every seed; figures are kept after each channel."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/SMAP_MSL"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--backend", default="numpyro")
    parser.add_argument("--each", type=int, default=EACH, help="Channels of either spacecraft, the first ones.")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    channels, rows = read(args.data, args.each), {}
    how = How(WINDOW, STRIDE, args.updates, args.backend, "none", HYPER)
    settings = {"updates": args.updates, "backend": args.backend, "window": WINDOW, "stride": STRIDE,
                "missing": MISSING, "each": args.each, "hyper": dict(HYPER)}  # fmt: skip
    for seed in args.seeds:
        rows[str(seed)] = {}
        for name, channel in channels.items():
            rows[str(seed)][name] = of_channel(channel, how, seed)
            print(seed, name, json.dumps(rows[str(seed)][name]), flush=True)
        args.out.write_text(json.dumps({"settings": settings, "seeds": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
