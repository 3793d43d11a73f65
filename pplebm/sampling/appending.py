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
    file is what it was, with something at its end that nobody reads. HDF5 cannot go on after a write that failed, so
    what does not fit on the disk is held as well, and `end` raises what the disk said.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115
        self._length = self._end = self._file.seek(0, os.SEEK_END)
        self._at = 0
        self._error: OSError | None = None
        self.held: Written = []

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view, at = memoryview(buffer).cast("B"), self._at
        n = max(0, min(len(view), self._end - at))
        self._file.seek(at)
        found = self._file.read(n) or b""
        view[:n] = found + bytes(n - len(found))
        for start, data in self.held:
            low, high = max(start, at), min(start + len(data), at + n)
            if low < high:
                view[low - at : high - at] = data[low - start : high - start]
        self._at += n
        return n

    def write(self, buffer: Any) -> int:
        view, at = memoryview(buffer).cast("B"), self._at
        n_held = min(max(0, self._length - at), len(view))
        self.hold(at, view[:n_held])
        try:
            if self._error is None:
                _write(self._file, at + n_held, view[n_held:])
        except OSError as error:
            self._error = error
        if self._error is not None:
            self.hold(at + n_held, view[n_held:])
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def hold(self, at: int, data: memoryview) -> None:
        """Keep bytes here."""
        if len(data):
            self.held.append((at, bytes(data)))

    def truncate(self, size: int | None = None) -> int:
        """Longer, or no change: what a shorter file would lose may still be read."""
        self._end = max(self._end, self._at if size is None else size)
        return self._end

    def flush(self) -> None:
        """Nothing is buffered."""

    def end(self, keep: bool) -> None:
        """Close the file, with what was put at its end, or without.

        Raises:
            OSError: if that is wanted, and not all of it could be written; the file is then without it.
        """
        try:
            if keep and self._error is None:
                self._file.truncate(self._end)
                os.fsync(self._file.fileno())
            else:
                self._file.truncate(self._length)
        finally:
            self._file.close()
        if keep and self._error is not None:
            raise self._error


def _write(file: Any, at: int, data: Any) -> None:
    file.seek(at)
    while len(data):
        data = data[file.write(data) :]


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
            _write(file, at, data)
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
