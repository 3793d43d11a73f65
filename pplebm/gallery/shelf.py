"""Folders of the galleries, and what else is kept beside the package in a checkout and inside it in a wheel."""

import tomllib
from pathlib import Path


def _is_checkout(root: Path) -> bool:
    """Whether `root` is a checkout of this project: its pyproject.toml names pplebm."""
    try:
        with open(root / "pyproject.toml", "rb") as file:
            return tomllib.load(file)["project"]["name"] == "pplebm"
    except (OSError, ValueError, LookupError, TypeError):
        return False


def shelf(name: str) -> list[str]:
    """The search path of the gallery `name`; a foreign folder of that name beside us is never taken.

    >>> [path] = shelf("models")
    >>> path.endswith("models")
    True
    """
    return [str(place(name))]


def place(name: str) -> Path:
    """Where a file or folder of the project lies: beside the package in a checkout, inside it where it is installed.

    >>> place("CITATION.cff").is_file()
    True
    """
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / name
    return beside if beside.exists() and _is_checkout(package.parent) else package / name
