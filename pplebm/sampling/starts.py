"""Where chains of a posterior start when nobody says it: near where its mass may be, but no closer than that."""

from __future__ import annotations

import numpy as np

from pplebm.kernels.ascent import ascent
from pplebm.kernels.batch import choose
from pplebm.kernels.schedules import geometric
from pplebm.ppl.language import Data, Key, Latents, Params
from pplebm.program import Program
from pplebm.sampling import chains

STEPS, PIECE = 300, 10  # of the longest ascent, and steps between looks at what it brings
FIRST_RATE, LAST_RATE = 0.2, 0.002


def climbed(program: Program, key: Key, params: Params, data: Data | None, n: int) -> Latents:
    """Uniform starts in [-2, 2] of the unconstrained coordinates, moved uphill while the density is steep.

    A start stays where ten steps of Adam win less than one nat for every latent: about what separates a mode from where
    the mass is, so that chains neither begin in the mode nor fall into the neck of a funnel. Draws of the prior are no
    starts, since a vague prior is wider than its posterior by orders of magnitude.

    Args:
        program: in its own coordinates.
        key: of the starts.
        params: of the program.
        data: with a row for every chain, or all data of a joint program.
        n: number of chains.

    Raises:
        PplebmError: if log density or gradient are not finite in 20 draws.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> z = climbed(program, 0, program.params, torch.ones(4, 3), 4)
        >>> tuple(z["z1"].shape), bool((abs(z["z1"]) < 5).all())
        ((4, 3), True)
    """
    ppl, kernel = program.ppl, ascent(geometric(FIRST_RATE, LAST_RATE, STEPS))
    state = chains.begin(program, key, params, data, kernel, n, "uniform")
    density = program.log_density(params, data)
    value = ppl.to_numpy(density(state.z)).astype(float)
    climbs = np.ones(n, bool)
    for piece_key in ppl.split(key, STEPS // PIECE):
        with ppl.threads_for(program.work(n)):
            end, _ = chains.advance(program, piece_key, state, params, data, kernel, PIECE)
        reached = ppl.to_numpy(density(end.last)).astype(float)
        rises = climbs & (reached > value)
        z = choose(ppl, ppl.asarray(rises), end.last, state.z)
        climbs, value = climbs & (reached - value > program.width), np.where(rises, reached, value)
        state = end._replace(z=z, last=z)
        if not climbs.any():
            break
    return dict(state.z)
