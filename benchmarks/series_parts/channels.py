"""Channels of the spacecraft SMAP and MSL: telemetry, the commands sent beside it, and which points are anomalous."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pplebm.data import Series

FILE = "smap_msl_subset.npz"
N_COLUMNS = {"SMAP": 25, "MSL": 55}


class Channel(NamedTuple):
    """One channel as it is given: (points, columns), telemetry first, and a label of every point of the second part."""

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def read(folder: Path, n_each: int | None = None) -> dict[str, Channel]:
    """Channels by name, the first ones of either spacecraft in the order of the alphabet, SMAP's before MSL's.

    Args:
        folder: holds `FILE`, whose arrays are <channel>_train, <channel>_test and <channel>_label.
        n_each: of SMAP and of MSL; all if left out.
    """
    path = folder / FILE
    if not path.is_file():
        sys.exit(
            f"{path} is not there. It holds, for each channel, <channel>_train and <channel>_test (points, columns) "
            f"and <channel>_label (points,): 25 columns of SMAP, 55 of MSL. The arrays are in the repository of TranAD "
            f"(imperial-qore/TranAD, data/SMAP_MSL), the labelled sequences in that of telemanom "
            f"(khundman/telemanom, labeled_anomalies.csv)."
        )
    with np.load(path) as kept:
        names = sorted({name.rpartition("_")[0] for name in kept.files})
        found = {name: Channel(*(kept[f"{name}_{part}"] for part in ("train", "test", "label"))) for name in names}
    chosen: dict[str, Channel] = {}
    for n in N_COLUMNS.values():
        chosen |= dict([(name, one) for name, one in found.items() if one.train.shape[1] == n][:n_each])
    return chosen


class Parts(NamedTuple):
    """Both parts in model units, in the columns that are modelled; entries of the first are missing."""

    train: Series
    test: Series
    n_commands: int  # columns beside the telemetry
    varies: bool  # the telemetry does, in the first part


def prepared(channel: Channel, missing: float, seed: int) -> Parts:
    """Take entries out of the training part at random, choose columns and scale, by what is left of that part.

    Telemetry is brought to mean 0 and standard deviation 1; where it is constant it is shifted alone, and its unit is
    that of the file. Commands are 0 or 1 and stay so but for their mean. Those that never change in training say
    nothing there and are left out.
    """
    rng = np.random.default_rng(seed)
    train = np.where(rng.random(channel.train.shape) < missing, np.nan, channel.train.astype(float))
    varies = np.nanmin(train, 0) < np.nanmax(train, 0)
    kept = np.flatnonzero(varies | (np.arange(train.shape[1]) == 0))
    mean, scale = np.nanmean(train[:, kept], 0), np.ones(len(kept))
    scale[0] = np.nanstd(train[:, 0]) if varies[0] else 1.0
    names = ("telemetry", *(f"command {i}" for i in kept[1:]))
    series = [
        Series(name, (a[:, kept] - mean) / scale, names) for name, a in (("train", train), ("test", channel.test))
    ]
    return Parts(series[0], series[1], len(kept) - 1, bool(varies[0]))
