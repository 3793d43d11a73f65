"""Size S with one thing changed at a time: layers, batch, steps, dimension of the latents."""

from __future__ import annotations

import sys
from typing import Any

from . import sizes, timing
from .roster import Choice, roster

GROWTH: dict[str, tuple[Any, ...]] = {
    "layers": (2, 3, 4, 6, 8),
    "batch": (16, 64, 128, 512, 2048),
    "steps": (10, 50, 200),
    "dimension": (8, 16, 64, 256),
}
QUICK: dict[str, tuple[Any, ...]] = {"layers": (3,), "batch": (16,)}
KEYS = ("a", "c", "d")


def changed(size: sizes.Size, what: str, value: int) -> sizes.Size:
    """The size with one thing changed; further layers are as wide as z2, and z2 half as wide as z1."""
    if what == "batch":
        return size._replace(batch=value)
    if what == "steps":
        return size._replace(n_posterior=value, n_prior=value)
    dims = (size.dims[0], *[size.dims[1]] * (value - 1)) if what == "layers" else (value, value // 2)
    return size._replace(hyper=size.hyper._replace(latent_dims=dims))


def growth(base: sizes.Size, rounds: int, choice: Choice, quick: bool = False) -> list[dict[str, Any]]:
    """Milliseconds of an iteration, and ratios, for every change."""
    found = []
    for what, values in (QUICK if quick else GROWTH).items():
        for value in values:
            print(f"growth: {what} {value}", file=sys.stderr, flush=True)
            size = changed(base, what, value)
            kept, _ = roster(size, "cpu", choice._replace(only=KEYS, reference=None))
            for c in kept:
                c.iteration()
            seconds = timing.interleaved(kept, "iteration", rounds)
            baseline = timing.baseline_of(seconds)
            rows = {
                c.key: {
                    "seconds": float(sorted(seconds[c.key])[rounds // 2]),
                    "ratio": timing.ratio(seconds, c.key, baseline),
                }
                for c in kept
            }
            found.append({"what": what, "value": value, "baseline": baseline, "rows": rows})
    return found
