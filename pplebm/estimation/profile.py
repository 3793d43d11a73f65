r"""Profile likelihood of one number: its score along the path of re-maximised parameters, integrated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from tqdm import tqdm

from pplebm.errors import PplebmError
from pplebm.estimation.derivatives import Chosen
from pplebm.estimation.information import information
from pplebm.estimation.observed import Information
from pplebm.ppl.language import Params
from pplebm.program import Program
from pplebm.sampling.blocks import batch_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_POINTS = 4
POINTS = 400  # of a curve
CURVE, LEVEL_LINE = "#0072b2", "#8c8c8c"  # told apart by colour-blind readers


@dataclass(frozen=True)
class Profile:
    """Profile log likelihood over a grid, relative to its maximum; arrays are (k,), one entry per point."""

    label: str
    grid: np.ndarray
    score: np.ndarray  # slopes of the profile log likelihood
    score_error: np.ndarray  # their Monte Carlo errors, independent
    log_likelihood: np.ndarray  # relative to the maximum, nats of all data together
    log_likelihood_error: np.ndarray
    maximum: float
    low: float  # ends of the interval; infinite where the grid does not reach it
    high: float
    errors: tuple[float, float, float]  # Monte Carlo errors of maximum, low and high
    level: float
    params: tuple[Params, ...]  # re-maximised, of every point

    def __str__(self) -> str:
        beyond = " The interval goes on beyond the grid." if not np.isfinite([self.low, self.high]).all() else ""
        return (
            f"{self.label}: {self.maximum:.4g}, {100.0 * self.level:.3g} % interval by profile likelihood "
            f"{self.low:.4g} to {self.high:.4g}, Monte Carlo errors {self.errors[0]:.2g}, {self.errors[1]:.2g} and "
            f"{self.errors[2]:.2g}.{beyond}"
        )

    def figure(self) -> Figure:
        """The curve with points and Monte Carlo errors, and the line that cuts off the interval."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        ax = figure.subplots()
        at = np.linspace(self.grid[0], self.grid[-1], POINTS)
        ax.plot(at, _curve(self.grid, self.score, at) - _top(self.grid, self.score)[1], color=CURVE, linewidth=1.5)
        ax.errorbar(
            self.grid, self.log_likelihood, 1.96 * self.log_likelihood_error, fmt="o", color=CURVE, markersize=4
        )
        ax.axhline(-0.5 * float(stats.chi2.ppf(self.level, 1)), color=LEVEL_LINE, linewidth=0.8)
        for end in (self.low, self.high):
            if np.isfinite(end):
                ax.axvline(end, color=LEVEL_LINE, linewidth=0.8, linestyle=":")
        ax.set_xlabel(self.label)
        ax.set_ylabel("profile log likelihood, nats")
        return figure


def profile(
    program: Program,
    data: Any,
    label: str,
    grid: Sequence[float],
    refit: Callable[[Params, str], Params],
    *,
    params: Params | None = None,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> Profile:
    r"""Profile log likelihood of one number of the parameters, and the interval that it gives.

    .. math::
        \ell_p(\psi) = \max_\lambda \ell(\psi, \lambda), \qquad
        \ell_p'(\psi) = S_\psi - H_{\psi\lambda} H_{\lambda\lambda}^{-1} S_\lambda, \qquad
        \{\psi : 2 (\max \ell_p - \ell_p(\psi)) < \chi^2_{1, level}\}

    Fisher's identity gives slopes with little noise, where differences of estimated log likelihoods would have much. At
    the maximum over :math:`\lambda` the last term is zero; near it, where learning has come, it takes away what is left
    to first order. Slopes are joined by a cubic spline and integrated.

    Args:
        program: any.
        data: those that parameters were learned from, as in `pplebm.sample`.
        label: of the number, such as "b" or "W[0,1]"; on the unconstrained scale of `program.params`.
        grid: its values, 4 or more, increasing.
        refit: of parameters and the label to parameters with the largest likelihood among those where the number has
            the value that it has in these. It is called from point to point, from where the last one ended.
        params: where to begin, by default the program's own.
        names: of parameters that were learned; all by default.
        level: of the interval.
        seed: of all random numbers.
        progress: show a bar of the points; by default if the output is a terminal.
        settings: of `pplebm.estimation.information.information`: `n_chains`, `n_draws`, `n_warmup` and others.

    Raises:
        PplebmError: for a label that is not known, a grid that does not increase, a maximum beyond the grid, or a refit
            that moves the number.

    Source: Barndorff-Nielsen, Cox, Inference and Asymptotics (1994), section 3.4; Neyman (1959) for the slope.
    """
    params = program.params if params is None else dict(params)
    chosen, points = Chosen(program, params, names), np.asarray(grid, float)
    if label not in chosen.labels:
        raise PplebmError(f"'{label}' is no number of the parameters; there are {', '.join(chosen.labels[:12])}.")
    if points.ndim != 1 or len(points) < LEAST_POINTS or (np.diff(points) <= 0.0).any():
        raise PplebmError(f"grid must be {LEAST_POINTS} or more increasing values of '{label}', got {list(grid)!r}.")
    if not 0.0 < level < 1.0:
        raise PplebmError(f"level must lie in (0, 1), got {level!r}.")
    k, found = chosen.labels.index(label), dict[int, Params]()
    scores, errors = np.empty(len(points)), np.empty(len(points))
    first = int(np.argmin(np.abs(points - chosen.value[k])))
    outwards = [*range(first, len(points)), *range(first - 1, -1, -1)]
    for i in tqdm(outwards, desc=f"profile of {label}", disable=None if progress is None else not progress):
        here = params if i == first else found[i - 1 if i > first else i + 1]
        found[i] = _refitted(program, here, names, k, points[i], label, refit)
        settings |= {"seed": batch_seed(seed, i), "progress": False}
        own = information(program, data, params=found[i], names=names, **settings)
        scores[i], errors[i] = _slope(k, own.score, own.observed), _slope_error(k, own)
    return made(label, points, scores, errors, level, tuple(found[i] for i in range(len(points))))


def made(
    label: str, grid: np.ndarray, scores: np.ndarray, errors: np.ndarray, level: float, params: tuple[Params, ...] = ()
) -> Profile:
    """The profile of slopes with independent errors, whose own errors follow by the delta method.

    Raises:
        PplebmError: if the slopes do not change from rising to falling.
    """
    if scores[0] < 0.0 or scores[-1] > 0.0:
        side = "low" if scores[0] < 0.0 else "high"
        raise PplebmError(
            f"the profile likelihood of '{label}' has its maximum beyond the {side} end of the grid, where its slope "
            f"is {scores[0] if side == 'low' else scores[-1]:.3g}; move the grid."
        )
    drop = 0.5 * float(stats.chi2.ppf(level, 1))
    top, height = _top(grid, scores)
    low, high = _ends(grid, scores, top, height - drop)
    curve, slope = CubicSpline(grid, np.eye(len(grid))).antiderivative(), CubicSpline(grid, np.eye(len(grid)))
    error_of = lambda weights: np.sqrt((weights**2 @ errors**2).astype(float))  # of what is linear in the slopes
    drop_error = error_of(curve(grid) - curve(top))
    bend = float(CubicSpline(grid, scores)(top, 1))
    told = [float(error_of(slope(top)) / abs(bend))]
    for end in (low, high):
        steep = float(CubicSpline(grid, scores)(end)) if np.isfinite(end) else np.nan
        told.append(float(error_of(curve(end) - curve(top)) / abs(steep)) if np.isfinite(end) else np.nan)
    return Profile(
        label, grid, scores, errors, _curve(grid, scores, grid) - height, drop_error, top, low, high,
        (told[0], told[1], told[2]), level, params,
    )  # fmt: skip


def _refitted(
    program: Program, params: Params, names: Sequence[str] | None, k: int, value: float, label: str, refit: Any
) -> Params:
    chosen = Chosen(program, params, names)
    vector = chosen.value
    vector[k] = value
    found: Params = dict(refit(chosen.at(vector), label))
    moved = Chosen(program, found, names).value[k]
    if abs(moved - value) > 1e-5 * max(1.0, abs(value)):
        raise PplebmError(f"refit moved '{label}' from {value:.6g} to {moved:.6g}; it must hold it.")
    return found


def _slope(k: int, score: np.ndarray, observed: np.ndarray) -> float:
    """The slope of the profile: the efficient score."""
    rest = np.arange(len(score)) != k
    if not rest.any():
        return float(score[k])
    return float(score[k] - observed[k, rest] @ np.linalg.solve(observed[np.ix_(rest, rest)], score[rest]))


def _slope_error(k: int, found: Information) -> float:
    return float(found.error_of(lambda score, observed, outer: _slope(k, score, observed)))


def _curve(grid: np.ndarray, scores: np.ndarray, at: Any) -> np.ndarray:
    """The integral of slopes from the first point on."""
    curve: np.ndarray = CubicSpline(grid, scores).antiderivative()(at)
    return curve


def _top(grid: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Where the integral is highest, and how high."""
    slope = CubicSpline(grid, scores)
    candidates = np.array([grid[0], *slope.roots(extrapolate=False), grid[-1]])
    heights = _curve(grid, scores, candidates)
    best = int(np.argmax(heights))
    return float(candidates[best]), float(heights[best])


def _ends(grid: np.ndarray, scores: np.ndarray, top: float, at: float) -> tuple[float, float]:
    """Where the integral falls to a height on both sides of its top; infinite if it does not on the grid."""
    above = lambda psi: float(_curve(grid, scores, psi)) - at
    found = []
    for end, beyond in ((grid[0], -np.inf), (grid[-1], np.inf)):
        path = np.linspace(top, end, POINTS)
        under = np.flatnonzero(_curve(grid, scores, path) < at)
        found.append(float(brentq(above, path[under[0] - 1], path[under[0]])) if len(under) else float(beyond))
    return found[0], found[1]
