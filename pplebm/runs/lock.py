"""The lock of a run folder: one process learns in it at a time, and the lock of a process that was killed is void."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pplebm.errors import PplebmError

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows
    fcntl = importlib.import_module("fcntl")

LOCK = "run.lock"


class Owner(NamedTuple):
    """A process that learns in a folder."""

    pid: int
    host: str


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if it is not there; what was made and stays empty goes again.

    The file names its owner, and the operating system holds the lock as long as the owner lives. Where there are no
    such locks, the file alone is the lock.

    Raises:
        PplebmError: if another process holds it, or may hold it on another machine, or the folder cannot be written.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take(folder / LOCK)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
            os.close(handle)
    finally:
        with contextlib.suppress(OSError):  # not empty: kept
            for parent in made:
                parent.rmdir()


def _take(path: Path) -> int:
    """The descriptor of the lock file, taken."""
    me = Owner(os.getpid(), socket.gethostname())
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise PplebmError(
                f"'{path.parent}' cannot be written ({error.strerror}); choose another folder."
            ) from error
        try:
            is_free, owner = _lock(handle), _owner(handle)
            if is_free is False:
                raise PplebmError(
                    f"'{path.parent}' is in use: {_named(owner)} learns in it; wait, or stop that process."
                )
            if owner and (is_free is None or owner.host != me.host):
                raise PplebmError(
                    f"'{path.parent}' may be in use by {_named(owner)}; if that process is gone, delete '{path}'."
                )
            if _is_at(path, handle):
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, json.dumps(me._asdict()).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # of an owner that ended in between, and whose file is gone


def _lock(handle: int) -> bool | None:
    """Whether the lock could be taken; None where the system or the disk has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _owner(handle: int) -> Owner | None:
    """The process that wrote the file; None if none did."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        found = json.loads(os.read(handle, 1000))
        return Owner(int(found["pid"]), str(found["host"]))
    except (ValueError, KeyError, TypeError):
        return None


def _named(owner: Owner | None) -> str:
    return "another process" if owner is None else f"process {owner.pid} on {owner.host}"


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False
