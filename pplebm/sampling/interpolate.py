r"""Ways between two latents: the straight line, and the shortest one where low density makes distances longer."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from pplebm.errors import PplebmError
from pplebm.kernels.metric import unflat
from pplebm.ppl.language import Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program

Method = Literal["straight", "prior"]
MAX_ITERATIONS = 500


class Energies(NamedTuple):
    """Parts of the log density of the prior at latents, nats, (B,) each: energy = -(log_base + tilt)."""

    energy: np.ndarray
    tilt: np.ndarray
    log_base: np.ndarray


def energies(program: Program, params: Params, z: Latents, data: Data | None = None) -> Energies:
    r"""Energy :math:`-\log \tilde p(z)`, tilt f(z) and :math:`\log p_0(z)` of latents, in the program's coordinates.

    Args:
        program, params: of the prior.
        z: latents, (B, *event) by site.
        data: with a row for every row of z, where the prior reads covariates.

    Example:
        >>> import pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> found = energies(program, program.params, program.zeros(2))
        >>> bool((abs(found.energy + found.tilt + found.log_base) < 1e-5).all()), found.tilt.tolist()
        (True, [0.0, 0.0])
    """
    terms, to_numpy = program.log_terms(params, z, data, observed=False), program.ppl.to_numpy
    base, tilt = program.total(terms, program.latents), program.total(terms, program.tilts)
    return Energies(-to_numpy(program.total(terms)), to_numpy(tilt), to_numpy(base))


class Path(NamedTuple):
    """Latents along a way from one to another."""

    latents: Latents  # (n_points, *event) by site, in the program's coordinates; first and last are the ends
    length: float  # of the way, in that of the straight line
    sharpness: float  # per nat


def interpolate(
    program: Program,
    params: Params,
    start: Latents,
    end: Latents,
    n_points: int = 25,
    method: Method = "prior",
    sharpness: float | None = None,
    data: Data | None = None,
) -> Path:
    r"""Go from one latent to another, straight or where the tilted prior is dense.

    Distance is measured by a metric of the prior's density: the way is the curve of least length

    .. math:: L[\gamma] = \int e^{a U(\gamma(t))} \|\dot\gamma(t)\|\, dt, \qquad U(z) = -\log \tilde p(z),\quad
              a = 1 / \dim z

    so that a step counts as much as it is long in spacings between draws, which go as :math:`\tilde p^{-1/\dim z}`. For
    a = 0 the way is straight; the larger a is, the closer it follows ridges and valleys, over saddles rather than
    peaks of the energy. The points are those of the discretised energy functional, :math:`\sum_i e^{2aU(m_i)}
    \|z_{i+1} - z_i\|^2` with midpoints m, whose least value has equal steps in L: they lie closer where density is low.
    It is found by L-BFGS from the straight line, so it is the nearest of several ways, if there are several.

    Args:
        program: in whose coordinates distances are measured; noncentered ones, where the base is round, suit best.
        params: of the program.
        start: one latent, (1, *event) by site.
        end: the other one.
        n_points: on the way, both ends included.
        method: "straight", equal steps, or "prior".
        sharpness: a per nat; one over the number of latents by default.
        data: one row, where the prior reads covariates.

    Raises:
        PplebmError: for more than one latent at an end, or an energy that is not finite on the straight line.

    Source: Groisman, Jonckheere, Sapienza (Bernoulli 2022) for the exponent; Arvanitidis, Georgiev, Schölkopf (AISTATS
        2022) for the metric of an energy-based prior.

    Example:
        >>> import torch, pplebm, pyro.distributions as dist, pyro
        >>> def ring(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 2.).expand([2]).to_event(1))
        ...         pplebm.tilt("f", -20. * (z.norm(dim=-1) - 1.) ** 2)
        ...         pyro.sample("x", dist.Normal(z, 1.).to_event(1), obs=x)
        >>> program = pplebm.Program(ring, data=torch.zeros(2, 2))
        >>> ends = [{"z": torch.tensor([[c, 0.2]])} for c in (-1., 1.)]
        >>> along = interpolate(program, {}, *ends, 41)
        >>> bool(along.latents["z"].norm(dim=-1).min() > 0.9), along.length < 0.1
        (True, True)
    """
    ends = _ends(program, start, end)
    if method not in get_args(Method) or not isinstance(n_points, int) or n_points < 2:
        raise PplebmError(f"method must be straight or prior and n_points at least 2, got {method!r} and {n_points!r}.")
    if data is not None and n_rows(data) != 1:
        raise PplebmError(f"both ends have one prior, that of a single row; got {n_rows(data)} rows of data.")
    a = 1.0 / program.width if sharpness is None else float(sharpness)
    straight = ends[0] + np.linspace(0.0, 1.0, n_points)[:, None] * (ends[1] - ends[0])
    geodesic = _Geodesic(program, params, ends, n_points, a, data)
    inner, length = straight[1:-1], 1.0
    if method == "prior" and n_points > 2:
        found = minimize(geodesic, inner.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
        inner = found.x.reshape(inner.shape)
        length = float(np.exp(geodesic.log_length(inner) - geodesic.log_length(straight[1:-1])))
    between = geodesic.latents(inner)
    return Path({s: program.ppl.concat([start[s], z, end[s]], 0) for s, z in between.items()}, length, a)


class _Geodesic:
    """Logarithm of the discretised energy functional, and its gradient, as functions of the points between the ends."""

    def __init__(
        self, program: Program, params: Params, ends: np.ndarray, n_points: int, a: float, data: Data | None
    ) -> None:
        ppl = program.ppl
        self.program, self.ends, self.a = program, ends, a
        rows = None if data is None else take_rows(data, ppl.asarray(np.zeros(n_points - 1, int)))
        graded = program.compiled(
            ("way", n_points, data is None),
            lambda params, z, rows: ppl.value_and_grad(program.log_density(params, rows, False), z),
        )

        def energy(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            z = self.latents(points)
            value, gradient = graded(params, z, rows)
            side = [ppl.to_numpy(gradient[site]).reshape(len(points), -1) for site in sorted(z)]
            return -ppl.to_numpy(value).astype(float), -np.concatenate(side, 1).astype(float)

        self.energy = energy

    def __call__(self, inner: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient; the first one must be finite, later ones may be infinitely high."""
        steps, middles = self._parts(inner)
        energy, slope = self.energy(middles)
        exponents = 2.0 * self.a * energy + np.log((steps**2).sum(1) + 1e-300)
        value = float(logsumexp(exponents))
        if not np.isfinite(value):
            return np.inf, np.zeros(inner.size)
        share = np.exp(exponents - value)[:, None]  # of every interval
        by_middle = share * 2.0 * self.a * slope
        by_step = 2.0 * share * steps / ((steps**2).sum(1) + 1e-300)[:, None]
        gradient = 0.5 * (by_middle[:-1] + by_middle[1:]) + by_step[:-1] - by_step[1:]
        return value, gradient.ravel()

    def latents(self, points: np.ndarray) -> Latents:
        """Points as latents by site."""
        return unflat(self.program.ppl.asarray(points), self.program.zeros(len(points)))

    def log_length(self, inner: np.ndarray) -> float:
        """log L of the way, by midpoints."""
        steps, middles = self._parts(inner)
        found = float(logsumexp(self.a * self.energy(middles)[0] + 0.5 * np.log((steps**2).sum(1) + 1e-300)))
        if not np.isfinite(found):
            raise PplebmError("the energy is not finite on the way between these latents; choose others.")
        return found

    def _parts(self, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps from point to point, and the points in the middle of each."""
        path = np.concatenate([self.ends[:1], inner.reshape(-1, self.ends.shape[1]), self.ends[1:]])
        return np.diff(path, axis=0), 0.5 * (path[:-1] + path[1:])


def _ends(program: Program, *ends: Latents) -> np.ndarray:
    """Both ends as rows of numbers, sites in the order of their names."""
    if program.has_global_latents:
        raise PplebmError(
            "paths join latents of single data, and this program has global ones; give latents that stand in the plate."
        )
    for z in ends:
        for site in program.latents:
            if site.name not in z or tuple(z[site.name].shape) != (1, *site.shape):
                got = tuple(z[site.name].shape) if site.name in z else "nothing"
                raise PplebmError(f"an end has {got} at site '{site.name}'; give one latent, {(1, *site.shape)}.")
    names = sorted(site.name for site in program.latents)
    rows = [np.concatenate([program.ppl.to_numpy(z[name]).reshape(-1) for name in names]) for z in ends]
    return np.stack(rows).astype(float)
