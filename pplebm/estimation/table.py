r"""Estimates with standard errors, as a statistician reads them, and whether they are at a maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from pplebm.errors import PplebmError
from pplebm.estimation.derivatives import Chosen
from pplebm.estimation.information import information
from pplebm.estimation.observed import Information
from pplebm.estimation.supports import Supports
from pplebm.ppl.language import Params
from pplebm.program import Program

if TYPE_CHECKING:
    import pandas

HEAD = ("parameter", "estimate", "std. error", "±", "robust", "z", "{low}", "{high}")
ON_SUPPORTS = (
    "* on the scale that the model declares: standard errors by the delta method, intervals carried over from the "
    "unconstrained scale of program.params where each number is a function of one."
)


class Score(NamedTuple):
    r"""Whether parameters are at a maximum of the likelihood: the gradient, and how far a Newton step would go.

    The maximum is about :math:`\theta + H^{-1} S`, higher by :math:`\tfrac12 S^\top H^{-1} S` nats, less what Monte
    Carlo error S alone would give.
    """

    mean: np.ndarray  # (n,), gradient of the mean of log p(x), unconstrained scale
    error: np.ndarray  # (n,), its Monte Carlo error
    chi_square: float  # S' C⁻¹ S with the Monte Carlo covariance C; NaN if there are no more chains than numbers
    p_value: float  # of a gradient of zero, by Hotelling's distribution of chi_square
    step: np.ndarray  # (n,), Newton step in standard errors of the estimates
    step_error: np.ndarray  # (n,), its Monte Carlo error
    gain: float  # nats of all data together that the step would gain; below zero within its error at a maximum
    gain_error: float


@dataclass(frozen=True)
class Estimates:
    """Estimates and standard errors; arrays are (n,), in the order of `labels`, on the scale the model declares.

    `information` has everything on the unconstrained scale of `program.params`.
    """

    labels: tuple[str, ...]
    estimate: np.ndarray
    standard_error: np.ndarray  # from the observed information
    standard_error_error: np.ndarray  # Monte Carlo error of it
    robust_error: np.ndarray  # of the sandwich; NaN where all data are one datum
    robust_error_error: np.ndarray
    low: np.ndarray  # ends of the intervals
    high: np.ndarray
    level: float
    covariance: np.ndarray  # (n, n), inverse observed information
    robust_covariance: np.ndarray | None  # (n, n), H⁻¹ J H⁻¹
    is_changed: np.ndarray  # which numbers have a constraint, and so another scale in program.params
    score: Score
    information: Information

    @property
    def z(self) -> np.ndarray:
        """Estimates by their standard errors; NaN for numbers with a constraint, which zero is no hypothesis of."""
        return np.where(self.is_changed, np.nan, self.estimate / self.standard_error)

    def to_frame(self) -> pandas.DataFrame:
        """The table as a data frame, a row for every number."""
        import pandas

        columns = {
            "estimate": self.estimate, "std_error": self.standard_error, "std_error_mcse": self.standard_error_error,
            "robust_error": self.robust_error, "robust_error_mcse": self.robust_error_error, "z": self.z,
            "low": self.low, "high": self.high,
        }  # fmt: skip
        return pandas.DataFrame(columns, index=list(self.labels))

    def rows(self) -> list[list[Any]]:
        """The table as rows of names and numbers, the first row the head."""
        frame = self.to_frame()
        return [["parameter", *frame.columns], *([name, *map(float, row)] for name, row in frame.iterrows())]

    def lines(self) -> list[tuple[str, ...]]:
        """The table as text, a line for every number, the first line the head."""
        ends = {"low": f"{50.0 * (1.0 - self.level):.3g} %", "high": f"{50.0 * (1.0 + self.level):.3g} %"}
        told = [tuple(word.format(**ends) for word in HEAD)]
        number = lambda v: "" if np.isnan(v) else f"{v:.4g}"
        for k, label in enumerate(self.labels):
            numbers = (self.estimate, self.standard_error, self.standard_error_error, self.robust_error, self.z,
                       self.low, self.high)  # fmt: skip
            told.append((label + " *" * bool(self.is_changed[k]), *(number(float(a[k])) for a in numbers)))
        return told

    def table(self) -> str:
        """The table as text, with what it rests on."""
        told = self.lines()
        widths = [max(len(row[i]) for row in told) for i in range(len(HEAD))]
        text = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
                for row in told]  # fmt: skip
        return "\n".join([*text, *self.sentences()])

    def sentences(self) -> list[str]:
        """What is to be said under the table."""
        found, score = self.information, self.score
        k = int(np.argmax(np.abs(score.step)))
        said = [
            f"{found.n_data} data; standard errors of the observed information by Louis' formula from "
            f"{found.n_replicates} chains of every datum; ± is the Monte Carlo error of the standard error.",
            f"A Newton step from here would gain {score.gain:.2g} ± {score.gain_error:.2g} nats of all data together; "
            f"it would move '{found.labels[k]}' the most, by {score.step[k]:.2g} ± {score.step_error[k]:.2g} standard "
            f"errors.",
        ]
        if np.isfinite(score.chi_square):
            said.append(
                f"Gradient of zero within Monte Carlo error: chi-square {score.chi_square:.3g} of "
                f"{len(found.labels)} numbers, p = {score.p_value:.2g}."
            )
        if found.outer is None:
            said.append("All data are one datum, so that there are no robust standard errors.")
        return [*said, ON_SUPPORTS] if self.is_changed.any() else said


def estimates(
    program: Program,
    data: Any,
    *,
    params: Params | None = None,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    **settings: Any,
) -> Estimates:
    r"""Standard errors of learned parameters, with intervals, and whether these are at a maximum of the likelihood.

    .. math::
        \mathrm{se}_k^2 = (H^{-1})_{kk}, \qquad \mathrm{robust}_k^2 = (H^{-1} J H^{-1})_{kk}, \qquad
        J = \sum_i s_i s_i^\top

    with the observed information H and the scores s of `pplebm.estimation.information.information`. Robust errors are
    those of estimates of the nearest model, where data are of none like it. Both are errors of maximum-likelihood
    estimates: what a penalty in learning does, or an early stop, the score tells.

    Args:
        program: any.
        data: those that parameters were learned from, as in `pplebm.sample`.
        params: where the program's parameters are not to be its own.
        names: of parameters that count as estimated; the others count as known. All by default, up to 300 numbers.
        level: of the intervals.
        settings: `n_chains`, `n_draws`, `n_warmup`, `n_prior_chains`, `seed`, `coordinates`, `progress`, and those of
            `pplebm.sample`: `kernel`, `thin`, `rows_at_once`.

    Raises:
        PplebmError: if the information is not positive definite within its Monte Carlo error, naming the parameters
            of the direction; for too many parameters; for a level outside (0, 1).

    Source: Louis (JRSS B 1982); Huber (Berkeley Symposium 1967) and White (Econometrica 1982) for robust errors.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     t = pyro.param("t", torch.tensor(0.5))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", t * z)  # z ~ N(t, 1), so x ~ N(t, 2): the standard error is (2 / n)^.5
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> x = torch.tensor([0., 1., 2., -1.])
        >>> found = estimates(pplebm.Program(model, data=x), x, n_draws=50, n_warmup=200)
        >>> bool(abs(found.standard_error[0] - 0.5**0.5) < 0.05), found.labels
        (True, ('t',))
    """
    if not 0.0 < level < 1.0:
        raise PplebmError(f"level must lie in (0, 1), got {level!r}.")
    params = program.params if params is None else dict(params)
    found = information(program, data, params=params, names=names, **settings)
    found.check()
    return tabled(found, Supports(Chosen(program, params, names)), level)


def tabled(found: Information, supports: Supports, level: float) -> Estimates:
    """Estimates from an information that is positive definite."""
    slopes = supports.slopes
    root = lambda covariance: np.sqrt(np.maximum(np.einsum("ip,pq,iq->i", slopes, covariance, slopes), 0.0))
    plain = lambda score, observed, outer: root(np.linalg.inv(observed))
    robust = lambda score, observed, outer: root(_sandwich(observed, outer))
    error, covariance = plain(found.score, found.observed, None), np.linalg.inv(found.observed)
    nothing = np.full(len(error), np.nan)
    if found.outer is None:
        robust_error, its_error, robust_covariance = nothing, nothing, None
    else:
        robust_error, its_error = robust(None, found.observed, found.outer), found.error_of(robust)
        robust_covariance = slopes @ _sandwich(found.observed, found.outer) @ slopes.T
    width = float(stats.norm.ppf(0.5 + 0.5 * level))
    low, high = supports.ends(width * np.sqrt(np.diag(covariance)), width * error)
    return Estimates(
        supports.labels, supports.value, error, found.error_of(plain), robust_error, its_error, low, high, level,
        slopes @ covariance @ slopes.T, robust_covariance, supports.is_changed, score_of(found), found,
    )  # fmt: skip


def score_of(found: Information) -> Score:
    """Gradient, chi-square and Newton step of an information that is positive definite."""
    score, noise, inverse = found.score, found.score_covariance, np.linalg.inv(found.observed)
    n, m, errors = len(score), found.n_replicates, np.sqrt(np.diag(inverse))
    chi_square = p_value = float("nan")
    if m > n and np.linalg.matrix_rank(noise) == n:
        chi_square = float(score @ np.linalg.solve(noise, score))
        p_value = float(stats.f.sf(chi_square * (m - n) / (n * (m - 1)), n, m - n))
    spread = inverse @ noise
    gain = 0.5 * (score @ inverse @ score - np.trace(spread))
    gain_error = np.sqrt(score @ inverse @ noise @ inverse @ score + 0.5 * np.trace(spread @ spread))
    return Score(
        score / found.n_data, np.sqrt(np.diag(noise)) / found.n_data, chi_square, p_value, inverse @ score / errors,
        np.sqrt(np.diag(inverse @ noise @ inverse)) / errors, float(gain), float(gain_error),
    )  # fmt: skip


def _sandwich(observed: np.ndarray, outer: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(observed)
    product: np.ndarray = inverse @ outer @ inverse
    return product
