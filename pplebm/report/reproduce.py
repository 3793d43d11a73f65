"""The section on how to reproduce a run: the command, versions and hashes."""

from __future__ import annotations

import hashlib
import shlex
from html import escape
from pathlib import Path
from typing import Any

from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import flat
from pplebm.report.gathered import Material
from pplebm.report.tables import target_of
from pplebm.runs.config import RunConfig
from pplebm.runs.manifest import Manifest, PageEntry
from pplebm.runs.opening import page_of


def footer(m: Material) -> str:
    """The section, as HTML."""
    run = m.run.manifest
    text = []
    if run.model.file is None or run.settings.has_own_guide:
        what = "model" if run.model.file is None else "guide"
        text.append(
            f"<p>The {what} was given as a Python function, so the run repeats by <code>pplebm.fit</code> with it.</p>"
        )
    else:
        text.append(f"<pre>{escape(_command(m))}</pre>")
    if run.source()[0] is None:
        text.append("<p>DATA stands for the data, which the run does not keep.</p>")
    text.append(
        "<p>On one machine with the versions below the same command gives the same numbers. The pages as they were run "
        "lie in the run folder under <code>pages/</code>.</p>"
    )
    facts = [("Versions", ", ".join(f"{escape(k)} {escape(v)}" for k, v in run.versions.items()))]
    for name, entry in (("Model page", run.model), ("Algorithm page", run.inference)):
        if entry.file is not None:
            changed = "" if _is_current(entry) else " (the page by this name differs today)"
            facts.append((name, f"<code>sha256 {entry.sha256}</code>{changed}"))
    facts.append(("Data", f"<code>sha256 {escape(run.data.fingerprint)}</code>"))
    return "".join(text) + "<dl>" + "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in facts) + "</dl>"


def _command(m: Material) -> str:
    run = m.run.manifest
    source, data_dir = run.source()
    words = ["pplebm", "fit", _page(run.model), "--data", source or "DATA"]
    words += [] if data_dir is None else ["--data-dir", data_dir]
    words += ["--inference", _page(run.inference), "--seed", str(run.settings.seed), "--updates", str(target_of(run))]
    words += _further(run)
    model_page = page_of(m.run.path, run.model, run.settings.seed)
    usual = {
        "inference": flat(m.run.algorithm.page.Hyper()),
        "model": flat(model_page.Hyper()) if run.model.hyper else {},
    }
    for kind, other, entry in (("model", "inference", run.model), ("inference", "model", run.inference)):
        for field, value in entry.hyper.items():
            if field != "updates" and _plain(value) != _plain(usual[kind].get(field)):
                prefix = f"{kind}." if field in usual[other] else ""
                words += ["--set", f"{prefix}{field}={_plain(value)}"]
    return " ".join(shlex.quote(word) for word in words)


def _further(run: Manifest) -> list[str]:
    """Options that are not at their defaults."""
    settings, usual = run.settings, RunConfig("")
    names = ("backend", "precision", "devices", "nodes", "strategy", "ema", "patience", "start", "scaling")
    given = [(name, getattr(settings, name)) for name in names if getattr(settings, name) != getattr(usual, name)]
    words = [word for name, value in given for word in (f"--{name}", str(value))]
    if settings.backend == "pyro" and settings.compiled != usual.is_compiled(target_of(run)):
        words.append("--compile" if settings.compiled else "--no-compile")
    return words


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) + "," * (len(value) == 1) if isinstance(value, (list, tuple)) else value


def _page(entry: PageEntry) -> str:
    """The name of a gallery page, or the path of a page of the user's."""
    assert entry.home is not None
    try:
        home = Path(str(gallery.load(entry.name).__file__)).resolve().parent
    except PplebmError:
        home = None
    return entry.name if home == Path(entry.home) else str(Path(entry.home) / f"{entry.name}.py")


def _is_current(entry: PageEntry) -> bool:
    try:
        text = gallery.source(gallery.load(_page(entry)))
    except (PplebmError, OSError):
        return False
    return hashlib.sha256(text.encode()).hexdigest() == entry.sha256
