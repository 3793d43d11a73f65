"""Checkpoints: all numbers of a run as safetensors, each with its SHA-256; the last two are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning.loop import Progress
from pplebm.ppl.language import PPL
from pplebm.ppl.trees import tree_fill, tree_leaves
from pplebm.runs.files import CHECKPOINT, PREVIOUS, write_whole

AVERAGE, PARAMS = "average/", "state/params/"


def write_checkpoint(folder: Path, ppl: PPL, progress: Progress) -> None:
    """Write checkpoint.safetensors: parameters, optimiser, last good state, counters; nothing is pickled.

    The one before it becomes checkpoint.previous.safetensors.
    """
    arrays, numbers = {}, {}
    for path, leaf in tree_leaves(progress):
        if hasattr(leaf, "shape"):
            arrays[path] = np.ascontiguousarray(ppl.to_numpy(leaf)).reshape(tuple(leaf.shape))
        else:
            numbers[path] = leaf
    text = json.dumps(numbers)
    digests = {path: _digest(a) for path, a in arrays.items()} | {"": hashlib.sha256(text.encode()).hexdigest()}
    content = save(arrays, metadata={"numbers": text, "sha256": json.dumps(digests)})
    write_whole(folder / CHECKPOINT, content, lambda: _link(folder / CHECKPOINT, folder / PREVIOUS))


def read_checkpoint(folder: Path, ppl: PPL, template: Progress, mend: bool = False) -> Progress:
    """Read the last checkpoint that is whole into the structure of `template`.

    Args:
        folder: of the run.
        ppl: makes arrays of it.
        template: progress before the first update.
        mend: put the previous checkpoint in the place of the last if that is damaged.

    Raises:
        PplebmError: if there is none, or it belongs to another model.
    """
    path, leaves = _last_whole(folder)
    if mend and path.name == PREVIOUS:
        _link(path, folder / CHECKPOINT)
    wanted = dict(tree_leaves(template))
    if set(wanted) != set(leaves):
        odd = sorted(set(wanted) ^ set(leaves))[0]
        raise PplebmError(f"the checkpoint in '{folder}' belongs to another model or algorithm ('{odd}' differs).")
    for name, leaf in wanted.items():
        if hasattr(leaf, "shape"):
            have, want = np.shape(leaves[name]), tuple(leaf.shape)
            if have != want:
                raise PplebmError(f"'{name}' has shape {have} in the checkpoint and {want} in the model.")
    arrays = {n: ppl.asarray(a, keep=True) if isinstance(a, np.ndarray) else a for n, a in leaves.items()}
    return tree_fill(template, arrays)


def read_params(folder: Path) -> dict[str, np.ndarray]:
    """Learned parameters of a run by name, running averages where it keeps them.

    Raises:
        PplebmError: if the folder holds no checkpoint.
    """
    if not has_checkpoint(folder):
        raise PplebmError(f"'{folder}' holds no checkpoint to start from; give the folder of a run.")
    leaves, found = _last_whole(folder)[1], dict[str, np.ndarray]()
    for start in (PARAMS, AVERAGE):
        found |= {name.removeprefix(start): a for name, a in leaves.items() if name.startswith(start)}
    return found


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint."""
    return any(os.path.isfile(folder / name) for name in (CHECKPOINT, PREVIOUS))


def _last_whole(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The last checkpoint that can be read and has its checksums, with arrays and numbers by path."""
    if not has_checkpoint(folder):
        raise PplebmError(f"'{folder}' holds no checkpoint yet; the run was stopped before its first one.")
    faults = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        try:
            leaves = _leaves(path)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"'{path}' is damaged ({str(error).splitlines()[0] if str(error) else 'it is empty'})")
            continue
        if faults:
            warnings.warn(
                f"{faults[0]}; the checkpoint before it, of update {leaves['update']}, is used.", PplebmWarning,
                stacklevel=4,
            )  # fmt: skip
        return path, leaves
    raise PplebmError(f"{faults[0]}, and there is no whole one before it; restore it from a copy, or fit again.")


def _leaves(path: Path) -> dict[str, Any]:
    """All of a checkpoint by path; ValueError if a checksum does not match."""
    if not os.path.isfile(path):
        raise ValueError("it is not there")
    with safe_open(path, framework="numpy") as file:
        kept = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not {"numbers", "sha256"} <= set(kept):
        raise ValueError("it has no checksums")
    digests = json.loads(kept["sha256"])
    if set(digests) != {"", *arrays} or hashlib.sha256(kept["numbers"].encode()).hexdigest() != digests[""]:
        raise ValueError("its list of arrays does not match its checksums")
    for name, a in arrays.items():
        if _digest(a) != digests[name]:
            raise ValueError(f"'{name}' does not match its checksum")
    return arrays | json.loads(kept["numbers"])


def _digest(a: np.ndarray) -> str:
    """SHA-256 of an array: its type, its shape, its bytes."""
    found = hashlib.sha256(f"{a.dtype.str} {a.shape} ".encode())
    found.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, that of the target, so that at no instant a name is missing."""
    if not source.exists():
        return
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:  # a disk without links
        with contextlib.suppress(FileNotFoundError):
            os.replace(source, target)
        return
    os.replace(partial, target)
