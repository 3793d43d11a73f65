"""The files of a run: JSON, page copies, example rows, metrics; every one written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.trees import tree_leaves

MANIFEST, METRICS, CHECKPOINT, REPORT = "manifest.json", "metrics.jsonl", "checkpoint.safetensors", "report.html"
PREVIOUS, TABLE, EVENTS, DIAGNOSIS = "checkpoint.previous.safetensors", "metrics.csv", "tensorboard", "diagnosis.html"
CALIBRATION, EVALUATION, ESTIMATES = "calibration.html", "evaluation.html", "estimates.html"
WRITTEN = (METRICS, TABLE, EVENTS)  # beside the checkpoint, in the course of a run


def write_whole(path: Path, content: str | bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part, and a kill leaves one of them.

    Args:
        path: of the file.
        content: text goes as UTF-8.
        before: called when the new content is on the disk, and has not its name yet.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        before()
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # systems that cannot open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    wanted = ("pplebm", "numpy", "torch", "pyro-ppl", "jax", "numpyro", "scikit-learn")
    found = {"python": platform.python_version()}
    for package in wanted:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, content: Any) -> None:
    """Write an object of JSON, whole."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read an object of JSON.

    Raises:
        PplebmError: if the file is damaged.
    """
    try:
        return json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:  # also of bytes that are no text
        raise PplebmError(f"'{path}' is damaged ({str(error).splitlines()[0]}); restore it, or fit again.") from error


def read_verified(path: Path, sha256: str | None) -> bytes:
    """Read a file that must be as the manifest says.

    Raises:
        PplebmError: if it is not there, or was changed.
    """
    if not os.path.isfile(path):
        raise PplebmError(f"'{path}' of the run is not there; restore it, or fit again.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PplebmError(f"'{path}' was changed since the run was fitted; restore it, or fit again.")
    return content


def keep_page(folder: Path, kind: str, text: str) -> tuple[str, str]:
    """Copy the text of a page into the run; returns the file's name and hash for the manifest."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    file = f"pages/{kind}.py"
    write_whole(folder / file, text)
    return file, hashlib.sha256(text.encode()).hexdigest()


def write_example(folder: Path, data: Any) -> tuple[str, str]:
    """Keep a few rows of the data: on which a model is run before it is known; returns the file's name and hash."""
    leaves, file = dict(tree_leaves(data)), io.BytesIO()
    if list(leaves) == [""]:
        name = "example.npy"
        np.save(file, data)
    else:
        name, kind = "example.npz", "tuple" if isinstance(data, tuple) else "mapping"
        np.savez(file, **{f"{kind}/{path}": a for path, a in leaves.items()})
    write_whole(folder / name, file.getvalue())
    return name, hashlib.sha256(file.getvalue()).hexdigest()


def read_example(folder: Path, name: str, sha256: str) -> Any:
    """The rows that `write_example` kept.

    Raises:
        PplebmError: if they are not there, or were changed.
    """
    content = io.BytesIO(read_verified(folder / name, sha256))
    if name == "example.npy":
        return np.load(content, allow_pickle=False)
    with np.load(content, allow_pickle=False) as file:
        arrays = {name.partition("/")[2]: file[name] for name in file.files}
        return tuple(arrays.values()) if file.files[0].startswith("tuple/") else arrays


def append_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to metrics.jsonl, but for those it has already."""
    known = read_metrics(folder)
    rows = [row for row in rows if not known or row["update"] > known[-1]["update"]]
    _write_metrics(folder, [*known, *rows])


def _write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_whole(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def write_csv(folder: Path) -> None:
    """The rows of metrics.jsonl as metrics.csv, for spreadsheets and data frames; what a row lacks is empty."""
    rows = read_metrics(folder)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / TABLE, text.getvalue())


def tensorboard() -> ModuleType:
    """The writer of TensorBoard's files.

    Raises:
        PplebmError: without the package.
    """
    try:
        return importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise PplebmError('these logs need TensorBoard: pip install "pplebm[tensorboard]".') from error


def write_tensorboard(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to the folder's event files, which `tensorboard --logdir RUNS` shows."""
    if not rows:
        return
    first = rows[0]["update"]  # of a resumed run: what an interrupted one wrote from there on is left out
    with tensorboard().SummaryWriter(folder / EVENTS, purge_step=first) as writer:
        for row in rows:
            for name, value in row.items():
                if name != "update":
                    writer.add_scalar(name, value, row["update"])


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; from a damaged one on they are left out."""
    path, rows = folder / METRICS, []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("update"), int):
            break
        rows.append(row)
    return rows


def cut_metrics(folder: Path, update: int) -> None:
    """Drop the rows after `update`, so that a continued run writes them once."""
    if (folder / METRICS).is_file():
        _write_metrics(folder, [row for row in read_metrics(folder) if row["update"] <= update])
