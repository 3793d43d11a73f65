"""Manners of the command line: errors in one or two lines, notes in one, and "did you mean" for slips."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pplebm.errors import PplebmError
from pplebm.ppl.compilations import keep_compilations

SIGNALLED = 128  # what a shell adds to the number of the signal that ended a command
LONGEST_WORD = 200  # of a message; what is longer was no name, and is cut
SEED = click.IntRange(0, 2**32 - 1)  # what random generators take
LIGHT = ("list", "show", "cite", "copy")  # commands that run no program
OLDER_NAMES = {"score": "anomaly"}  # of commands; still understood, and not listed


class Group(click.Group):
    """A click group that ends every command with a sentence and a status, never with a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Run; exit 0, 1 (check found something), 2 (a mistake the user can mend), 130 (Ctrl-C) or 128 + signal."""
        kwargs["standalone_mode"] = False
        try:
            with _notes():
                status = super().main(*args, **kwargs)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "pplebm"
            status = _fail(f"{error.format_message()} (see `{path} --help`)")
        except PplebmError as error:
            status = _fail(str(error))
        except (KeyboardInterrupt, click.Abort) as error:  # click makes the one of the other
            status = SIGNALLED + getattr(error.__cause__ or error, "number", signal.SIGINT)
        except BrokenPipeError:  # the reader, `head` for instance, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        except (OSError, MemoryError) as error:
            status = _fail(_of_system(error))
        except Exception as error:
            if isinstance(error, ValueError) and "null byte" in str(error):  # where a file was to be opened
                sys.exit(_fail("a name holds a null byte, which no file can have; choose another one."))
            if "--traceback" in (kwargs.get("args") or (args[0] if args and args[0] else sys.argv)):
                raise
            from pplebm.checking.findings import sentence_of  # found only by those who need it

            status = _fail(f"unexpected {sentence_of(error)}; `pplebm --traceback ...` shows where it came from")
        sys.exit(status if isinstance(status, int) else 0)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command by its name or an older one, or say which one was meant."""
        args = [OLDER_NAMES.get(word, word) for word in args[:1]] + args[1:]
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(self.list_commands(ctx))}."
            raise PplebmError(f"no command '{args[0]}'; {hint}")
        if args and args[0] not in LIGHT:
            keep_compilations()  # before a backend is imported
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands in the order in which they were added, which is the order of use."""
        return list(self.commands)


def _of_system(error: OSError | MemoryError) -> str:
    """What the operating system refused, in a sentence."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; ask for less."
    name = f"'{error.filename}': " if error.filename else ""
    return f"{name}{error.strerror or error}; choose another file or folder."


def _fail(sentence: str) -> int:
    words = re.sub(
        rf"\S{{{LONGEST_WORD},}}", lambda found: f"{found[0][: LONGEST_WORD - 3]}...", " ".join(sentence.splitlines())
    )
    click.echo(f"pplebm: {words}".encode(errors="replace").decode(), err=True)
    return 2


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings as one line each."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        click.echo(f"pplebm: note: {str(message).replace(chr(10), ' ')}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--set key=value` options as a dictionary of text.

    >>> settings(("sigma=0.5", "model.width=64"))
    {'sigma': '0.5', 'model.width': '64'}
    """
    changes = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise PplebmError(f"--set {pair}: write --set name=value.")
        changes[key.strip()] = value.strip()
    return changes
