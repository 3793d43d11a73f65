"""Trust in the pages of a run folder, which are code: shipped ones, those fitted on this machine, and no others."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.runs import files
from pplebm.runs.manifest import PageEntry


def list_path() -> Path:
    """The user's own list of pages: SHA-256 of a page to the folders that it came from."""
    home = os.environ.get("PPLEBM_CONFIG_HOME")
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return (Path(home) if home else Path(base) / "pplebm") / "trusted_pages.json"


@functools.cache
def shipped() -> frozenset[str]:
    """SHA-256 of every page that ships along."""
    return frozenset(hashlib.sha256(path.read_bytes()).hexdigest() for path in gallery.page_files())


def remember(entries: Sequence[PageEntry]) -> None:
    """Add pages that are fitted here to the user's list; a list that cannot be written stays as it is."""
    try:
        known = _known()
        wanted = {entry.sha256: entry.home for entry in entries if entry.sha256 and entry.home}
        if all(home in known.get(digest, ()) for digest, home in wanted.items()):
            return
        for digest, home in wanted.items():
            known[digest] = sorted({*known.get(digest, ()), home})
        list_path().parent.mkdir(parents=True, exist_ok=True)
        files.write_json(list_path(), known)
    except (OSError, RuntimeError):  # a home that is read-only, full, or not there
        return


def check(folder: Path, entries: Sequence[PageEntry], trust: bool) -> None:
    """Refuse pages that were changed since the run was fitted, and those of a stranger unless `trust`.

    Raises:
        PplebmError: naming the files.
    """
    known, strange = _known(), []
    for entry in entries:
        path = checked_page(folder, entry)
        if entry.sha256 not in shipped() and entry.home not in known.get(entry.sha256 or "", ()):
            strange.append(f"'{path}'")
    if strange and not trust:
        raise PplebmError(
            f"opening '{folder}' would run {' and '.join(strange)}, which neither ship with pplebm nor were fitted by "
            f"you on this machine; read them, and if you trust them, say so (--trust, trust=True)."
        )


def checked_page(folder: Path, entry: PageEntry) -> Path:
    """Path of a run's copy of a page.

    Raises:
        PplebmError: if it leads out of the folder, is not there, or was changed.
    """
    path = folder / (entry.file or "")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PplebmError(f"the page '{entry.file}' lies outside of the run folder '{folder}'; do not open this run.")
    files.read_verified(path, entry.sha256)
    return path


def _known() -> dict[str, list[str]]:
    try:
        found = json.loads(list_path().read_text())
        return {k: v for k, v in found.items() if isinstance(v, list)} if isinstance(found, dict) else {}
    except (OSError, ValueError, RuntimeError):  # not there, damaged, or no home
        return {}
