"""The files of a run: manifest, metrics, checkpoints; every one written whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from pplebm.errors import PplebmError
from pplebm.learning.loop import Progress
from pplebm.ppl.language import PPL
from pplebm.ppl.trees import tree_fill, tree_leaves

MANIFEST, METRICS, CHECKPOINT, REPORT = "manifest.json", "metrics.jsonl", "checkpoint.safetensors", "report.html"
DIAGNOSIS = "diagnosis.html"


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader sees the old content or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


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
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise PplebmError(f"'{path}' is damaged ({error}); restore it, or fit again.") from error


def keep_page(folder: Path, kind: str, text: str) -> tuple[str, str]:
    """Copy the text of a page into the run; returns the file's name and hash for the manifest."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    file = f"pages/{kind}.py"
    write_whole(folder / file, text)
    return file, hashlib.sha256(text.encode()).hexdigest()


def write_example(folder: Path, data: Any) -> None:
    """Keep a few rows of the data: what a model has to be run on before it is known."""
    leaves = dict(tree_leaves(data))
    if list(leaves) == [""]:
        np.save(folder / "example.npy", data)
        return
    kind = "tuple" if isinstance(data, tuple) else "mapping"
    np.savez(folder / "example.npz", **{f"{kind}/{path}": a for path, a in leaves.items()})


def read_example(folder: Path) -> Any:
    """The rows that `write_example` kept."""
    if (folder / "example.npy").exists():
        return np.load(folder / "example.npy", allow_pickle=False)
    with np.load(folder / "example.npz", allow_pickle=False) as file:
        arrays = {name.partition("/")[2]: file[name] for name in file.files}
        return tuple(arrays.values()) if file.files[0].startswith("tuple/") else arrays


def write_checkpoint(folder: Path, ppl: PPL, progress: Progress) -> None:
    """Write checkpoint.safetensors: parameters, optimiser, last good state, counters; nothing is pickled."""
    arrays, numbers = {}, {}
    for path, leaf in tree_leaves(progress):
        if hasattr(leaf, "shape"):
            arrays[path] = ppl.to_numpy(leaf)
        else:
            numbers[path] = leaf
    partial = folder / (CHECKPOINT + ".partial")
    save_file(arrays, partial, metadata={"numbers": json.dumps(numbers)})
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, folder / CHECKPOINT)


def read_checkpoint(folder: Path, ppl: PPL, template: Progress) -> Progress:
    """Read the last complete checkpoint into the structure of `template`.

    Raises:
        PplebmError: if there is none, or it belongs to another model.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise PplebmError(f"'{folder}' holds no checkpoint yet; the run was stopped before its first one.")
    with safe_open(path, framework="numpy") as file:
        leaves: dict[str, Any] = json.loads(file.metadata()["numbers"])
        for name in file.keys():  # noqa: SIM118
            leaves[name] = ppl.asarray(file.get_tensor(name), keep=True)
    wanted = dict(tree_leaves(template))
    if set(wanted) != set(leaves):
        odd = sorted(set(wanted) ^ set(leaves))[0]
        raise PplebmError(f"the checkpoint in '{folder}' belongs to another model or algorithm ('{odd}' differs).")
    for name, leaf in wanted.items():
        if hasattr(leaf, "shape") and tuple(leaf.shape) != tuple(leaves[name].shape):
            have, want = tuple(leaves[name].shape), tuple(leaf.shape)
            raise PplebmError(f"'{name}' has shape {have} in the checkpoint and {want} in the model.")
    return tree_fill(template, leaves)


def read_params(folder: Path) -> dict[str, np.ndarray]:
    """Learned parameters of a run by name, running averages where it keeps them.

    Raises:
        PplebmError: if the folder holds no checkpoint.
    """
    path, found = folder / CHECKPOINT, dict[str, np.ndarray]()
    if not path.is_file():
        raise PplebmError(f"'{folder}' holds no checkpoint to start from; give the folder of a run.")
    with safe_open(path, framework="numpy") as file:
        for start in ("state/params/", "average/"):
            names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118
            found |= {name.removeprefix(start): file.get_tensor(name) for name in names}
    return found


def append_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to metrics.jsonl, but for those it has already."""
    known = read_metrics(folder)
    rows = [row for row in rows if not known or row["update"] > known[-1]["update"]]
    with open(folder / METRICS, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_csv(folder: Path) -> Path:
    """The rows of metrics.jsonl as metrics.csv, for spreadsheets and data frames; what a row lacks is empty."""
    rows = read_metrics(folder)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path = folder / "metrics.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


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
    with tensorboard().SummaryWriter(folder / "tensorboard", purge_step=first) as writer:
        for row in rows:
            for name, value in row.items():
                if name != "update":
                    writer.add_scalar(name, value, row["update"])


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a row cut short by a kill is left out."""
    path, rows = folder / METRICS, []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def cut_metrics(folder: Path, update: int) -> None:
    """Drop the rows after `update`, so that a continued run writes them once."""
    kept = [row for row in read_metrics(folder) if row["update"] <= update]
    write_whole(folder / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
