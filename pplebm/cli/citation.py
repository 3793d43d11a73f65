"""Command cite: papers of pages, and the package itself, as BibTeX."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.gallery.paper import Paper, entry
from pplebm.gallery.shelf import place


@click.command()
@click.argument("names", metavar="[PAGE]...", nargs=-1)
def cite(names: tuple[str, ...]) -> None:
    """Print BibTeX of a page's paper; without a page, of pplebm.

    Of several pages every paper once.
    """
    entries = dict.fromkeys(paper_of(name).bibtex() for name in names) or [of_package(place("CITATION.cff"))]
    click.echo("\n\n".join(entries))


def paper_of(name: str) -> Paper:
    """Paper of a page by name or path.

    Raises:
        PplebmError: if the page tells none, or tells it as text, whose parts nobody knows for sure.
    """
    paper = getattr(gallery.load(name), "PAPER", None)
    if not paper:
        raise PplebmError(f"'{name}' names no paper; give it a PAPER, as `pplebm show joint_ebm --source` has one.")
    if not isinstance(paper, Paper):
        raise PplebmError(
            f"'{name}' has its paper as text, '{paper}'; write it as `pplebm show joint_ebm --source` does, "
            f"PAPER = Paper(authors, title, year, ...), and it can be cited."
        )
    return paper


def of_package(file: Path) -> str:
    """The entry of the software that a CITATION.cff describes; the year is there if the file has a date of release."""
    text = file.read_text(encoding="utf-8")
    value = lambda key: (re.search(rf"^{key}: *[\"']?(.*?)[\"']? *$", text, re.MULTILINE) or ["", ""])[1]
    people = re.search(r"^authors:\n((?:[ -].*\n?)*)", text, re.MULTILINE)
    authors = [_author(part) for part in re.split(r"^ *- ", people[1] if people else "", flags=re.MULTILINE)[1:]]
    fields = {
        "author": " and ".join(authors),
        "title": f"{{{value('title')}}}",
        "year": value("date-released")[:4],
        "note": f"Python package, version {value('version')}",
        "url": value("repository-code") or value("url"),
    }
    return entry("misc", re.split("[^A-Za-z0-9]", value("title"))[0].lower(), fields)


def _author(text: str) -> str:
    """An author of a CITATION.cff as BibTeX has them; a body is one name, in braces.

    >>> _author("family-names: Laird\\n    given-names: Nan M.\\n"), _author('name: "The R Core Team"\\n')
    ('Laird, Nan M.', '{The R Core Team}')
    """
    of = dict(re.findall(r"""([a-z-]+): *["']?(.*?)["']? *$""", text, re.MULTILINE))
    if "name" in of:
        return f"{{{of['name']}}}"
    return ", ".join(of[part] for part in ("family-names", "given-names") if part in of)


COMMANDS = (cite,)
