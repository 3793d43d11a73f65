"""Compilations by XLA: kept on this machine, so that a program seen before begins at once, or made quickly."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

QUICK = "jax_disable_most_optimizations"
MOST = 2 * 2**30  # bytes that are kept; beyond, the oldest go
DAY = 86400.0  # seconds; the folder, which may hold ten thousand files, is looked through once in a day
WANTED = {
    "JAX_COMPILATION_CACHE_DIR": "jax_compilation_cache_dir",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "jax_persistent_cache_min_compile_time_secs",
}  # variables of the environment that JAX reads when it starts, and its own names for them


def keep_compilations() -> None:
    """Let JAX keep its compilations, unless it was told where, or not to (JAX_ENABLE_COMPILATION_CACHE=false).

    They lie in `$PPLEBM_CACHE_HOME`, else in `$XDG_CACHE_HOME/pplebm`, else in `~/.cache/pplebm`, by kind of processor,
    since machines may share a home. A folder that cannot be written is no error.
    """
    jax = sys.modules.get("jax")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or (jax and jax.config.jax_compilation_cache_dir):
        return
    folder = home() / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _is_due(folder.with_suffix(".pruned")):
            prune(folder, MOST)
    except OSError:
        return
    for (variable, option), value in zip(WANTED.items(), (str(folder), 0), strict=True):
        os.environ[variable] = str(value)
        if jax is not None:
            jax.config.update(option, value)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Inside, XLA compiles in half the time what then runs slower: for programs that run a few times."""
    jax = sys.modules.get("jax")
    if jax is None or QUICK not in jax.config.values:  # of another version
        yield
        return
    before = jax.config.values[QUICK]
    jax.config.update(QUICK, True)
    try:
        yield
    finally:
        jax.config.update(QUICK, before)


def home() -> Path:
    """The folder of what can be made again."""
    if own := os.environ.get("PPLEBM_CACHE_HOME"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pplebm"


def prune(folder: Path, most: int) -> None:
    """Remove the files that were written first until no more than so many bytes are left."""
    files = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda found: found[0].st_mtime)
    total = sum(stat.st_size for stat, _ in files)
    for stat, path in files:
        if total <= most:
            return
        with contextlib.suppress(OSError):  # another process may have been quicker
            path.unlink()
        total -= stat.st_size


def _is_due(note: Path) -> bool:
    """Whether a note was not touched for a day; it is now."""
    is_due = not note.exists() or abs(time.time() - note.stat().st_mtime) > DAY
    if is_due:
        note.touch()
    return is_due


def _processor() -> str:
    """A name for processors that run the same instructions."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    found = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")
    return hashlib.sha256(f"{platform.machine()} {found}".encode()).hexdigest()[:16]
