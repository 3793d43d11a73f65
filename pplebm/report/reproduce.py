"""How to reproduce a run: the command, versions and hashes."""

from __future__ import annotations

import hashlib
import shlex
from html import escape
from pathlib import Path
from typing import Any

from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.report.gathered import Material
from pplebm.report.tables import target_of
from pplebm.runs.job import COMPILE_FROM
from pplebm.runs.run import data_source


def footer(m: Material) -> str:
    """The section, as HTML."""
    run = m.run.manifest
    text = []
    if run["model"]["page"] is None or run.get("has_own_guide", False):
        what = "model" if run["model"]["page"] is None else "guide"
        text.append(
            f"<p>The {what} was given as a Python function, so the run repeats by <code>pplebm.fit</code> with it.</p>"
        )
    else:
        text.append(f"<pre>{escape(_command(m))}</pre>")
    if data_source(run["data"])[0] is None:
        text.append("<p>DATA stands for the data, which the run does not keep.</p>")
    text.append(
        "<p>On one machine with the versions below the same command gives the same numbers. The pages as they were run "
        "lie in the run folder under <code>pages/</code>.</p>"
    )
    facts = [("Versions", ", ".join(f"{escape(k)} {escape(v)}" for k, v in run["versions"].items()))]
    for name, kind in (("Model page", "model"), ("Algorithm page", "inference")):
        if run[kind]["page"] is not None:
            changed = "" if _is_current(run[kind]) else " (the page by this name differs today)"
            facts.append((name, f"<code>sha256 {run[kind]['page']['sha256']}</code>{changed}"))
    facts.append(("Data", f"<code>sha256 {escape(run['data']['fingerprint'])}</code>"))
    return "".join(text) + "<dl>" + "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in facts) + "</dl>"


def _command(m: Material) -> str:
    run = m.run.manifest
    source, data_dir = data_source(run["data"])
    words = ["pplebm", "fit", _page(run["model"]), "--data", source or "DATA"]
    words += [] if data_dir is None else ["--data-dir", data_dir]
    words += ["--inference", _page(run["inference"]), "--seed", str(run["seed"]), "--steps", str(target_of(run))]
    words += _further(run)
    model_page = gallery.load_copy(m.run.path / run["model"]["page"]["file"], run["model"]["home"], run["seed"])
    defaults = {
        "inference": m.run.page.Hyper()._asdict(),
        "model": model_page.Hyper()._asdict() if run["model"]["hyper"] else {},
    }
    for kind, other in (("model", "inference"), ("inference", "model")):
        for field, value in run[kind]["hyper"].items():
            if field != "updates" and _plain(value) != _plain(defaults[kind].get(field)):
                prefix = f"{kind}." if field in defaults[other] else ""
                words += ["--set", f"{prefix}{field}={_plain(value)}"]
    return " ".join(shlex.quote(word) for word in words)


def _further(run: dict[str, Any]) -> list[str]:
    """Options that are not at their defaults."""
    together, chains = run.get("parallel", {}), run["chains"]
    given = {
        "backend": (run["backend"], "pyro"), "precision": (chains["precision"], "full"),
        "devices": (together.get("devices", 1), 1), "nodes": (together.get("nodes", 1), 1),
        "strategy": (together.get("strategy", "auto"), "auto"), "ema": (run["ema"], 0.0),
        "patience": (run["patience"], 0), "start": (run.get("start"), None),
        "scaling": (run["data"].get("scaling_wanted"), None),
    }  # fmt: skip
    words = [word for name, (value, usual) in given.items() if value != usual for word in (f"--{name}", str(value))]
    if run["backend"] == "pyro" and chains["compiled"] != (target_of(run) >= COMPILE_FROM):
        words.append("--compile" if chains["compiled"] else "--no-compile")
    return words


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) + "," * (len(value) == 1) if isinstance(value, (list, tuple)) else value


def _page(entry: dict[str, Any]) -> str:
    """The name of a gallery page, or the path of a page of the user's."""
    try:
        home = Path(str(gallery.load(entry["name"]).__file__)).resolve().parent
    except PplebmError:
        home = None
    return entry["name"] if home == Path(entry["home"]) else str(Path(entry["home"]) / f"{entry['name']}.py")


def _is_current(entry: dict[str, Any]) -> bool:
    try:
        text = gallery.source(gallery.load(_page(entry)))
    except (PplebmError, OSError):
        return False
    return hashlib.sha256(text.encode()).hexdigest() == entry["page"]["sha256"]
