"""Names and paths that data may come from."""

from __future__ import annotations

import os
from pathlib import Path

from pplebm.data.files import SUFFIXES, near_name, shown
from pplebm.data.named import READERS
from pplebm.errors import PplebmError


def check_exists(source: str | os.PathLike[str]) -> Path:
    """The path of a file of the user's; PplebmError for what is neither a file nor a name that is known."""
    path = Path(source).expanduser().absolute()
    if os.path.exists(path) or path.name.lower().endswith(SUFFIXES):
        return path
    raise PplebmError(
        f"there is neither a data set named {shown(Path(source))!r} nor a file {shown(path)}"
        f"{near_name(path, tuple(READERS))}; "
        f"pass one of {', '.join(READERS)}, or a file that ends in one of {', '.join(SUFFIXES)}"
    )
