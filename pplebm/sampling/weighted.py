r"""Adjusted chains that live on while parameters change, with the weights that make up for the change."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.annealed import AnnealedState, annealed
from pplebm.kernels.batch import choose, zeros
from pplebm.kernels.metropolis import log_uniform, uniform_noise
from pplebm.ppl.language import PPL, Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_map
from pplebm.program import Program
from pplebm.sampling.chains import start
from pplebm.sampling.particles import effective, resampled

SHARED_GAIN = 0.1  # of the log step sizes of all chains that move
TARGET_ACCEPT = 0.7  # of a chain's trajectories
POWER = 4.0  # of the strengths (k / n)^4 of chains that begin: likelihoods are felt first where they are weak
LEAST_ESS = 0.5  # share of the chains of a group, below which they are resampled
KERNEL = annealed(adaptive_hmc(metric="diagonal"))


class Chains(NamedTuple):
    """Chains of N groups, M in each; part of the state of an algorithm page."""

    z: Latents  # (N, M, *event) by site, in the coordinates in which they stay while parameters change
    log_weight: Array  # (N, M) nats
    log_density: Array  # (N, M) where a chain stands, at the parameters of its last move
    log_step: Array  # (N, M) of the step size
    age: Array  # (N, M) trajectories; 0: not begun
    count: Array  # trajectories so far, by which their lengths differ


class Settings(NamedTuple):
    """How chains move."""

    n_steps: int  # trajectories
    n_leapfrog: int  # steps of the longest trajectory; lengths are spread evenly below it
    n_annealed: int  # strengths over which a chain that begins is brought from the base to its target
    restarted: float = 0.0  # share of the moves at which half of the chains that move begin anew


class Moved(NamedTuple):
    """Chains after a move, and what is known of them."""

    z: Latents  # (n * M, *event) centered, chains of a row side by side
    weight: Array  # (n * M,) adding up to 1
    log_mean_weight: Array  # (n,) of every row; one number for rows that share a target
    ess: Array  # effective chains, as a share, mean over groups
    accept_prob: Array  # mean over chains and trajectories
    divergent: Array  # share of the chains that stood where the density is not finite, and began anew


def begin(program: Program, n: int, n_particles: int, step_size: float) -> Chains:
    """Chains that have not begun: they will at their first move."""
    one = zeros(program.zeros(n * n_particles)).reshape(n, n_particles)
    z = {site: a.reshape(n, n_particles, *a.shape[1:]) for site, a in program.zeros(n * n_particles).items()}
    return Chains(z, one, one, one + math.log(step_size), one, program.ppl.asarray(0))


def advance(
    program: Program,
    key: Key,
    params: Params,
    data: Data | None,
    chains: Chains,
    index: Array,
    settings: Settings,
    *,
    observed: bool,
    is_shared: bool = False,
) -> tuple[Chains, Moved]:
    r"""Move the chains of some groups at new parameters, and reweight them.

    A chain at :math:`\epsilon` that last moved at parameters :math:`\theta` has, at :math:`\theta'`,

    .. math:: \log w \leftarrow \log w + \log\tilde\pi_{\theta'}(\epsilon) - \log\tilde\pi_\theta(\epsilon)

    and moves by trajectories that leave :math:`\pi_{\theta'}` as it is. Chains begin with draws of the base that are
    annealed to their target, where the same rule, for strengths in the place of parameters, gives their first weight.
    They move in noncentered coordinates. Between moves chains of the tilted prior stay where they are in these, so that
    they follow its scales; chains of posteriors stay in centered ones, :math:`z` in the place of :math:`\epsilon`
    above: what data say of a latent holds when the base moves. So at any time
    :math:`E[w\,g(\epsilon)] = \tilde Z_{\theta'}\,E_{\pi_{\theta'}}[g]` with :math:`\tilde Z = \int \tilde\pi`,
    however the parameters were chosen, in the limit of many chains. Groups whose weights are uneven are resampled.
    Chains that share a target share a step size; others find their own. What chains at their target find in common
    holds for those that do not move as well, and for those that are yet to begin: where a datum is rarely seen, the
    parameters have gone far when its turn comes.

    Args:
        program: in noncentered coordinates.
        data: a row for every group of the index, or None for a prior that reads none.
        index: groups that move, without repetition.
        settings: how.
        observed: whether the targets are posteriors, or tilted priors.
        is_shared: whether all groups have one target, by which their chains are weighted and resampled together.

    Source: Carbone, Hua, Coste, Vanden-Eijnden (NeurIPS 2023), propositions 1 and 2; Neal (Statistics and Computing
    2001) for the beginning.
    """
    ppl, n, m = program.ppl, len(index), chains.age.shape[1]
    rows = repeated(ppl, data, m)
    k_start, k_again, k_move, k_resample = ppl.split(key, 4)
    at = tree_map(lambda a: a[index].reshape(n * m, *a.shape[2:]) if a.ndim > 1 else a, chains)

    mover = Mover(program, params, rows, observed, settings, is_shared)
    held = program.with_coordinates("centered") if observed else program  # in which chains stay between moves
    held_density = held.log_density(params, rows, observed)
    z = held.move(params, at.z, "noncentered", rows) if observed else at.z
    here = mover.at(z, 1.0 + 0.0 * at.age)
    change = (held_density(at.z) if observed else here) - at.log_density
    is_lost = (at.age > 0.5) & ~(ppl.isfinite(here) & ppl.isfinite(change))
    restarted = settings.restarted if is_shared or m > 1 else 0.0  # a chain that is alone has no weight to be judged by
    begins = (at.age < 0.5) | is_lost | _restarts(ppl, k_again, at.z, restarted)
    base = start(program, k_start, params, n * m if rows is None else rows, "base")
    at = at._replace(
        z=choose(ppl, begins, base, z),
        log_weight=ppl.where(begins, 0.0 * at.age, at.log_weight + change),
        log_density=ppl.where(begins, mover.at(base, 0.0 * at.age), here),
        age=ppl.where(begins, 0.0 * at.age, at.age),
    )
    at, accept, drift = mover(k_move, at, begins)
    at, weight, log_mean, ess = _reweighted(ppl, k_resample, at, (1, n * m) if is_shared else (n, m))

    z = program.move(params, at.z, "centered", rows)
    at = at._replace(z=z, log_density=held_density(z)) if observed else at
    chains = chains._replace(log_step=chains.log_step + ppl.stop_gradient(drift))
    put = lambda a, rows: ppl.put(a, index, ppl.stop_gradient(rows).reshape(n, *a.shape[1:])) if a.ndim > 1 else rows
    return tree_map(put, chains, at), Moved(ppl.stop_gradient(z), weight, log_mean, ess, accept, (1.0 * is_lost).mean())


def repeated(ppl: PPL, data: Data | None, m: int) -> Data | None:
    """Data with every row m times, side by side."""
    if data is None or m == 1:
        return data
    return take_rows(data, ppl.asarray(range(n_rows(data) * m)) // m)


class Mover:
    """Trajectories of chains at fixed parameters: weights before every one of them, step sizes after it."""

    def __init__(
        self, program: Program, params: Params, rows: Data | None, observed: bool, settings: Settings, is_shared: bool
    ) -> None:
        self.program, self.params, self.rows, self.observed = program, params, rows, observed
        self.settings, self.ppl, self.is_shared = settings, program.ppl, is_shared
        self._log_density = program.log_density(params, rows, observed)

    def at(self, z: Latents, strength: Array) -> Array:
        """Log density with tilts and likelihood at a strength, (B,)."""
        return self._log_density(z, tilt_strength=strength, likelihood_strength=strength)

    def __call__(self, key: Key, at: Chains, begins: Array) -> tuple[Chains, Array, Array]:
        """Chains after their trajectories, the mean acceptance, and by how much all log step sizes are to change.

        Where any begins, the first trajectories are theirs: at strengths that rise for them, and are 1 for the others.
        """
        ppl, n_annealed, n_steps = self.ppl, self.settings.n_annealed, self.settings.n_steps
        first = (1.0 * begins).max() * n_annealed  # 0 where no chain begins
        one, none = 1.0 + 0.0 * at.age, 0.0 * at.age.sum()

        def step(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
            at, k, total, drift, key = carry
            k_now, k_next = ppl.split(key)
            is_early = begins & (k + 1.0 < first)
            strength = ppl.where(is_early, ((k + 1.0) / n_annealed) ** POWER * one, one)
            moved, accept, change = self.trajectory(k_now, at, strength)
            moved = moved._replace(age=ppl.where(is_early, 0.0 * one, moved.age))
            return (moved, k + 1.0, total + ppl.where(k < first, none, accept.mean()), drift + change, k_next), None

        found, _ = ppl.iterate(step, (at, none, none, none, key), ppl.asarray(first + n_steps))
        end: Chains = found[0]
        return end, found[2] / n_steps, found[3]

    def trajectory(self, key: Key, at: Chains, strength: Array) -> tuple[Chains, Array, Array]:
        """Chains reweighted for the density they come to, one trajectory in it, and its acceptance probability.

        The third is by how much the log step sizes of chains at their target change alike.
        """
        ppl, size = self.ppl, self.ppl.exp(at.log_step)
        begun: AnnealedState = KERNEL.init(ppl, at.z, lambda z: self.at(z, strength))
        inner = begun.inner._replace(step_size=size, length=self.settings.n_leapfrog * size, step=at.count)
        state, info = self.program.chain(
            KERNEL, AnnealedState(inner, strength, strength), ppl.split(key, 1), self.params, self.rows, self.observed
        )
        accept = info.accept_prob[0]
        there = 1.0 * (strength >= 1.0)  # chains on their way have strengths, and accept, alike
        drift, early = _common_change(accept, there), _common_change(accept, 1.0 - there)  # follows the parameters
        change = drift * there + early * (1.0 - there)
        if not self.is_shared:  # vanishes, and waits for the target: following a chain on its way biases its weight
            change = change + (accept - TARGET_ACCEPT) / (1.0 + at.age) * there
        log_weight = at.log_weight + inner.log_density - at.log_density
        density, log_step = state.inner.log_density, at.log_step + change
        return Chains(state.z, log_weight, density, log_step, at.age + 1.0, at.count + 1), accept, drift


def _common_change(accept: Array, chosen: Array) -> Array:
    """By how much the log step sizes of the chosen chains are to change alike, for what they accept; 0 of none."""
    n = chosen.sum()
    change: Array = SHARED_GAIN * (chosen * (accept - TARGET_ACCEPT)).sum() / (n + (n < 0.5))
    return change


def _restarts(ppl: PPL, key: Key, z: Latents, share: float) -> Array:
    """Which chains begin anew, (B,): at a share of the calls half of them; the others' weights then judge them."""
    k_call, k_row = ppl.split(key)
    at_call, at_row = (ppl.exp(log_uniform(ppl.normal_like(k, uniform_noise(z)))) for k in (k_call, k_row))
    return ((at_call[0] + 0.0 * at_row) < share) & (at_row < 0.5)


def _reweighted(ppl: PPL, key: Key, at: Chains, shape: tuple[int, int]) -> tuple[Chains, Array, Array, Array]:
    """Chains resampled in groups of uneven weights; normalised weights, log mean weights, and effective shares."""
    (n, m), by_group = shape, at.log_weight.reshape(shape).T
    log_mean, ess = ppl.logsumexp(by_group, 0) - math.log(m), effective(ppl, by_group)
    if m > 1:
        picked, _ = resampled(ppl, key, by_group, LEAST_ESS)
        index = (picked.T + m * ppl.asarray(range(n))[:, None]).reshape(-1)
        at = tree_map(lambda a: a[index] if a.ndim else a, at)
        by_group = ppl.where(ess < LEAST_ESS, log_mean + 0.0 * by_group, by_group)
    weight = ppl.exp(by_group - log_mean) / (m * n)
    return at._replace(log_weight=by_group.T.reshape(-1)), weight.T.reshape(-1), log_mean, ess.mean()
