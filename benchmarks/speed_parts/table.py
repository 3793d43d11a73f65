"""Text that is printed: tables in markdown, warnings, and the figures to reach."""

from __future__ import annotations

from typing import Any, NamedTuple

from .machine import BUSY, named


class Goal(NamedTuple):
    """One figure to reach on two CPU cores."""

    size: str
    column: str
    key: str
    what: str  # "ratio" to (a), at least; "over_by_hand" or "compile_seconds", at most
    figure: float

    def value(self, found: dict[str, Any]) -> float | None:
        """Figure that was measured, if it was."""
        row = found["columns"][self.column]["rows"].get(self.key)
        if self.what != "compile_seconds":
            return None if row is None else row.get(self.what)
        fresh = found.get("fresh", {}).get(self.key, {})
        return fresh.get("compile_seconds")

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.figure if self.what == "ratio" else value <= self.figure

    def text(self) -> str:
        """Goal in words."""
        if self.what == "ratio":
            return f"{self.key}, {self.column}, ≥ {self.figure:g} × (a)"
        if self.what == "over_by_hand":
            return f"{self.key}, {self.column}, ≤ {100 * self.figure:g} % over (b)"
        return f"{self.key}, compile ≤ {self.figure:g} s"


GOALS = (
    Goal("S", "iteration", "c", "ratio", 2.0),
    Goal("M", "iteration", "c", "ratio", 1.3),
    Goal("M", "posterior", "c-bf16", "ratio", 2.3),
    Goal("S", "iteration", "d", "ratio", 4.5),
    Goal("S", "iteration", "d-sharded", "ratio", 6.0),
    Goal("M", "iteration", "d", "ratio", 1.2),
    Goal("M", "iteration", "d-sharded", "ratio", 1.6),
    *(Goal(s, phase, "c", "over_by_hand", 0.03) for s in "SM" for phase in ("posterior", "prior")),
    *(Goal(s, phase, "d", "over_by_hand", 0.01) for s in "SM" for phase in ("posterior", "prior")),
    *(Goal(s, "iteration", "c", "compile_seconds", 20.0) for s in "SM"),
    *(Goal(s, "iteration", "d", "compile_seconds", 3.0) for s in "SM"),
)


def size_table(found: dict[str, Any]) -> str:
    """One size on one place."""
    head = (
        "| size {}{} | iteration, ms | × (a) | posterior × | prior × | over (b), post. / prior | of peak | compile, s |"
    )
    place = "" if found["place"] == "cpu" else f", {found['place']}"
    lines = [head.format(found["size"], place), "|---|---:|---:|---:|---:|---:|---:|---:|"]
    columns = {name: column["rows"] for name, column in found["columns"].items()}
    for key, label in found["labels"].items():
        rows = {name: column[key] for name, column in columns.items()}
        over = [rows[p].get("over_by_hand") for p in ("posterior", "prior")]
        fresh = found.get("fresh", {}).get(key, {})
        seconds = fresh.get("compile_seconds", found["compile_seconds"][key])
        cells = [
            label,
            f"{1e3 * rows['iteration']['seconds']:.1f}",
            *(f"{rows[name]['ratio']:.2f}" for name in ("iteration", "posterior", "prior")),
            " / ".join(f"{100 * o:+.1f} %" for o in over if o is not None),
            f"{100 * found['of_peak'][key]:.0f} %",
            f"{seconds:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth_table(entries: list[dict[str, Any]]) -> str:
    """Milliseconds of (a), and ratios of the others, by what was changed."""
    keys = [key for key in entries[0]["rows"] if not key.startswith("a")]
    lines = ["| size S, but | (a), ms | " + " | ".join(f"({k}) ×" for k in keys) + " |"]
    lines.append("|---|---:|" + "---:|" * len(keys))
    for entry in entries:
        rows = entry["rows"]
        ratios = " | ".join(f"{rows[k]['ratio']:.2f}" for k in keys)
        lines.append(
            f"| {entry['what']} {entry['value']} | {1e3 * rows[entry['baseline']]['seconds']:.1f} | {ratios} |"
        )
    return "\n".join(lines)


def memory_table(sizes: list[dict[str, Any]]) -> str:
    """Peak memory by candidate and length of the chains."""
    measured = [f for f in sizes if any("peak_mib" in row for row in f.get("fresh", {}).values())]
    if not measured:
        return ""
    lines = ["| peak memory, MiB | " + " | ".join(f"{f['size']}, 10 steps | 200 steps" for f in measured) + " |"]
    lines.append("|---|" + "---:|---:|" * len(measured))
    for key, label in measured[0]["labels"].items():
        cells = []
        for f in measured:
            mib = f["fresh"].get(key, {}).get("peak_mib", {})
            cells += [f"{mib[n]:.0f}" if n in mib else "–" for n in ("10", "200")]
        if set(cells) != {"–"}:
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def goals(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every figure to reach that was measured."""
    found = []
    for f in sizes:
        for goal in GOALS:
            if goal.size != f["size"] or f["place"] != "cpu":
                continue
            value = goal.value(f)
            if value is not None:
                entry = {"size": goal.size, "goal": goal.text(), "value": value, "reached": goal.reached(value)}
                found.append(entry | {"what": goal.what})
    return found


def goals_table(found: list[dict[str, Any]]) -> str:
    """The figures to reach, and those reached."""
    if not found:
        return ""
    lines = ["| size | figure to reach on two cores | measured | |", "|---|---|---:|---|"]
    for g in found:
        shown = f"{100 * g['value']:+.1f} %" if g["what"] == "over_by_hand" else f"{g['value']:.2f}"
        lines.append(f"| {g['size']} | {g['goal']} | {shown} | {'reached' if g['reached'] else 'missed'} |")
    return "\n".join(lines)


def warnings(result: dict[str, Any]) -> list[str]:
    """Sentences that a reader must know before believing a figure."""
    found = []
    if result["quick"]:
        found.append("Warning: a quick run, which shows that the command works; its times mean nothing.")
    for f in result["sizes"]:
        load = f["others_load"]
        if load is None:
            found.append(f"Warning: how busy the machine was during size {f['size']} is not known.")
        elif load > BUSY:
            found.append(f"Warning: other processes kept {load:.1f} cores busy during size {f['size']}.")
    return found


def text(result: dict[str, Any]) -> str:
    """All tables, and the machine in a line."""
    parts = [*warnings(result), *(size_table(f) for f in result["sizes"])]
    if "growth" in result:
        parts.append(growth_table(result["growth"]))
    parts.append(memory_table(result["sizes"]))
    versions = ", ".join(f"{k} {v}" for k, v in result["machine"]["versions"].items() if v)
    peaks = "; ".join(
        f"{f['place']}: " + ", ".join(f"{k} {v:.0f}" for k, v in f["peak"].items()) for f in result["sizes"][:1]
    )
    parts.append(
        f"{named(result['machine'])}. {versions}. Products of 1024 × 1024 matrices, 10⁹ operations/s, {peaks}."
    )
    return "\n\n".join(part for part in parts if part)
