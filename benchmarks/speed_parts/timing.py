"""The clock: candidates interleaved in one process, medians, ratios round by round; and the proof of equal work."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from pplebm.errors import PplebmError

from . import sizes
from .candidate import COLUMNS, Candidate, Latents
from .machine import Load

# Equal work: of the data, all but a share may be off by no more than this. A leaky ReLU has two gradients, and where
# rounding decides its side a chain goes on elsewhere by up to a hundredth.
TOLERANCE = {"full": 1e-3, "bf16": 0.3}
KINKS = 0.05


def first_calls(candidates: list[Candidate]) -> dict[str, dict[str, float]]:
    """Seconds of the first call of every column, compiling included."""
    found: dict[str, dict[str, float]] = {}
    for c in candidates:
        print(f"  first calls: {c.label}", file=sys.stderr, flush=True)
        found[c.key] = {column: seconds_of(call) for column, call in c.calls().items()}
    return found


def seconds_of(call: Any) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def interleaved(candidates: list[Candidate], column: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; in each round every candidate runs once, in turn."""
    seconds: dict[str, list[float]] = {c.key: [] for c in candidates}
    for _ in range(rounds):
        for c in candidates:
            seconds[c.key].append(seconds_of(c.calls()[column]))
    return seconds


def ratio(seconds: dict[str, list[float]], key: str, baseline: str) -> float:
    """Median over rounds of the baseline's time over this one's in the same round: above one is faster.

    >>> ratio({"a": [2.0, 4.0, 6.0], "b": [1.0, 1.0, 2.0]}, "b", "a")
    3.0
    """
    return float(np.median(np.array(seconds[baseline]) / np.array(seconds[key])))


def baseline_of(seconds: dict[str, list[float]]) -> str:
    """The fastest candidate (a) by median, whatever its threads; the first candidate where there is none."""
    published = [key for key in seconds if key.startswith(("a", "original"))]
    return min(published, key=lambda key: np.median(seconds[key])) if published else next(iter(seconds))


def pair_of(key: str) -> str | None:
    """The hand-written density that a candidate is compared with."""
    return {"c": "b-torch", "d": "b-jax"}.get(key)


def timed(candidates: list[Candidate], rounds: int) -> dict[str, Any]:
    """Times by column and candidate: median, rounds, ratio to (a), and what it costs more than by hand."""
    load, columns = Load(), {}
    for column in COLUMNS:
        seconds = interleaved(candidates, column, rounds)
        baseline = baseline_of(seconds)
        rows: dict[str, Any] = {}
        for key, each in seconds.items():
            rows[key] = {"seconds": float(np.median(each)), "rounds": each, "ratio": ratio(seconds, key, baseline)}
            pair = pair_of(key)
            if pair in seconds:
                rows[key]["over_by_hand"] = 1.0 / ratio(seconds, key, str(pair)) - 1.0
        columns[column] = {"baseline": baseline, "rows": rows}
    return {"columns": columns, "others_load": load.of_others()}


def differences(end: Latents, expected: Latents) -> np.ndarray:
    """Greatest difference of each datum's latents over one plus their size, (B,)."""
    off = [np.abs(end[k] - v) / (1 + np.abs(v)) for k, v in expected.items()]
    return np.concatenate(off, axis=1).max(1)


def equal_work(candidates: list[Candidate], size: sizes.Size, place: str) -> dict[str, dict[str, float]]:
    """Distances by which final latents of noiseless chains are from those of (a), by candidate.

    Raises:
        PplebmError: if a candidate's are elsewhere, which is to say that it does other work.
    """
    from .page import SCALE_FLOOR
    from .published import Loop, end_of

    start, found = sizes.start(size), {}
    for phase in sizes.PHASES:
        ours = end_of(Loop(size, place), start, phase)
        for c in candidates:
            expected = ours
            if c.key == "original":  # it has another top layer; see `original`
                expected = end_of(Loop(size, place, top_floor=SCALE_FLOOR), start, phase)
            off = differences(c.final(start, phase), expected)
            check(c, phase, off)
            found.setdefault(c.key, {})[phase] = {"median": float(np.median(off)), "worst": float(off.max())}
    return found  # type: ignore[return-value]


def check(candidate: Candidate, phase: str, off: np.ndarray) -> None:
    """Refuse a candidate whose latents are elsewhere."""
    tolerance = TOLERANCE["bf16" if "bf16" in candidate.key else "full"]
    share = float(np.mean(~(off <= tolerance)))  # counts nan as well
    if share > KINKS:
        raise PplebmError(
            f"{candidate.label} does other work than (a): at the end of the {phase} chain with noise off, "
            f"{100 * share:.0f} % of the data are off by more than {tolerance:g} (median {np.median(off):.1e}, worst "
            f"{off.max():.1e})."
        )
