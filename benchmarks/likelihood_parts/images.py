"""Sets of images, and the evidence of models of them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pplebm import data
from pplebm.data import Dataset
from pplebm.data.given import UNSCALED
from pplebm.errors import PplebmError

IMAGES = {"digits": 200, "mnist": 400, "fashion_mnist": 100, "omniglot": 100, "binary_mnist": 400}  # held out
BINARY = {"binary_mnist": "mnist"}  # of which set, binarised
ARCHIVE = "images_background_small1.zip"
SIDE, WHITE = 28, 255


def image_set(name: str, data_dir: str | None, seed: int, visits: int) -> Dataset:
    """Images with pixels in [-1, 1] or, of a binary set, in {0, 1}; 28 x 28 or, of digits, 8 x 8.

    Args:
        name: of the set.
        data_dir: where it lies.
        seed: of what is drawn.
        visits: images that learning will look at, repetitions counted.

    Raises:
        PplebmError: if they are not in the folder.
    """
    if name in BINARY:
        return binarised(image_set(BINARY[name], data_dir, seed, visits), name, visits, seed)
    if name != "omniglot":
        return data.load(name, data_dir, seed=seed)
    found = data.load(omniglot(Path(data_dir or "data")), seed=seed)
    return found._replace(name="omniglot")


def binarised(grey: Dataset, name: str, visits: int, seed: int) -> Dataset:
    """Pixels that are 1 with the probability of their grey: training images drawn anew for every visit.

    There are as many copies of the training images as learning passes through them, each binarised by draws of its own,
    so that no update sees one twice (dynamic binarisation); held-out images are binarised once.
    """
    rng, n = np.random.default_rng(seed), grey.n_train
    draws = lambda x: (rng.random(x.shape, np.float32) < (x + 1.0) / 2.0).astype(np.float32)
    held_out = draws(grey.held_out)
    train = np.empty((max(1, -(-visits // n)) * n, *grey.event_shape), np.float32)
    for begin in range(0, len(train), n):
        train[begin : begin + n] = draws(grey.train)
    text = f"{grey.fingerprint} {name} {len(train)} {seed}"
    return grey._replace(
        name=name, train=train, held_out=held_out, train_labels=None, held_out_labels=None, scaling=UNSCALED, notes=(),
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )  # fmt: skip


def omniglot(root: Path) -> np.ndarray:
    """Characters of `root`/omniglot, (2720, 28, 28), 0 to 255: ink is white as in MNIST, shrunk by mean grey.

    Raises:
        PplebmError: if the archive is not there.
    """
    from PIL import Image

    path = root / "omniglot" / ARCHIVE
    if not path.is_file():
        raise PplebmError(
            f"'omniglot' was looked for at {path}, which is not there; fetch python/{ARCHIVE} of "
            f"github.com/brendenlake/omniglot once, and pass the data_dir that holds its folder."
        )
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("L") for name in names]
    small = [np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BOX)) for p in pictures]
    return (WHITE - np.stack(small)).astype(np.uint8)


def evidence_rows(run: Any, twin: Any, x: Any, seed: int) -> tuple[dict[str, dict[str, Any]], float]:
    """Figures by model of the same held-out data x, in model units, and the minutes that they took."""
    from pplebm.runs.evaluate import compared, evaluate

    rows, found = evaluate(run, run.to_user(x), twin, seed=seed, progress=False), {}
    names = {"tilted model": "tilted", "its base": "base", "twin": "twin", "model": "model"}
    for row in rows:
        found[names[row.model]] = {
            "mean": row.mean, "error": row.error, "data_error": row.data_error, "bits": row.bits, "log_z": row.log_z,
            "log_z_error": row.log_z_error, "refused": int((~row.evidence.is_trusted).sum()),
        }  # fmt: skip
        if twin is not None and row.model != "twin":
            gain, error = compared(row.evidence, rows[-1].evidence)
            found[names[row.model]] |= {"gain": gain, "gain_error": error}
    return found, sum(row.seconds for row in rows) / 60.0
