"""Run a kernel over a batch of data: one chain per datum, all at once, memory flat in the number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pplebm.errors import PplebmError
from pplebm.ppl import Array, Latents, Params
from pplebm.program import Program

INITS = ("normal", "base")


def start(program: Program, key: Any, params: Params, n: int, init: str | Latents = "base") -> Latents:
    """Where n chains start: "normal" for N(0, I), "base" for ancestral draws, or given latents.

    In noise coordinates the two agree, since the base is N(0, I) there.

    Raises:
        PplebmError: for an unknown word, or given latents of another batch size.
    """
    if isinstance(init, str):
        if init not in INITS:
            raise PplebmError(f"init '{init}' is not known; choose one of {', '.join(INITS)}, or give latents.")
        base = program.draw_base(key, n, params)
        return base if init == "base" else program.ppl.normal_like(key, base)
    for site in program.latents:
        if site.name not in init or len(init[site.name]) != n:
            got = tuple(init[site.name].shape) if site.name in init else "nothing"
            raise PplebmError(f"given start of '{site.name}' is {got}; expected shape {(n, *site.shape)}.")
    return dict(init)


def run(
    ppl: Any, key: Any, kernel: Any, state: Any, log_density: Callable[[Latents], Array], n_steps: int
) -> tuple[Any, Any]:
    """Run `n_steps` of a kernel; returns the last state and the infos stacked by step, (n_steps, B) each."""
    return ppl.iterate(lambda s, k: kernel(k, s, log_density), state, ppl.split(key, n_steps))


def record(
    ppl: Any, key: Any, kernel: Any, state: Any, log_density: Callable[[Latents], Array], n_steps: int, every: int = 1
) -> tuple[Any, Any, list[Latents]]:
    """Like `run`, and keep the latents every so many steps, the start included."""
    kept, infos = [state.z], []
    for k in ppl.split(key, n_steps):
        state, info = kernel(k, state, log_density)
        infos.append(info)
        if len(infos) % every == 0:
            kept.append(state.z)
    return state, infos, kept
