"""What a check found: sentences with a verdict, and how an error is told in one."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pplebm.errors import PplebmError

WIDTH = 110
Verdict = tuple["bool | None", str]


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool | None  # None: nothing to look at, or impossible after what was found before
    sentence: str


class Report(NamedTuple):
    """All findings of a check; `print(report)` shows them as a table.

    >>> report = Report("model.py", (Finding("loads", True, "it does"), Finding("sites", False, "there is no plate")))
    >>> report.ok
    False
    >>> print(report)
    model.py
      ok    loads  it does
      FAIL  sites  there is no plate
    1 of 2 findings to mend: sites.
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return all(finding.ok is not False for finding in self.findings)

    def __str__(self) -> str:
        width = max(len(f.name) for f in self.findings)
        lines = [self.subject]
        for name, ok, sentence in self.findings:
            head = f"  {('-' if ok is None else 'ok' if ok else 'FAIL'):4}  {name:{width}}  "
            lines += textwrap.wrap(sentence, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
        bad = [f.name for f in self.findings if f.ok is False]
        last = (
            f"{len(bad)} of {len(self.findings)} findings to mend: {', '.join(bad)}." if bad else "Nothing wrong found."
        )
        return "\n".join([*lines, last])


class Checklist:
    """Findings in the making: after an essential one fails, the rest are impossible and skipped."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._blocked = ""

    def look(self, name: str, at: Callable[[], Verdict], essential: bool = False) -> None:
        """Add the finding of one step; an error it raises is its finding."""
        if self._blocked:
            ok, sentence = None, f"not looked at, because of '{self._blocked}'"
        else:
            try:
                ok, sentence = at()
            except (Exception, SystemExit) as error:
                ok, sentence = False, sentence_of(error)
            if essential and ok is False:
                self._blocked = name
        self.findings.append(Finding(name, ok, sentence))


def sentence_of(error: BaseException) -> str:
    """An error in one sentence; one that is not pplebm's own with its type, and the line of the user's where it arose.

    >>> sentence_of(KeyError("z3"))
    "KeyError: 'z3'"
    """
    if isinstance(error, PplebmError):
        return str(error)
    package = str(Path(__file__).resolve().parent.parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_file()]
    own = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(package)]
    where = f" ({Path((own or frames)[-1].filename).name}, line {(own or frames)[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}".replace("\n", " ") + where
