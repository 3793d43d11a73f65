"""netCDF files that grow along their draws, whole at any instant: a writer that is killed leaves what was there."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import load_file, save_file

NUMBERS_PER_CHUNK = 500_000  # of an array in the file, which are read together

Written = list[tuple[int, bytes]]  # where, and what


class HeldFile(io.RawIOBase):
    """A file whose end alone is written to: what would change bytes that are there is held, and read back from here.

    HDF5 appends arrays at the end of a file and then changes a few bytes of its tables; as long as these are held, the
    file is what it was, with something at its end that nobody reads.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115
        self._length = self._file.seek(0, os.SEEK_END)
        self.held: Written = []

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        view, at = memoryview(buffer).cast("B"), self.tell()
        n = self._file.readinto(view) or 0
        for start, data in self.held:
            low, high = max(start, at), min(start + len(data), at + n)
            if low < high:
                view[low - at : high - at] = data[low - start : high - start]
        return n

    def write(self, buffer: Any) -> int:
        view, at = memoryview(buffer).cast("B"), self.tell()
        n_held = min(max(0, self._length - at), len(view))
        if n_held:
            self.held.append((at, bytes(view[:n_held])))
            self.seek(at + n_held)
        done = n_held
        while done < len(view):
            done += self._file.write(view[done:])
        return done

    def truncate(self, size: int | None = None) -> int:
        """Longer, or no change: what a shorter file would lose may still be read."""
        size = self.tell() if size is None else size
        return self._file.truncate(size) if size > self._file.seek(0, os.SEEK_END) else size

    def flush(self) -> None:
        """Nothing is buffered."""

    def end(self, keep: bool) -> None:
        """Close the file, with or without what was put at its end."""
        if keep:
            os.fsync(self._file.fileno())
        else:
            self._file.truncate(self._length)
        self._file.close()


def append(path: Path, arrays: Mapping[str, np.ndarray], made: int, facts: Mapping[str, float]) -> Written:
    """Put draws behind the first `made` ones; they are there once what is returned has been noted and settled.

    Args:
        arrays: (chains, new draws, ...) by the path of a variable in the file; numbers of draws have one axis.
        facts: attributes to be changed, "group/attribute".
    """
    held = HeldFile(path)
    try:
        with h5py.File(held, "r+") as file:
            for name, a in arrays.items():
                axis = min(1, a.ndim - 1)
                file[name].resize(made + a.shape[axis], axis)
                file[name][(slice(None),) * axis + (slice(made, None),)] = a
            for name, fact in facts.items():
                group, attribute = name.split("/")
                file[group].attrs.modify(attribute, fact)
    except BaseException:
        held.end(keep=False)
        raise
    held.end(keep=True)
    return held.held


def rewrite(path: Path, written: Written) -> None:
    """Change bytes of a file; doing so twice is the same as once."""
    with open(path, "r+b", buffering=0) as file:
        for at, data in written:
            file.seek(at)
            file.write(data)
        os.fsync(file.fileno())


def note(path: Path, written: Written, made: int) -> None:
    """Keep beside the file what is to be changed in it, and how many draws it then has."""
    at = np.array([[at, len(data)] for at, data in written], np.int64).reshape(-1, 2)
    data = np.frombuffer(b"".join(data for _, data in written), np.uint8)
    save_file({"at": at, "data": data, "made": np.array([made])}, f"{_notes(path)}.partial")
    os.replace(f"{_notes(path)}.partial", _notes(path))


def settle(path: Path, made: int) -> None:
    """Change what was noted, if that leads to so many draws, and forget it."""
    if not _notes(path).is_file():
        return
    noted = load_file(_notes(path))
    if noted["made"][0] == made:
        parts = np.split(noted["data"], np.cumsum(noted["at"][:, 1])[:-1])
        rewrite(path, [(int(at), part.tobytes()) for (at, _), part in zip(noted["at"], parts)])
    _notes(path).unlink()


def _notes(path: Path) -> Path:
    return Path(f"{path}.changes")


def create(path: Path, groups: Mapping[str, Any], growing: str) -> None:
    """A netCDF file of these datasets by group, without draws in those that have them.

    Args:
        growing: the dimension that is to grow, in blocks of the length it has in the datasets.
    """
    partial = Path(f"{path}.partial")
    for i, (group, dataset) in enumerate(groups.items()):
        encoding: dict[str, Any] = {name: {"_FillValue": None} for name in dataset.variables}
        grows = growing in dataset.dims
        for name, a in dataset.variables.items():
            if growing in a.dims:
                encoding[name]["chunksizes"] = _chunk(a.shape)
        kept = dataset.isel({growing: slice(0, 0)}) if grows else dataset
        kept.to_netcdf(partial, "a" if i else "w", group=group, engine="h5netcdf", encoding=encoding,
                       unlimited_dims=[growing] if grows else [])  # fmt: skip
    os.replace(partial, path)


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths of the parts of an array that are read together: all chains and draws of a block, of as many data as fit.

    >>> _chunk((4, 100, 10_000, 24)), _chunk((4, 25)), _chunk((100, 10, 3, 1000))
    ((4, 100, 52, 24), (4, 25), (100, 10, 1, 500))
    """
    found = list(shape)
    for axis in [*range(2, len(shape)), 0, *range(1, min(2, len(shape)))]:
        most = NUMBERS_PER_CHUNK * found[axis] // max(1, int(np.prod(found)))
        found[axis] = max(1, min(found[axis], most))
    return tuple(found)
