"""Run a kernel over a batch of data: one chain per datum, all at once, memory flat in the number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels import langevin
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
        if init == "base":
            return program.draw_base(key, n, params)
        zeros = {s.name: program.ppl.asarray(np.zeros((n, *s.shape))) for s in program.latents}
        return program.ppl.normal_like(key, zeros)
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


class Trouble(NamedTuple):
    """What went wrong in a batch of short runs; shares, scalars."""

    divergent: Array  # of the chains: with a non-finite step
    tamed: Array  # of the steps: with a drift shortened to max_drift


def short_run(
    program: Program,
    key: Any,
    params: Params,
    kernel: Any,
    n_steps: int,
    *,
    x: Array | None = None,
    n: int | None = None,
    init: str | Latents = "normal",
    coordinates: str = "noise",
) -> tuple[Latents, Trouble]:
    """Fresh Langevin chains of fixed length: towards p(z|x) when data are given, else towards the tilted prior.

    Args:
        program: the tilted program.
        kernel: made by `kernels.langevin.langevin`.
        n_steps: length of the chains.
        x: data (B, *event), one chain each; or
        n: number of chains of the prior.
        init: see `start`.
        coordinates: in which the chains move.

    Returns:
        The last latents, in centred coordinates and cut off from the gradient, and what went wrong.
    """
    ppl, moving = program.ppl, program.with_coordinates(coordinates)
    count = len(x) if x is not None else int(n or 0)
    k_start, k_run = ppl.split(key)
    state = langevin.init(ppl, start(moving, k_start, params, count, init))

    def log_density(z: Latents) -> Array:
        return moving.log_prior(params, z) if x is None else moving.log_joint(params, z, x)

    with ppl.threads_for(program.work(count)):
        state, info = run(ppl, k_run, kernel, state, log_density, n_steps)
    z = ppl.stop_gradient(moving.move(params, state.z, "centred"))
    return z, Trouble((state.n_divergent > 0).sum() / count, info.is_tamed.sum() / (count * n_steps))
