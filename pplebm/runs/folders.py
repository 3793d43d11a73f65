"""Where runs lie: folders chosen for runs without one, refused if they cannot be, and left as they were on failure."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pplebm.errors import PplebmError
from pplebm.runs import files


def folder_for(out: str | Path | None, model: Any, inference: Any, seed: int, resume: bool) -> Path:
    """The folder of a run: as given, else a fresh one under runs/, or the latest of these to go on with.

    Raises:
        PplebmError: for a path that is no folder and cannot be one, or if there is nothing to go on with.
    """
    if out is not None:
        if not str(out):
            raise PplebmError("the run folder has an empty name; give one (--out, out=...), or leave it out.")
        return checked(Path(out).expanduser())
    name = getattr(model, "__name__", None) or Path(str(model)).stem
    folder = Path("runs") / f"{name}-{Path(str(inference)).stem}-seed{seed}"
    if not resume:
        return unused(checked(folder))
    found = [path for path in _numbered(folder).values() if (path / files.MANIFEST).is_file()]
    if not found:
        raise PplebmError(f"there is no run '{folder}' to go on with; give its folder (--out, out=...).")
    return found[-1]


def checked(folder: Path) -> Path:
    """The same, if it is a folder or can become one.

    Raises:
        PplebmError: if it is a file, lies in one, or has a name that the file system refuses.
    """
    try:
        os.lstat(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        shown = str(folder) if len(str(folder)) <= 80 else f"{str(folder)[:77]}..."
        raise PplebmError(
            f"{shown!r} can be no run folder ({why.lower()}); choose another one (--out, out=...)."
        ) from None
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            if not path.is_dir():
                raise PplebmError(f"'{path}' is not a folder, so no run can be kept in it; choose another one (--out).")
            break
    return folder


def check_new(folder: Path) -> None:
    """Refuse a folder that holds a run, or parts of one.

    Raises:
        PplebmError: if it does.
    """
    if (folder / files.MANIFEST).exists():
        raise PplebmError(
            f"'{folder}' holds a run already; choose another folder (--out, out=...), or go on with it (--resume, "
            f"resume=True)."
        )
    if (folder / files.CHECKPOINT).exists():
        raise PplebmError(
            f"'{folder}' holds {files.CHECKPOINT} of a run whose {files.MANIFEST} is lost; choose another folder."
        )


def unused(folder: Path) -> Path:
    """The folder itself if there is none like it, else the next of folder-2, folder-3, ...

    >>> unused(Path("no-such-folder")).name
    'no-such-folder'
    """
    found = _numbered(folder)
    return folder.with_name(f"{folder.name}-{max(found) + 1}") if found else folder


def _numbered(folder: Path) -> dict[int, Path]:
    """What there is of folder, folder-2, folder-3, ..., by number, in order."""
    pattern = re.compile(re.escape(folder.name) + r"(?:-([1-9]\d{0,8}))?")
    try:
        found = [(pattern.fullmatch(name), name) for name in os.listdir(folder.parent)]
    except OSError:
        return {}
    return dict(sorted((int(match[1] or 1), folder.with_name(name)) for match, name in found if match))


@contextlib.contextmanager
def moved_in(stage: Path, folder: Path) -> Iterator[None]:
    """Files that were made ready elsewhere, in the run folder; if the run fails before its first checkpoint, they go.

    What was there before returns.
    """
    before: dict[Path, bytes | None] = {folder / name: None for name in files.WRITTEN if not (folder / name).exists()}
    try:
        staged = [path for path in stage.rglob("*") if path.is_file()]
        for source in sorted(staged, key=lambda path: (path.name == files.MANIFEST, path)):
            target = folder / source.relative_to(stage)
            before[target] = target.read_bytes() if target.is_file() else None
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(target, source.read_bytes())
        yield
    except BaseException:
        if not (folder / files.CHECKPOINT).exists():
            _put_back(folder, before)
        raise


def _put_back(folder: Path, before: dict[Path, bytes | None]) -> None:
    for path in folder.rglob("*.partial"):
        path.unlink(missing_ok=True)
    for path, content in before.items():
        if content is not None:
            files.write_whole(path, content)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for parent in {path.parent for path in before} - {folder}:
        with contextlib.suppress(OSError):  # not empty, or not there
            parent.rmdir()
