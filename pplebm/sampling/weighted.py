r"""Adjusted chains that live on while parameters change, with the weights that make up for the change."""

from __future__ import annotations

import math
from typing import NamedTuple

from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.annealed import AnnealedState, annealed
from pplebm.kernels.batch import choose, zeros
from pplebm.kernels.metropolis import log_uniform, uniform_noise
from pplebm.ppl.language import PPL, Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_map
from pplebm.program import Program
from pplebm.sampling.chains import start

SHARED_GAIN = 0.1  # of the log step sizes of all chains that move
TARGET_ACCEPT = 0.7  # of a chain's trajectories
POWER = 4.0  # of the strengths (k / n)^4 of chains that begin: likelihoods are felt first where they are weak
LEAST_ESS = 0.5  # share of the chains of a group, below which they are resampled
KERNEL = annealed(adaptive_hmc(metric="diagonal"))


class Chains(NamedTuple):
    """Chains of N groups, M in each, in noncentered coordinates; part of the state of an algorithm page."""

    z: Latents  # (N, M, *event) by site
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

    z: Latents  # (n * M, *event) noncentered, chains of a row side by side
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
    annealed to their target, where the same rule gives their first weight. So at any time :math:`E[w\,g(\epsilon)]
    = \tilde Z_{\theta'}\,E_{\pi_{\theta'}}[g]` with :math:`\tilde Z = \int \tilde\pi`, however the parameters were
    chosen in the limit of many chains. Groups whose weights are uneven are resampled.

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
    k_start, k_again, k_anneal, k_move, k_resample = ppl.split(key, 5)
    at = tree_map(lambda a: a[index].reshape(n * m, *a.shape[2:]) if a.ndim > 1 else a, chains)

    value = program.log_density(params, rows, observed)(at.z)
    is_lost = (at.age > 0.5) & ~ppl.isfinite(value)
    begins = (at.age < 0.5) | is_lost | _restarts(ppl, k_again, at.z, settings.restarted)
    base = start(program, k_start, params, n * m if rows is None else rows, "base")
    at = at._replace(
        z=choose(ppl, begins, base, at.z),
        log_weight=ppl.where(begins, 0.0 * value, at.log_weight + value - at.log_density),
        age=ppl.where(begins, 0.0 * at.age, at.age),
    )
    mover = _Mover(program, params, rows, observed, settings)
    at = mover.annealed(k_anneal, at, begins)
    at, accept = mover.moved(k_move, at)
    at, weight, log_mean, ess = _reweighted(ppl, k_resample, at, (1, n * m) if is_shared else (n, m))

    put = lambda a, rows: ppl.put(a, index, ppl.stop_gradient(rows).reshape(n, *a.shape[1:])) if a.ndim > 1 else rows
    return tree_map(put, chains, at), Moved(
        ppl.stop_gradient(at.z), weight, log_mean, ess, accept, (1.0 * is_lost).mean()
    )


def repeated(ppl: PPL, data: Data | None, m: int) -> Data | None:
    """Data with every row m times, side by side."""
    if data is None or m == 1:
        return data
    return take_rows(data, ppl.asarray(range(n_rows(data) * m)) // m)


class _Mover:
    """Trajectories of chains at fixed parameters, step sizes adapted after every one of them."""

    def __init__(self, program: Program, params: Params, rows: Data | None, observed: bool, settings: Settings) -> None:
        self.program, self.params, self.rows, self.observed = program, params, rows, observed
        self.settings, self.ppl = settings, program.ppl
        self.log_density = program.log_density(params, rows, observed)

    def annealed(self, key: Key, at: Chains, begins: Array) -> Chains:
        """Chains that begin brought from the base to their target; nothing is run where none does."""
        ppl, n = self.ppl, self.settings.n_annealed
        one = 1.0 + 0.0 * at.age

        def step(carry: tuple[Chains, Array, Key], __: None) -> tuple[tuple[Chains, Array, Key], None]:
            at, k, key = carry
            k_now, k_next = ppl.split(key)
            before, after = (ppl.where(begins, (i / n) ** POWER * one, one) for i in (k, k + 1.0))
            rise = self._at(at.z, after) - self._at(at.z, before)
            at = at._replace(log_weight=ppl.where(begins, at.log_weight + rise, at.log_weight))
            at = self._trajectory(k_now, at, self._state(at, after))[0]
            return (at._replace(age=0.0 * at.age), k + 1.0, k_next), None

        wanted = ppl.asarray((1.0 * begins).max() * n)
        found, _ = ppl.iterate(step, (at._replace(age=0.0 * at.age), 0.0 * at.age.sum(), key), wanted)
        end: Chains = found[0]
        return end._replace(age=at.age)

    def moved(self, key: Key, at: Chains) -> tuple[Chains, Array]:
        """Chains after their trajectories, and the mean acceptance."""

        def step(carry: tuple[Chains, AnnealedState], key: Key) -> tuple[tuple[Chains, AnnealedState], Array]:
            at, state, accept = self._trajectory(key, *carry)
            return (at, state), accept

        begun = (at, self._state(at, 1.0 + 0.0 * at.age))
        (at, _), accept = self.ppl.iterate(step, begun, self.ppl.split(key, self.settings.n_steps), lambda key: key)
        return at, accept.mean()

    def _at(self, z: Latents, strength: Array) -> Array:
        return self.log_density(z, tilt_strength=strength, likelihood_strength=strength)

    def _state(self, at: Chains, strength: Array) -> AnnealedState:
        """Chains where they stand, in the density of their strengths."""
        begun: AnnealedState = KERNEL.init(self.ppl, at.z, lambda z: self._at(z, strength))
        return begun._replace(tilt=strength, likelihood=strength)

    def _trajectory(self, key: Key, at: Chains, state: AnnealedState) -> tuple[Chains, AnnealedState, Array]:
        """One trajectory of every chain, and its acceptance probability."""
        ppl, size = self.ppl, self.ppl.exp(at.log_step)
        inner = state.inner._replace(step_size=size, length=self.settings.n_leapfrog * size, step=at.count)
        state, info = self.program.chain(
            KERNEL, state._replace(inner=inner), ppl.split(key, 1), self.params, self.rows, self.observed
        )
        accept = info.accept_prob[0]
        own = (accept - TARGET_ACCEPT) / (1.0 + at.age)  # vanishes: what goes on following its chain biases it
        shared = SHARED_GAIN * (accept.mean() - TARGET_ACCEPT)  # follows the parameters
        moved = Chains(
            state.z, at.log_weight, state.inner.log_density, at.log_step + own + shared, at.age + 1.0, at.count + 1
        )
        return moved, state, accept


def _restarts(ppl: PPL, key: Key, z: Latents, share: float) -> Array:
    """Which chains begin anew, (B,): at a share of the calls half of them; the others' weights then judge them."""
    k_call, k_row = ppl.split(key)
    at_call, at_row = (ppl.exp(log_uniform(ppl.normal_like(k, uniform_noise(z)))) for k in (k_call, k_row))
    return ((at_call[0] + 0.0 * at_row) < share) & (at_row < 0.5)


def _reweighted(ppl: PPL, key: Key, at: Chains, shape: tuple[int, int]) -> tuple[Chains, Array, Array, Array]:
    """Chains resampled in groups of uneven weights; normalised weights, log mean weights, and effective shares."""
    (n, m), log_weight = shape, at.log_weight.reshape(shape)
    log_mean = ppl.logsumexp(log_weight, 1) - math.log(m)
    relative = ppl.exp(log_weight - log_mean[:, None]) / m  # of a group adds up to 1
    ess = 1.0 / (m * (relative**2).sum(1))
    if m == 1:
        return at, relative.reshape(-1) / n, log_mean, ess.mean()
    is_uneven = (ess < LEAST_ESS)[:, None]
    uniform = ppl.exp(log_uniform(ppl.normal_like(key, uniform_noise({"": log_mean}))))
    picked = systematic(ppl, relative, uniform)
    own = ppl.where(is_uneven, picked, ppl.asarray(range(m))[None, :] + 0 * picked)
    index = (own + m * ppl.asarray(range(n))[:, None]).reshape(-1)
    at = tree_map(lambda a: a[index] if a.ndim else a, at)
    even = ppl.where(is_uneven, log_mean[:, None] + 0.0 * log_weight, log_weight)
    relative = ppl.where(is_uneven, 1.0 / m + 0.0 * relative, relative)
    return at._replace(log_weight=even.reshape(-1)), relative.reshape(-1) / n, log_mean, ess.mean()


def systematic(ppl: PPL, relative: Array, uniform: Array) -> Array:
    r"""Numbers of the chains that stand for those of a group after systematic resampling, (n, m).

    Chain j of m is taken where :math:`\sum_{i<j} w_i \le (k + u) / m < \sum_{i \le j} w_i`.

    Args:
        relative: (n, m) weights that add up to 1 in a row.
        uniform: (n,) one number in [0, 1) for all of a row.

    >>> import torch, pplebm.backends.pyro as ppl
    >>> systematic(ppl, torch.tensor([[0.5, 0.0, 0.5, 0.0]]), torch.tensor([0.1])).tolist()
    [[0, 0, 2, 2]]
    """
    m = relative.shape[1]
    at = (ppl.asarray([float(k) for k in range(m)])[None, :] + uniform[:, None]) / m
    below = relative.cumsum(1)[:, None, :] <= at[:, :, None]
    found = below.sum(2)
    return ppl.where(found < m, found, m - 1 + 0 * found)
