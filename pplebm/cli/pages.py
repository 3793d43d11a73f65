"""Commands about pages: list, show, copy, check."""

from __future__ import annotations

import ast
import inspect
import shlex
import shutil
import sys
import textwrap
from types import ModuleType
from typing import Any

import click

from pplebm.cli.group import SEED, settings
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import flat
from pplebm.gallery.pages import DEFAULT
from pplebm.gallery.shelf import place

INDENT = " " * 6  # of lines that go on about a page


@click.command("list")
def list_pages() -> None:
    """List the models and algorithms that ship along.

    With paper, result and when to take which.
    """
    width = terminal_width()
    for title, names in (("models", gallery.models_available()), ("algorithms", gallery.inference_available())):
        click.echo(f"{title}:")
        for name in names:
            for line in entry(gallery.load(name), width):
                click.echo(line)
    click.echo("\npplebm show PAGE tells more, cite PAGE its paper; pplebm copy PAGE FILE makes it your own.")


def terminal_width() -> int | None:
    """Columns of the terminal, at least 60; None where the output goes elsewhere."""
    return max(60, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def entry(page: ModuleType, width: int | None = None) -> list[str]:
    """Lines of a page in the list: name, backends and paper; then its result or when it is to be taken, if it says so.

    Args:
        page: a page of either gallery.
        width: columns to wrap at; None for one line each, as a pipe wants it.
    """
    backends = "+".join(getattr(page, "BACKENDS", ())) or "any"
    told = [(f"  {gallery.page_name(page):22} {backends:12} ", str(page.PAPER))]
    if when := getattr(page, "WHEN", ""):
        told.append((INDENT, f"take it {when}"))
    if result := getattr(page, "RESULT", ""):
        told.append((INDENT, f"on {result}"))
    return [line for start, text in told for line in _wrapped(text, start, width)]


def _wrapped(text: str, start: str, width: int | None) -> list[str]:
    """A text behind `start`, and further lines indented, of no more than `width` columns."""
    if width is None:
        return [start + text]
    wrapper = textwrap.TextWrapper(width, start, INDENT, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)


@click.command()
@click.argument("name", metavar="PAGE")
@click.option("--source", is_flag=True, help="Print the file instead.")
def show(name: str, source: bool) -> None:
    """Show a page: equation, paper, check, hyperparameters.

    With the departures from the paper and the reasons for the defaults.
    """
    page = gallery.load(name)
    text = gallery.source(page)
    if source:
        click.echo(text, nl=False)
        return
    click.echo(inspect.getdoc(page) or gallery.page_name(page))
    of_file = ", as the file says," if gallery.is_own(page) else ""  # it may be a copy of another page, and changed
    for label, name_of in (("take it", "WHEN"), ("paper:", "PAPER"), (f"result{of_file} on", "RESULT")):
        if told := getattr(page, name_of, ""):
            click.echo(f"\n{label} {told}")
    for line in _check(page):
        click.echo(line)
    if deviations := getattr(page, "DEVIATIONS", ()):
        click.echo("\ndeviations:")
        for sentence in deviations:
            click.echo(click.wrap_text(sentence, 110, initial_indent="  - ", subsequent_indent="    "))
    if hasattr(page, "Hyper"):
        click.echo("\nhyperparameters (--set name=value):")
        for row in hyperparameters(page, text):
            click.echo(row)
    click.echo(f"\nfile: {page.__file__}")


def _check(page: ModuleType) -> list[str]:
    """What a page is held to by a test that can fail, in the words of its name, and how to run that test."""
    if not (node := getattr(page, "CHECK", "")):
        return []
    file, _, test = node.partition("::")
    lines = [f"\ncheck: {test.partition('[')[0].removeprefix('test_').replace('_', ' ')}"]
    root = place("tests").parent
    if gallery.is_own(page):  # the test of a copied page is of the original
        return [*lines, f"  {node}, as the file says; pplebm check {page.__file__} looks at the file itself"]
    if (root / file).is_file():
        return [*lines, f"  cd {shlex.quote(str(root))}", f"  python -m pytest {shlex.quote(node)}"]
    return [*lines, f"  python -m pytest {shlex.quote(node)}", "  in the sources of pplebm: tests are not installed"]


def hyperparameters(page: ModuleType, text: str) -> list[str]:
    """Fields of a page's Hyper with their defaults and the comments beside them, or beside those of their parts."""
    reasons = _reasons(text, "Hyper")
    for name, part in page.Hyper()._asdict().items():
        if hasattr(part, "_fields"):
            own = _reasons(inspect.getsource(sys.modules[type(part).__module__]), type(part).__name__)
            reasons = {f"{name}.{field}": reason for field, reason in own.items()} | reasons
    values = flat(page.Hyper())
    width = max((len(f"{n} = {v}") for n, v in values.items()), default=0)
    return [f"  {f'{n} = {v}':{width}}  {reasons.get(n, '')}".rstrip() for n, v in values.items()]


def _reasons(text: str, name: str) -> dict[str, str]:
    """Comments beside the fields of a class, and beside the arguments of their defaults, by name."""
    lines, found = text.splitlines(), dict[str, str]()

    def note(path: str, node: Any) -> None:
        rest = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode()
        if comment := rest.partition("#")[2].strip():
            found[path] = comment

    for node in ast.parse(text).body:
        for field in node.body if isinstance(node, ast.ClassDef) and node.name == name else ():
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                note(field.target.id, field)
                for argument in field.value.keywords if isinstance(field.value, ast.Call) else ():
                    note(f"{field.target.id}.{argument.arg}", argument)
    return found


@click.command()
@click.argument("name", metavar="PAGE")
@click.argument("file", type=click.Path())
def copy(name: str, file: str) -> None:
    """Copy a page to a file of your own.

    Change it and use it by its path wherever a page is asked for.
    """
    target = gallery.copy(name, file)
    use = f"MODEL --inference {target}" if gallery.is_algorithm(gallery.load(name)) else f"{target}"
    click.echo(f"copied to {target}; change it, then `pplebm check {target}` and `pplebm fit {use}`.")


@click.command()
@click.argument("model", metavar="PAGE_OR_FILE")
@click.option("--data", default="digits", show_default=True, help="Name of a data set, or a .npy, .npz or .csv file.")
@click.option("--data-dir", type=click.Path(), help="Where named data sets lie.")
@click.option("--inference", default=DEFAULT, show_default=True, help="Algorithm page, by name or path.")
@click.option("--backend", default="pyro", show_default=True, help="pyro or numpyro.")
@click.option("--scaling", help="none, unit, standard or auto.  [default: as the page says; none for a model of yours]")
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Change a hyperparameter; repeatable.")
def check(
    model: str,
    data: str,
    data_dir: str | None,
    inference: str,
    backend: str,
    scaling: str | None,
    seed: int,
    pairs: tuple[str, ...],
) -> int:
    """Find out what is wrong with a model, in seconds.

    Or with an algorithm. Exit status 1 if anything is.
    """
    from pplebm.checking import check as run

    report = run(model, data, inference, settings(pairs), seed, data_dir, backend, scaling)
    click.echo(str(report))
    return 0 if report.ok else 1


COMMANDS = (list_pages, show, copy, check)
