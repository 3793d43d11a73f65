"""Data: what users give becomes rows to learn from and rows held out.

A name, path or array is read to a `Raw` (`sources`, `files`, `named`), checked and split (`raw`), scaled (`scaling`),
and leaves as a `Dataset` in the model's units, whose scaling leads back to the user's. `load` does so for pages that
see one array; `load_as_given` (`given`, `columns`) for a user's own program, whose arguments pick arrays and columns
by name. A series (`series`) is cut into windows (`cuts`). Nothing is downloaded, and nothing is unpickled here.
"""

import hashlib
import numbers
import os
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.data.columns import is_frame
from pplebm.data.cuts import Cut, Windows, windows
from pplebm.data.dataset import Dataset
from pplebm.data.files import read_file
from pplebm.data.given import UNSCALED, load_as_given, read_rows, rescaled, scaling_for
from pplebm.data.mapped import chunks, extremes, is_large, only
from pplebm.data.named import READERS
from pplebm.data.raw import Raw, check_finite, checked, column_name, split
from pplebm.data.scaling import Scaling, Scalings, range_of, scaling_from_json, standard_of, standard_of_all
from pplebm.data.series import Series, read_series
from pplebm.data.sources import check_exists
from pplebm.errors import PplebmError

__all__ = [
    "Cut", "Dataset", "Scaling", "Scalings", "Series", "Windows", "batches", "load", "load_as_given", "load_for",
    "names", "read_rows", "read_series", "rescaled", "scaling_for", "scaling_from_json", "windows",
]  # fmt: skip
SCALINGS = ("auto", "unit", "standard", "none")


Source = str | os.PathLike[str] | np.ndarray | Dataset


def names() -> tuple[str, ...]:
    """The data sets known by name.

    >>> names()
    ('digits', 'mnist', 'fashion_mnist', 'cifar10', 'svhn')
    """
    return tuple(READERS)


def load(
    source: Source,
    data_dir: str | os.PathLike[str] | None = None,
    held_out_fraction: float = 0.2,
    seed: int = 0,
    scaling: str = "auto",
) -> Dataset:
    """Read, check, split and scale `source`: a name, a path (.npy .npz .csv .csv.gz), an array, or a Dataset as it is.

    By "auto", tables (N, C) are standardised per column; images (N, H, W) or (N, H, W, C) go to [-1, 1], from 0..255
    when they are uint8 and from their own range otherwise; statistics are those of the training rows. "unit" and
    "standard" do either to both, "none" neither. `data_dir` (default: the folder `data` where Python runs) is
    torchvision's `root` for named sets. `held_out_fraction` and `seed` split sources without a held-out part, class by
    class where there are labels; a fraction of 0 holds out none. A .npy file of more than 1 GiB, or an array of that
    size mapped with numpy.load(mmap_mode="r"), stays in its file: rows are read, and scaled, when they are wanted.
    Raises PplebmError, in one sentence, for a source that is missing, damaged, or cannot be modelled.

    >>> digits = load("digits", held_out_fraction=0.2, seed=0)
    >>> digits.train.shape, digits.held_out.shape, float(digits.train.min()), float(digits.train.max())
    ((1438, 8, 8), (359, 8, 8), -1.0, 1.0)
    >>> table = load(np.random.default_rng(0).normal(5.0, 2.0, (100, 3)), seed=1)
    >>> table.scaling.kind, table.train.shape, bool(abs(table.train.mean()) < 1e-6)
    ('standard', (80, 3), True)
    """
    if isinstance(source, Dataset):
        return source
    if scaling not in SCALINGS:
        raise PplebmError(f"scaling '{scaling}' is not known; choose one of {', '.join(SCALINGS)}")
    _check_count("seed", seed, 0)
    check_fraction(held_out_fraction)
    raw = checked(_read(source, data_dir))
    if raw.held_out is None:
        keep, hold = split(len(raw.x), float(held_out_fraction), seed, raw.y)
        y, y_held_out = (None, None) if raw.y is None else (raw.y[keep], raw.y[hold])
        raw = raw._replace(x=only(raw.x, keep), held_out=only(raw.x, hold), y=y, y_held_out=y_held_out)
    found, notes = (UNSCALED, ()) if scaling == "none" else _fit(raw, scaling)
    train, held_out = (_scaled(raw.name, found, part) for part in (raw.x, raw.held_out))
    fingerprint = hashlib.sha256()
    for part in (train, held_out):
        for rows in chunks(part, "fingerprint"):
            fingerprint.update(rows.data)
    return Dataset(
        raw.name, train, held_out, raw.y, raw.y_held_out, found, raw.notes + notes, fingerprint.hexdigest(),
        columns=raw.columns,
    )  # fmt: skip


def load_for(
    scaling: Scaling, event_shape: tuple[int, ...], source: Source, data_dir: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """New data (N, *event_shape), float32, on the scale of a model that exists.

    A source with a held-out part of its own (mnist, an .npz with x_test, a Dataset) gives that part; every other source
    gives all its rows, in their order. Raises PplebmError as `load` does, and when the shape is not the model's.

    >>> model = load("digits")
    >>> bool((load_for(model.scaling, model.event_shape, np.full((3, 8, 8), 16.0)) == 1).all())
    True
    """
    if isinstance(source, Dataset):
        raw = Raw(source.name, source.scaling.to_user(source.held_out))
    else:
        raw = checked(_read(source, data_dir), least_rows=1)
    x = raw.x if raw.held_out is None else raw.held_out
    if x.shape[1:] != tuple(event_shape):
        raise PplebmError(
            f"{raw.name}: each row has shape {x.shape[1:]} but the model was learned on rows of shape "
            f"{tuple(event_shape)}; pass an array of shape (rows, {', '.join(map(str, event_shape))})"
        )
    return _scaled(raw.name, scaling, x)


def batches(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The index arrays (batch_size,) of one epoch over `n` rows: a permutation that depends on (seed, epoch) alone.

    The last, short batch is dropped. Raises PplebmError when `batch_size` exceeds `n` (it is never reduced silently,
    since learning rates are chosen for a batch size), or when an argument is not a count.

    >>> batches(5, 2, seed=0, epoch=0)
    [array([0, 3]), array([2, 1])]
    """
    for name, value, least in (("n", n, 1), ("batch_size", batch_size, 1), ("seed", seed, 0), ("epoch", epoch, 0)):
        _check_count(name, value, least)
    if batch_size > n:
        raise PplebmError(f"batch_size {batch_size} exceeds the {n} training rows; pass batch_size={n} or less")
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(n)
    return list(order[: n - n % batch_size].reshape(-1, batch_size))


def _read(source: Any, data_dir: str | os.PathLike[str] | None) -> Raw:
    if isinstance(source, str) and source in READERS:
        return READERS[source](Path("data" if data_dir is None else data_dir).expanduser().absolute())
    if is_frame(source):
        columns = {str(name): np.asarray(source[name]) for name in source.columns}
        return Raw("table", np.stack(list(columns.values()), 1), columns=tuple(columns))
    if hasattr(source, "detach"):
        source = source.detach().cpu().numpy()
    if not isinstance(source, (str, os.PathLike)):
        return Raw("array", np.asarray(source) if type(source).__module__.startswith("jax") else source)
    return read_file(check_exists(source))


def _fit(raw: Raw, kind: str = "auto") -> tuple[Scaling, tuple[str, ...]]:
    """The scaling of the training rows and what is to be said about it."""
    low, high = extremes(raw.x)
    constant = np.flatnonzero(low == high)
    if len(constant) == low.size:
        raise PplebmError(
            f"{raw.name}: all {len(raw.x)} training rows are equal, so there is nothing to learn; check how it was made"
        )
    if kind == "standard" and raw.x.ndim > 2:
        return standard_of_all(raw.x), ()
    if raw.x.ndim == 2 and kind != "unit":
        shown = ", ".join(column_name(int(i), raw.columns) for i in constant[:5])
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        note = f"constant in the training rows, so left unscaled: column {shown}{more}"
        return standard_of(raw.x), ((note,) if len(constant) else ())
    notes = []
    if len(constant):
        notes.append(f"{len(constant)} of {low.size} features are constant in the training rows")
    limits = raw.limits
    if limits is None and raw.x.dtype == np.uint8:
        limits = (0.0, 255.0)
        if high.max() < 64:
            notes.append(f"uint8 images are scaled from 0..255 but reach only {high.max()}; pass floats to scale by it")
    return range_of(*(limits or (float(low.min()), float(high.max())))), tuple(notes)


def _scaled(name: str, scaling: Scaling, x: Any) -> Any:
    model = scaling.to_model(x) if is_large(x) else np.ascontiguousarray(scaling.to_model(x))
    check_finite(f"{name}, scaled to the model's float32 values,", model)
    return model


def check_fraction(value: Any) -> None:
    if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise PplebmError(f"held_out_fraction must lie in [0, 1) but is {value!r}; try 0.2")


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise PplebmError(f"{name} must be a whole number of at least {least} but is {value!r}; pass such a number")
