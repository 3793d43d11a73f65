r"""A pool of chains of the tilted prior that lives on while the parameters move: weights keep it right.

Particles begin as draws of the base, and go to the tilted prior by small steps of strength. Later steps are those of
the parameters. At each a particle's weight grows by the ratio of the densities before and after, and chains of an
adjusted kernel move it: so masses of modes that no chain travels between follow the tilt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.batch import zeros
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Kernel
from pplebm.kernels.strength import at_strength, with_strength
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves
from pplebm.program import Program
from pplebm.sampling.particles import effective, resampled, step_of_strength

KEPT, RESAMPLED, LOST = 0.9, 0.5, 0.1  # effective shares: of a step of strength, to draw anew, to begin anew
MOST = 500  # steps of strength
AT_STRENGTH, AT_END, N_LAST = 2, 10, 3  # steps at every strength; and when the tilted prior is reached, so often
FAR = f"the tilt is too strong: {MOST} steps of strength do not lead from base to tilted prior; bound the tilt."
NOWHERE = "the tilt is not finite at any draw of the base, so that the tilted prior has no mass there; check the tilt."
GAIN, LATER_GAIN = 1.0, 0.2  # of the log step size per unit of acceptance: in annealing, and at a call
LEAST_OF_ROW = 8  # particles of a row, where every row has a prior of its own
RENEWED = 500  # calls after which the pool is annealed anew, before resampling has made relatives of all particles
LOWEST = -1e30  # nats, in the place of minus infinity


class Pool(NamedTuple):
    """Particles of the tilted prior, particle by particle of every row; noncentered coordinates."""

    z: Latents  # (n * rows, *event)
    log_density: Array  # (n * rows,) log p̃(z) at the parameters that they have reached
    log_weight: Array  # (n * rows,)
    log_step: Array  # logarithm of the step size of all: one of each chain's own would depend on where it is, a bias
    age: Array  # calls since it was annealed; -1 for a pool that is yet to be
    given: dict[str, Array]  # covariates of the rows, where the prior reads any


class _Place(NamedTuple):
    """Where particles are moved: parameters, covariates by particle, particles of a row."""

    params: Params
    data: Data | None
    n: int


class Flow(NamedTuple):
    """Control flow of the host, which a compiled update has as a part of its graph."""

    when: Callable[[Array, Callable[[Any], Any], Callable[[Any], Any], Any], Any]  # test, if true, if not, argument
    until: Callable[[Callable[[Any], Array], Callable[[Any], Any], Any], Any]  # whether to go on, a step, the start
    require: Callable[[Array, str], None]  # raise the sentence where a truth does not hold


class PriorPool:
    r"""The ways of a pool: how it begins, and how it follows the parameters.

    .. math::
        \log w \leftarrow \log w + \log \tilde p_{\theta'}(z) - \log \tilde p_{\theta}(z), \qquad
        \nabla \log Z = \sum_i W_i \nabla \log \tilde p_{\theta'}(z_i), \quad W_i = w_i / \textstyle\sum_j w_j

    with the latents held in noncentered coordinates, where the base does not move with its scales.

    Args:
        program: the tilted program.
        flow: of the host.
        n_chains: particles; where the prior reads covariates so many in all rows together, but 8 of each or more.
        n_steps: of the kernel at every call.
        kernel: `hmc(6, 0.5)` if left out; the step size is adapted if the kernel has one to adapt.

    Raises:
        PplebmError: for numbers that are not positive, or a kernel of replicas.

    Source: Del Moral, Doucet, Jasra (JRSS B 2006) for the beginning; Carbone, Hua, Coste, Vanden-Eijnden (NeurIPS
    2023) for weights that follow the parameters.
    """

    def __init__(
        self, program: Program, flow: Flow, n_chains: int = 2000, n_steps: int = 2, kernel: Kernel | None = None
    ) -> None:
        for name, n in (("n_chains", n_chains), ("n_steps", n_steps)):
            if not isinstance(n, int) or n < 1:
                raise PplebmError(f"{name} must be a positive integer, got {n!r}.")
        self._inner = kernel or hmc(6, 0.5)
        if self._inner.replicas != 1:
            raise PplebmError("chains of the tilted prior that live on have no replicas; take hmc or another kernel.")
        self.program, self._flow = program.with_coordinates("noncentered"), flow
        self.ppl, self._n_chains, self._n_steps = program.ppl, n_chains, n_steps
        self._kernel = with_strength(self._inner)

    def empty(self, rows: Data | int) -> Pool:
        """A pool that is yet to be annealed."""
        z = self.program.zeros(self._n(rows) * self._n_given(rows))
        return Pool(z, zeros(z), zeros(z), self._first_step(z), self.ppl.asarray(-1), self._covariates(rows))

    def advance(self, key: Key, params: Params, rows: Data | int, pool: Pool) -> tuple[Latents, Array, Pool]:
        """Follow the parameters to where they are now.

        Args:
            params: constants.
            rows: data with the covariates that the prior reads, or how many.
            pool: of `empty`, or of the call before.

        Returns:
            Latents in centered coordinates, (n * rows, *event), their weights, (n, rows), which add up to 1 in every
            row, and the pool. Rows are 1 where the prior reads no covariates.
        """
        given, n, ppl = self._given(rows), self._n(rows), self.ppl
        k_resample, k_move, k_anneal = ppl.split(key, 3)
        data = None if given is None else take_rows(given, self.repeated(n, n_rows(given)))
        if len(pool.log_weight) != n * self._n_given(rows):
            pool = self.empty(rows)  # another number of rows
        at = _Place(params, data, n)
        more = self._density(at)(pool.z) - pool.log_density
        log_weight = pool.log_weight + ppl.where(ppl.isfinite(more), more, LOWEST + 0.0 * more)
        stays = (pool.age >= 0) & (pool.age < RENEWED) & (effective(ppl, log_weight.reshape(n, -1)) > LOST).all()
        covariates = self._covariates(rows)
        for name, a in covariates.items():
            stays = stays & (a == pool.given[name]).all()

        def on(pool: Pool) -> Pool:
            return self._moved(k_move, at, self._resampled(k_resample, pool, n), 1.0, self._n_steps, LATER_GAIN)

        pool = pool._replace(log_weight=log_weight, given=covariates)
        pool = self._flow.when(stays, on, lambda pool: self._annealed(k_anneal, at, pool), pool)
        weight = pool.log_weight.reshape(n, -1)
        weight = ppl.exp(weight - ppl.logsumexp(weight, 0))
        z = self.program.move(params, pool.z, "centered", data)
        found: tuple[Latents, Array, Pool] = ppl.stop_gradient((z, weight, pool._replace(age=pool.age + 1)))
        return found

    def repeated(self, n: int, rows: int) -> Array:
        """Which row every particle is of."""
        return self.ppl.asarray(np.tile(np.arange(rows), n))

    # --- parts

    def _annealed(self, key: Key, at: _Place, pool: Pool) -> Pool:
        """Particles from the base to the tilted prior."""
        ppl, n, size = self.ppl, at.n, len(pool.log_weight)
        k_base, k_climb, k_resample, k_last = ppl.split(key, 4)
        z = self.program.draw_base(k_base, size if at.data is None else at.data, at.params)
        begun = pool._replace(z=z, log_weight=zeros(z), log_step=self._first_step(z))

        def climb(carry: tuple[Pool, Array, Key, Array]) -> tuple[Pool, Array, Key, Array]:
            pool, strength, key, t = carry
            k_resample, k_move, key = ppl.split(key, 3)
            f = self.program.log_tilt(at.params, pool.z, at.data)
            f = ppl.where(ppl.isfinite(f), f, LOWEST + 0.0 * f).reshape(n, -1)
            log_weight, left = pool.log_weight.reshape(n, -1), 1.0 - strength
            step = step_of_strength(ppl, f, log_weight, left, KEPT)
            new = pool._replace(log_weight=(log_weight + step * f).reshape(-1))
            strength = ppl.where(step < left, strength + step, 1.0 + 0.0 * strength)
            of_chains = (strength + 0.0 * log_weight).reshape(-1)
            moved = self._moved(k_move, at, self._resampled(k_resample, new, n), of_chains, AT_STRENGTH, GAIN)
            return moved, strength, key, t + 1

        has_mass = ppl.isfinite(self.program.log_tilt(at.params, z, at.data)).reshape(n, -1)
        self._flow.require((has_mass.sum(0) > 0).all(), NOWHERE)
        start = (begun, 0.0 * begun.log_weight.reshape(n, -1)[0], k_climb, ppl.asarray(0))
        goes_on = lambda carry: (carry[1] < 1.0).any() & (carry[3] < MOST)
        end, strength, _, _ = self._flow.until(goes_on, climb, start)
        self._flow.require((strength >= 1.0).all(), FAR)
        end = self._resampled(k_resample, end, n)
        for k in ppl.split(k_last, N_LAST):
            end = self._moved(k, at, end, 1.0, AT_END, GAIN)
        return end._replace(age=0 * pool.age)

    def _moved(self, key: Key, at: _Place, pool: Pool, strength: Any, n_steps: int, gain: float) -> Pool:
        """Chains after steps of the kernel at a strength of the tilts, their step size followed."""
        ppl, density, tuning = self.ppl, self._density(at), self._inner.tuning
        strength = strength + zeros(pool.z)
        state = at_strength(ppl, self._kernel, pool.z, density, strength)
        if tuning is not None:
            state = state._replace(inner=state.inner._replace(step_size=zeros(pool.z) + ppl.exp(pool.log_step)))
        with ppl.threads_for(self.program.work(len(strength))):
            state, info = self.program.chain(self._kernel, state, ppl.split(key, n_steps), at.params, at.data, False)
        log_step = pool.log_step
        if tuning is not None:
            log_step = log_step + gain * (info.accept_prob.mean() - tuning.target_accept)
        return pool._replace(z=dict(state.z), log_density=density(state.z), log_step=log_step)

    def _resampled(self, key: Key, pool: Pool, n: int) -> Pool:
        """Particles of rows where few are in effect drawn anew."""
        log_weight = pool.log_weight.reshape(n, -1)
        index, log_weight = resampled(self.ppl, key, log_weight, RESAMPLED)
        pick = (index * log_weight.shape[1] + self.ppl.asarray(np.arange(log_weight.shape[1]))).reshape(-1)
        z = {site: a[pick] for site, a in pool.z.items()}
        return pool._replace(z=z, log_density=pool.log_density[pick], log_weight=log_weight.reshape(-1))

    def _first_step(self, z: Latents) -> Array:
        tuning = self._inner.tuning
        return 0.0 * zeros(z).sum() + (float(np.log(tuning.step_size)) if tuning else 0.0)

    def _density(self, at: _Place) -> Callable[..., Array]:
        return self.program.log_density(at.params, at.data, False)

    def _given(self, rows: Data | int) -> Data | None:
        return None if isinstance(rows, int) or not self.program.prior_reads else rows

    def _n(self, rows: Data | int) -> int:
        """Particles of a row."""
        given = self._given(rows)
        return self._n_chains if given is None else max(LEAST_OF_ROW, -(-self._n_chains // n_rows(given)))

    def _covariates(self, rows: Data | int) -> dict[str, Array]:
        given, observed = self._given(rows), set(self.program.reads.whole.values())
        return {} if given is None else {path: a for path, a in tree_leaves(given) if path not in observed}

    def _n_given(self, rows: Data | int) -> int:
        """Rows with a prior of their own."""
        given = self._given(rows)
        return 1 if given is None else n_rows(given)
