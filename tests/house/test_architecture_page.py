"""docs/architecture: the picture is that of the sources, and the page names what there is."""

import importlib
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def drawing():
    spec = importlib.util.spec_from_file_location("drawing", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_up_to_date():
    kept = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert kept == drawing().picture(), "rooms, imports or first sentences changed: run `python docs/architecture.py`"


def test_the_picture_has_every_arrow_or_what_it_follows_from():
    draw = drawing()
    shown = draw.arrows()
    every = {
        (Path(module).with_suffix("").parts[0], name.split(".")[1])
        for module in draw.MODULES
        for _, name in draw.library_imports(module)
        if name.startswith("pplebm.")
    }
    missing = [
        (a, b) for a, b in every if b in draw.rooms() and a in draw.rooms() and a != b and b not in draw.below(a, shown)
    ]
    assert not missing
    text = draw.picture()
    assert all(f'id="{a}-{b}"' in text for a, b in shown) and all(f'id="{room}"' in text for room in draw.rooms())


def defines(name: str) -> bool:
    """Whether room.module, room.module.name or room.module.name.method is there."""
    found, parts = importlib.import_module("pplebm"), name.split(".")
    for n, part in enumerate(parts, 1):
        try:
            found = (
                getattr(found, part)
                if hasattr(found, part)
                else importlib.import_module(f"pplebm.{'.'.join(parts[:n])}")
            )
        except ImportError:
            return part in getattr(found, "_fields", ()) or part in getattr(found, "__annotations__", ())
    return True


def test_the_page_names_what_there_is():
    names = re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", PAGE.read_text(encoding="utf-8"))
    names = [name for name in names if not name.endswith((".py", ".md"))]
    assert len(names) > 30 and not [name for name in names if not defines(name)]
    paths = re.findall(r"`(tests/[\w/.]+)`", PAGE.read_text(encoding="utf-8"))
    assert not [path for path in paths if not (ROOT / path).exists()]
