r"""The path from the base of a program to its tilted prior or a posterior, and particles that stand on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.annealed import AnnealedState, annealed
from pplebm.kernels.kernel import Kernel, value_and_gradient
from pplebm.kernels.metric import Metric, flat, unflat
from pplebm.kernels.trajectory import TrajectoryState, rank_of
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program

LENGTH = 2.5  # of the longest trajectory in units of the metric: half of it, the mean, is near a quarter turn
LOWEST = -1e30  # nats; a potential below that, or not a number, is minus infinity


class Particles(NamedTuple):
    """Where particles are, by particle and datum, with what is known there; gradients are those of z, (n, data, d)."""

    z: Latents  # (n * data, *event), particle by particle
    potential: np.ndarray  # (n, data), nats; minus infinity where the target has no mass
    base_gradient: np.ndarray
    potential_gradient: np.ndarray
    log_base: np.ndarray  # (n, data)


class Tuning(NamedTuple):
    """Settings of the kernel at one place of the path, by datum."""

    step_size: np.ndarray  # (data,)
    metric: Metric  # a row for every datum


class Path:
    r"""Densities from the base to a target, particles of all data side by side.

    .. math::
        \pi_\beta(z) \propto p_0(z)\, e^{\beta U(z)}, \qquad
        U(z) = f(z) + \log p(x \mid z) \text{ towards a posterior}, \quad U(z) = f(z) \text{ towards the tilted prior}

    in noncentered coordinates, where the base is N(0, I) if all sites are normal.

    Args:
        program: any.
        params: of the program.
        data: one target for every row, as the program's arrays; all data of a joint program; None for a prior that
            reads none.
        observed: whether the target is the posterior; False for the prior at the covariates of the data.
        n: particles of a datum.
        tilted: whether the tilts are part of the target.
    """

    def __init__(
        self, program: Program, params: Params, data: Data | None, observed: bool, n: int, tilted: bool = True
    ) -> None:
        self.program, self.params = program.with_coordinates("noncentered"), params
        self.ppl, self.observed, self.n, self.tilted = program.ppl, observed, n, tilted
        self.n_data = 1 if data is None or program.has_global_latents else n_rows(data)
        self.rows = n * self.n_data
        is_whole = data is None or program.has_global_latents
        self.data = data if is_whole else take_rows(data, self.ppl.asarray(np.tile(np.arange(self.n_data), n)))
        self.kernel: Kernel = annealed(adaptive_hmc())
        self.n_moves = 0

    def draw_base(self, key: Key) -> Particles:
        """Exact draws of the base."""
        at = self.rows if self.data is None or self.program.has_global_latents else self.data
        given = self.data if isinstance(at, int) else None
        return self.at(self.program.draw_base(key, at, self.params, given))

    def at(self, z: Latents) -> Particles:
        """Particles at latents, (n * data, *event), in the coordinates of the path."""
        look = self.program.compiled(("potential", self.data is None, self.observed, self.tilted), self._look())
        with self.ppl.threads_for(self.program.work(self.rows)):
            found = look(self.params, z, self.data)
        log_base, potential, *slopes = (self.ppl.to_numpy(a).astype(float) for a in found)
        known = np.isfinite(potential) & (potential > LOWEST) & np.isfinite(log_base)
        slope, rise = (a.reshape(self.n, self.n_data, -1) for a in slopes)
        potential = np.where(known, potential, -np.inf)
        return Particles(z, self._by_datum(potential), slope, rise, self._by_datum(log_base))

    def at_flat(self, z: np.ndarray) -> Particles:
        """Particles at latents side by side, (n, data, d)."""
        like = self.program.zeros(self.rows)
        return self.at(unflat(self._rows(z, like), like))

    def _rows(self, a: np.ndarray, like: Latents) -> Array:
        """Numbers by particle and datum as the backend's, a row each, in the precision of the latents."""
        dtype = self.ppl.to_numpy(next(iter(like.values()))[:1]).dtype
        return self.ppl.asarray(np.ascontiguousarray(a.reshape(self.rows, *a.shape[2:]).astype(dtype)), keep=True)

    def _look(self) -> Callable[..., tuple[Array, ...]]:
        program, ppl, observed = self.program, self.ppl, self.observed
        added = (*program.observed, *program.factors) if observed else ()
        added += program.tilts if self.tilted else ()

        def look(params: Params, z: Latents, data: Data | None) -> tuple[Array, ...]:
            terms = lambda z: program.log_terms(params, z, data, observed)
            base, slope = value_and_gradient(ppl, lambda z: program.total(terms(z), program.latents), z)
            value, rise = value_and_gradient(ppl, lambda z: program.total(terms(z), added), z)
            return base, value, flat(ppl, slope), flat(ppl, rise)

        return look

    def move(
        self, key: Key, at: Particles, strength: np.ndarray, tuning: Tuning, n_steps: int
    ) -> tuple[Particles, np.ndarray]:
        """Particles after steps of the kernel at a strength of every datum, and their mean acceptance, (n, data).

        Args:
            strength: (data,), or (n, data) where particles of a datum differ.
            tuning: of the kernel there, by datum, or by particle and datum.
            n_steps: of the kernel: trajectories.
        """
        state = self._state(at, strength, tuning)
        self.n_moves += n_steps
        keys = self.ppl.split(key, n_steps)
        with self.ppl.threads_for(self.program.work(self.rows)):
            state, info = self.program.chain(self.kernel, state, keys, self.params, self.data, self.observed)
        return self.at(state.z), self._by_datum(self.ppl.to_numpy(info.accept_prob).mean(0))

    def _state(self, at: Particles, strength: np.ndarray, tuning: Tuning) -> AnnealedState:
        whole = lambda a: self._rows(a, at.z)
        rows = lambda a, event=(): whole(np.broadcast_to(a, (self.n, self.n_data, *event)))
        with np.errstate(invalid="ignore"):  # of particles without mass
            value = at.log_base + strength * at.potential
            gradient = at.base_gradient + strength[..., None] * at.potential_gradient
        one = whole(np.ones_like(value))
        inner = TrajectoryState(
            z=at.z,
            log_density=whole(value),
            gradient=unflat(whole(gradient), at.z),
            step_size=rows(tuning.step_size),
            metric=Metric(*(rows(a, a.shape[-k:]) for k, a in zip((1, 2, 1), tuning.metric, strict=True))),
            length=LENGTH * one,
            step=self.ppl.asarray(self.n_moves),  # Halton numbers go on from move to move
            n_divergent=0.0 * one,
        )
        return AnnealedState(inner, rows(strength if self.tilted else 0.0 * strength), rows(strength))

    def unit_metric(self) -> Metric:
        """The metric before any is learned, a row for every datum."""
        width = self.program.width
        rank = rank_of("auto", width, self.rows)
        ones = np.ones((self.n_data, width))
        return Metric(ones, np.tile(np.eye(width, rank), (self.n_data, 1, 1)), np.ones((self.n_data, rank)))

    def chosen(self, at: Particles, index: np.ndarray) -> Particles:
        """Other particles in their places; `index`, (n, data), says which of the datum."""
        if (index == np.arange(self.n)[:, None]).all():
            return at
        row = self.ppl.asarray((index * self.n_data + np.arange(self.n_data)).reshape(-1))
        picked = lambda a: np.take_along_axis(a, index.reshape(*index.shape, *[1] * (a.ndim - 2)), 0)
        z = {site: a[row] for site, a in at.z.items()}
        rest = {name: picked(getattr(at, name)) for name in Particles._fields[1:]}
        return Particles(z, **rest)

    def led_by(self, first: Particles, at: Particles) -> Particles:
        """Particles of which the first ones are others, as many as these are."""
        n = len(first.potential)
        z = {site: self.ppl.concat([first.z[site], a[n * self.n_data :]], 0) for site, a in at.z.items()}
        names = Particles._fields[1:]
        return Particles(z, **{k: np.concatenate([getattr(first, k), getattr(at, k)[n:]]) for k in names})

    def flat(self, at: Particles) -> np.ndarray:
        """Latents side by side, (n, data, d)."""
        return self.ppl.to_numpy(flat(self.ppl, at.z)).astype(float).reshape(self.n, self.n_data, -1)

    def _by_datum(self, a: np.ndarray) -> np.ndarray:
        return a.reshape(self.n, self.n_data)
