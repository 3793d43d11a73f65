r"""Independent-as-can-be draws of the tilted prior: particles go from the base by strengths that they choose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pplebm.ppl.language import Array, Key, Latents, Params
from pplebm.ppl.trees import tree_map
from pplebm.program import Program
from pplebm.sampling.chains import RunInfo, start
from pplebm.sampling.particles import resampled, step_of_strength
from pplebm.sampling.weighted import Chains, Mover, Settings, begin

KEPT, RESAMPLED = 0.9, 0.5  # effective shares: of a step of strength, and to draw anew on the way


class Annealed(NamedTuple):
    """Draws and how they came about."""

    z: Latents  # (n, *event) noncentered, all of one weight
    info: RunInfo


def annealed_draws(
    program: Program, key: Key, params: Params, n: int, group: int, settings: Settings, step_size: float
) -> Annealed:
    r"""Draws of a tilted prior by sequential Monte Carlo.

    Before every one of the trajectories of its first half a particle is reweighted for the strength it comes to,

    .. math:: \log w \leftarrow \log w + (\beta' - \beta) f(z), \qquad
              \pi_\beta(z) \propto p_0(z)\, e^{\beta f(z)}

    with the largest :math:`\beta'` that leaves nine tenths of the weighted particles of its group in effect, and
    particles are drawn anew where fewer than half are. What is left at the end of the half is gone at once; the other
    half is run in the tilted prior itself, and parts particles that were drawn from the same one.

    Args:
        program: in noncentered coordinates; its prior reads no covariates.
        n: draws.
        group: particles that are weighed against each other, of which there are as many groups as n draws need; so
            memory grows with n and not with its square. Neighbours of the draws are of different groups, or far apart.
        settings: n_steps and n_leapfrog of the trajectories.
        step_size: where adaptation starts; all particles share it.

    Source: Del Moral, Doucet, Jasra (JRSS B 2006); Jasra, Stephens, Doucet, Tsagaris (Scandinavian Journal of
    Statistics 2011) for the strengths.

    Example:
        >>> import pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)), coordinates="noncentered")
        >>> annealed_draws(program, 0, program.params, 100, 50, Settings(10, 6, 1), 0.3).z["z1"].shape
        torch.Size([100, 3])
    """
    ppl, n_groups = program.ppl, -(-n // group)
    k_base, k_climb, k_move = ppl.split(key, 3)
    mover, total = Mover(program, params, None, False, settings, True), group * n_groups
    base = start(program, k_base, params, total, "base")
    at = tree_map(lambda a: a.reshape(-1, *a.shape[2:]) if a.ndim > 1 else a, begin(program, total, 1, step_size))
    at = at._replace(z=base, log_density=mover.at(base, 0.0 * at.age))
    n_climb, zero = max(1, settings.n_steps // 2), 0.0 * at.age[:n_groups]

    def climb(carry: _Carry, _: None) -> tuple[_Carry, None]:
        k_resample, k_trajectory, key = ppl.split(carry.key, 3)
        log_weight, left = carry.at.log_weight.reshape(group, n_groups), 1.0 - carry.strength
        f = program.log_tilt(params, carry.at.z).reshape(group, n_groups)
        is_last = carry.k + 1.5 > n_climb
        strength = carry.strength + ppl.where(is_last, left, step_of_strength(ppl, f, log_weight, left, KEPT))
        at, accept, _ = mover.trajectory(k_trajectory, carry.at, (strength + 0.0 * log_weight).reshape(-1))
        uneven = ppl.where(is_last, 2.0 + 0.0 * zero, RESAMPLED)  # in the end all are to count alike
        index, log_weight = resampled(ppl, k_resample, at.log_weight.reshape(group, n_groups), uneven)
        pick = (index * n_groups + ppl.asarray(range(n_groups))).reshape(-1)
        at = tree_map(lambda a: a[pick] if a.ndim else a, at)._replace(log_weight=log_weight.reshape(-1))
        return _Carry(at, strength, carry.k + 1.0, carry.accepted + accept.mean(), key), None

    def move(carry: _Carry, _: None) -> tuple[_Carry, None]:
        k_trajectory, key = ppl.split(carry.key)
        at, accept, _ = mover.trajectory(k_trajectory, carry.at, 1.0 + 0.0 * carry.at.age)
        return carry._replace(at=at, accepted=carry.accepted + accept.mean(), key=key), None

    risen, _ = ppl.iterate(climb, _Carry(at, zero, zero[0], zero[0], k_climb), n_climb)
    end, _ = ppl.iterate(move, risen._replace(key=k_move), settings.n_steps - n_climb)
    lost = 1.0 * ~ppl.isfinite(end.at.log_density)
    apart = ppl.asarray(np.arange(n) * total // n)  # neighbours of one group may stem from one particle
    z = {site: a[apart] for site, a in end.at.z.items()}
    return Annealed(z, RunInfo(lost.mean(), end.accepted / settings.n_steps))


class _Carry(NamedTuple):
    """Particles on their way, particle by particle of every group."""

    at: Chains
    strength: Array  # (groups,)
    k: Array  # trajectories so far
    accepted: Array
    key: Key
