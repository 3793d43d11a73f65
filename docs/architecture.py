"""Draws docs/architecture.svg from the imports of the sources: `python docs/architecture.py`.

Rooms stand on the floors of tests/house/test_architecture.py, an arrow is an import. An arrow that follows from others
is left out, and so are those to `errors`, which nearly every room imports.
"""

from __future__ import annotations

import ast
import itertools
import sys
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "house"))

from test_architecture import FLOORS, MODULES, PACKAGE, PAGES, imports, library_imports, parse  # noqa: E402

TARGET = ROOT / "docs" / "architecture.svg"
HIDDEN = {"errors", "__main__", "__init__"}
BOX, HEIGHT, LANE, GAP, ROW, MARGIN = 208, 68, 8, 16, 106, 36  # pixels
SWEEPS = 60  # of the placement
STYLE = """
svg { --ground: #ffffff; --floor: #f3f4f6; --box: #ffffff; --ink: #1c1e21; --soft: #5b6168; --line: #9aa2ac;
      --arrow: #0072b2; font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif }
@media (prefers-color-scheme: dark) {
  svg { --ground: #15171a; --floor: #1f2226; --box: #2a2e33; --ink: #e6e6e3; --soft: #a2a8b0; --line: #5b6168;
        --arrow: #6db6e8 } }
.ground { fill: var(--ground) } .floor { fill: var(--floor) } .box { fill: var(--box); stroke: var(--line) }
.room { font-size: 15px; font-weight: 600; fill: var(--ink) } .text { font-size: 11px; fill: var(--soft) }
.arrow { fill: none; stroke: var(--arrow); stroke-width: 1.4 } .tip { fill: var(--arrow) }
"""

Arrow = tuple[str, str]
Rows = list[list[str]]


def arrows() -> set[Arrow]:
    """Imports between rooms, pages of the galleries among them, less those that follow from others."""
    named = [(Path(module).with_suffix("").parts[0], name) for module in MODULES for _, name in library_imports(module)]
    named += [(page.split("/")[0], name) for page in PAGES for _, name in imports(parse(ROOT / page), ("page",))]
    ends = [(own, (*name.split("."), "")[1]) for own, name in named if name.startswith("pplebm.")]
    found = {(a, b) for a, b in ends if a != b and not {a, b} & HIDDEN and b in rooms()}
    return {(a, b) for a, b in found if not any(b in below(c, found) for start, c in found if start == a and c != b)}


def rooms() -> list[str]:
    """Rooms that there are, top first."""
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    return [room for floor in FLOORS for room in floor if room in there - HIDDEN]


def below(room: str, found: set[Arrow]) -> set[str]:
    """All that a room imports, directly or not."""
    direct = {b for a, b in found if a == room}
    return direct.union(*(below(b, found) for b in direct))


def rows_of(floor: tuple[str, ...], found: set[Arrow]) -> Rows:
    """The rooms of a floor, those that import others of it in a row above them."""
    here = [room for room in floor if room in rooms()]

    def depth(room: str) -> int:
        return max((1 + depth(a) for a, b in found if b == room and a in here), default=0)

    return [row for d in range(len(here)) if (row := [room for room in here if depth(room) == d])]


def routed(rows: Rows, found: set[Arrow]) -> tuple[Rows, list[list[str]]]:
    """Rows with a lane wherever an arrow passes through, and the stops of every arrow."""
    row_of = {room: i for i, row in enumerate(rows) for room in row}
    rows, paths = [list(row) for row in rows], []
    for a, b in sorted(found, key=lambda arrow: (row_of[arrow[0]], arrow)):
        lanes = [f"{a}>{b}@{i}" for i in range(row_of[a] + 1, row_of[b])]
        for i, lane in enumerate(lanes, row_of[a] + 1):
            rows[i].append(lane)
        paths.append([a, *lanes, b])
    return rows, paths


def placed(rows: Rows, paths: list[list[str]]) -> dict[str, float]:
    """Middle of every room and lane: near those that it is tied to, in an order that crosses little."""
    ties: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for path in paths:
        for a, b in itertools.pairwise(path):
            pull = 1 + 3 * ("@" in a) + 3 * ("@" in b)  # lanes are straight
            ties[a] += pull * [b]
            ties[b] += pull * [a]
    x = {name: 100.0 * i for row in rows for i, name in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 else rows[::-1]:
            wanted = {name: sum(x[t] for t in ties[name]) / len(ties[name]) if ties[name] else x[name] for name in row}
            row.sort(key=lambda name: wanted[name])
            x |= spread([wanted[name] for name in row], [LANE if "@" in name else BOX for name in row], row)
    return x


def spread(wanted: list[float], widths: list[int], names: list[str]) -> dict[str, float]:
    """Middles in this order that do not overlap, as near to the wanted ones as a run from both sides gives."""
    need = [(a + b) / 2 + GAP for a, b in itertools.pairwise(widths)]
    right, left = list(wanted), list(wanted)
    for i, gap in enumerate(need):
        right[i + 1] = max(right[i + 1], right[i] + gap)
    for i, gap in reversed(list(enumerate(need))):
        left[i] = min(left[i], left[i + 1] - gap)
    return {name: (a + b) / 2 for name, a, b in zip(names, right, left)}


def words(room: str) -> list[str]:
    """The first sentence of a room's docstring, in short lines."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    first = (ast.get_docstring(parse(path)) or "").partition("\n")[0].replace("`", "")
    head, _, rest = first.partition(": ")
    return textwrap.wrap(rest if rest and len(head) < len(rest) else first, 34, max_lines=3, placeholder=" …")


def picture() -> str:
    """The whole picture as SVG."""
    found = arrows()
    floors = [rows for floor in FLOORS if (rows := rows_of(floor, found))]
    rows, paths = routed([row for floor in floors for row in floor], found)
    x = placed(rows, paths)
    shift = MARGIN + BOX / 2 - min(x[name] for row in rows for name in row)
    x = {name: round(value + shift) for name, value in x.items()}
    y = {name: MARGIN + ROW * i for i, row in enumerate(rows) for name in row}
    width, height = max(x.values()) + BOX // 2 + MARGIN, ROW * (len(rows) - 1) + HEIGHT + 2 * MARGIN
    bands, n = [], 0
    for floor in floors:
        top, band, n = MARGIN + ROW * n - 16, ROW * (len(floor) - 1) + HEIGHT + 32, n + len(floor)
        bands.append(f'<rect class="floor" x="8" y="{top}" width="{width - 16}" height="{band}" rx="10"/>')
    drawn = [line(path, x, y) for path in paths]
    boxes = [box(name, x[name], y[name]) for row in rows for name in row if "@" not in name]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Rooms of pplebm on their floors; an arrow is an import</title>", f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>', *bands, *drawn, *boxes, "</svg>", "",
    ])  # fmt: skip


def line(path: list[str], x: dict[str, int], y: dict[str, int]) -> str:
    """An arrow as a smooth line through its lanes."""
    start, *stops = path
    px, py = x[start], y[start] + HEIGHT
    d = f"M{px} {py}"
    for stop in stops:
        qx, qy = x[stop], y[stop] - (5 if stop == stops[-1] else 0)
        bend = (qy - py) // 2
        d += f" C{px} {py + bend} {qx} {qy - bend} {qx} {qy}"
        px, py = qx, y[stop] + HEIGHT
        d += f" V{py}" if stop != stops[-1] else ""
    tip = f"M{px - 4} {qy - 3} h8 l-4 8 z"
    return f'<g id="{path[0]}-{path[-1]}"><path class="arrow" d="{d}"/><path class="tip" d="{tip}"/></g>'


def box(room: str, x: int, y: int) -> str:
    """A room: its name, and what lives there."""
    lines = "".join(
        f'<text class="text" x="{x}" y="{y + 33 + 12 * i}" text-anchor="middle">{escape(words)}</text>'
        for i, words in enumerate(words(room))
    )
    return (
        f'<g id="{room}"><rect class="box" x="{x - BOX // 2}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="7"/>'
        f'<text class="room" x="{x}" y="{y + 19}" text-anchor="middle">{room}</text>{lines}</g>'
    )


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
