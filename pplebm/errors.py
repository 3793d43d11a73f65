"""The one exception family of pplebm."""

from __future__ import annotations


class PplebmError(Exception):
    """A mistake the user can mend: the message names the site, the shapes and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


class PplebmWarning(UserWarning):
    """Something works, but not in the way the user may expect."""
