r"""Independent-as-can-be draws of the tilted prior: particles go from the base by strengths that they choose."""

from __future__ import annotations

from typing import NamedTuple

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
    program: Program, key: Key, params: Params, n: int, n_steps: int, n_leapfrog: int, step_size: float
) -> Annealed:
    r"""Draws of a tilted prior by sequential Monte Carlo.

    Before every one of its n_steps trajectories a particle is reweighted for the strength it comes to,

    .. math:: \log w \leftarrow \log w + (\beta' - \beta) f(z), \qquad
              \pi_\beta(z) \propto p_0(z)\, e^{\beta f(z)}

    with the largest :math:`\beta'` that leaves nine tenths of the weighted particles in effect, and particles are
    drawn anew where fewer than half are. What is left after half of the trajectories is gone at once; the other half
    is run in the tilted prior itself, and parts particles that were drawn from the same one.

    Args:
        program: in noncentered coordinates; its prior reads no covariates.
        n: particles, one for every draw.
        n_steps: trajectories, 2 or more.
        n_leapfrog: steps of the longest trajectory.
        step_size: where adaptation starts; all particles share it.

    Source: Del Moral, Doucet, Jasra (JRSS B 2006); Jasra, Stephens, Doucet, Tsagaris (Scandinavian Journal of
    Statistics 2011) for the strengths.

    Example:
        >>> import pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)), coordinates="noncentered")
        >>> annealed_draws(program, 0, program.params, 100, 10, 6, 0.3).z["z1"].shape
        torch.Size([100, 3])
    """
    ppl = program.ppl
    k_base, k_run = ppl.split(key)
    mover = Mover(program, params, None, False, Settings(n_steps, n_leapfrog, 1), True)
    base = start(program, k_base, params, n, "base")
    kept = tree_map(lambda a: a.reshape(-1, *a.shape[2:]) if a.ndim > 1 else a, begin(program, n, 1, step_size))
    none = 0.0 * kept.age
    kept = kept._replace(z=base, log_density=mover.at(base, none))

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        k_resample, k_move, key = ppl.split(carry.key, 3)
        is_late, left = carry.k + 1.0 >= n_steps / 2, 1.0 - carry.strength
        f = program.log_tilt(params, carry.at.z)[:, None]
        rise = step_of_strength(ppl, f, carry.at.log_weight[:, None], left, KEPT)
        strength = carry.strength + ppl.where(is_late, left, rise)
        at, accept = mover.trajectory(k_move, carry.at, strength + none)
        uneven = ppl.where(is_late, 1.0 + 0.0 * left, RESAMPLED)  # in the end all are to count alike
        index, log_weight = resampled(ppl, k_resample, at.log_weight[:, None], uneven)
        at = tree_map(lambda a: a[index[:, 0]] if a.ndim else a, at)._replace(log_weight=log_weight[:, 0])
        return _Carry(at, strength, carry.k + 1.0, carry.accepted + accept.mean() / n_steps, key), None

    zero = 0.0 * none[:1]
    end, _ = ppl.iterate(step, _Carry(kept, zero, zero[0], zero[0], k_run), n_steps)
    lost = 1.0 * ~ppl.isfinite(end.at.log_density)
    return Annealed(end.at.z, RunInfo(lost.mean(), end.accepted))


class _Carry(NamedTuple):
    """Particles on their way."""

    at: Chains
    strength: Array  # (1,)
    k: Array  # trajectories so far
    accepted: Array
    key: Key
