"""Estimates of logarithms of normalising constants by datum, with errors and the figures they are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from pplebm.errors import PplebmError


@dataclass(frozen=True)
class Evidence:
    r"""Logarithms of normalising constants with standard errors, in nats; arrays are (n,), one entry per datum.

    An estimate that cannot be trusted is NaN, and `reasons` tells why.

    Example:
        >>> found = Evidence.of("bridge", [-3.0, -4.0], [0.1, 0.2])
        >>> low, high = found.interval(0.95)
        >>> low.round(2).tolist(), found.mean, round(found.mean_error, 3)
        ([-3.2, -4.39], -3.5, 0.112)
    """

    method: str  # name of the estimator
    value: np.ndarray
    error: np.ndarray  # standard error of the estimator, the common part included
    ess: np.ndarray  # effective sample size: how many independent exact draws these are worth
    k_hat: np.ndarray  # Pareto shape of the weights; NaN for estimators without weights
    freedom: np.ndarray  # degrees of freedom of the error, infinite where it is known well
    reasons: tuple[str, ...]  # by datum; "" where the estimate can be trusted
    common_error: float = 0.0  # the part of the errors that is the same for all data, such as that of one log Z

    @staticmethod
    def of(
        method: str,
        value: Sequence[float] | np.ndarray,
        error: Sequence[float] | np.ndarray,
        ess: Sequence[float] | np.ndarray | float = np.nan,
        k_hat: Sequence[float] | np.ndarray | float = np.nan,
        freedom: Sequence[float] | np.ndarray | float = np.inf,
        reasons: Sequence[str] | None = None,
        common_error: float = 0.0,
    ) -> Evidence:
        """Estimate from lists or arrays; those with a reason not to be trusted become NaN."""
        arrays = np.broadcast_arrays(*(np.asarray(a, float) for a in (value, error, ess, k_hat, freedom)))
        numbers = [np.array(a, dtype=float).reshape(-1) for a in arrays]
        why = ("",) * len(numbers[0]) if reasons is None else tuple(reasons)
        if len(why) != len(numbers[0]):
            raise PplebmError(f"{len(why)} reasons for {len(numbers[0])} estimates; give one for each, '' for none.")
        for i, reason in enumerate(why):
            if reason:
                numbers[0][i] = numbers[1][i] = np.nan
        return _made(method, numbers, why, common_error)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def is_trusted(self) -> np.ndarray:
        """Which estimates can be trusted, (n,)."""
        return np.array([not reason for reason in self.reasons])

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of confidence intervals, (n,) each: Student's with the degrees of freedom of the error.

        Raises:
            PplebmError: for a level outside (0, 1).
        """
        if not 0.0 < level < 1.0:
            raise PplebmError(f"level must lie in (0, 1), got {level!r}.")
        at = 0.5 + 0.5 * level
        with np.errstate(invalid="ignore"):
            width = self.error * np.where(np.isfinite(self.freedom), student.ppf(at, self.freedom), norm.ppf(at))
        return self.value - width, self.value + width

    @property
    def mean(self) -> float:
        """Mean over the data; NaN if one of them cannot be trusted."""
        return float(self.value.mean())

    @property
    def mean_error(self) -> float:
        r"""Standard error of `mean` as an estimate of the mean over these data.

        .. math:: \hat\sigma^2 = \frac{1}{n^2} \sum_i (\sigma_i^2 - \sigma_c^2) + \sigma_c^2

        with :math:`\sigma_c` the common error. How much the data themselves vary is not in it.
        """
        own = np.maximum(self.error**2 - self.common_error**2, 0.0)
        return float((own.sum() / len(self) ** 2 + self.common_error**2) ** 0.5)

    def minus(self, other: Evidence) -> Evidence:
        r"""Difference to an independent estimate, such as :math:`\log \tilde p(x) - \log Z`.

        A single other estimate is common to all data, and so is its error. The smaller effective sample size, the
        larger k-hat and the fewer degrees of freedom are told.

        Raises:
            PplebmError: for another number of data.
        """
        if len(other) not in (1, len(self)):
            raise PplebmError(f"{len(other)} estimates cannot be subtracted from {len(self)}; give one, or as many.")
        is_common = len(other) == 1
        theirs = other.reasons * len(self) if is_common and len(self) > 1 else other.reasons
        reasons = [" ".join(filter(None, pair)) for pair in zip(self.reasons, theirs, strict=True)]
        common = (self.common_error**2 + (other.error[0] if is_common else other.common_error) ** 2) ** 0.5
        found = Evidence.of(
            self.method,
            self.value - other.value,
            np.sqrt(self.error**2 + other.error**2),
            np.fmin(self.ess, other.ess),
            np.fmax(self.k_hat, other.k_hat),
            np.where(self.error >= other.error, self.freedom, other.freedom),
            reasons,
        )
        return replace(found, common_error=float(common))

    def take(self, rows: np.ndarray | slice) -> Evidence:
        """The estimates of some data."""
        index = np.arange(len(self))[rows]
        arrays = (self.value, self.error, self.ess, self.k_hat, self.freedom)
        reasons = tuple(self.reasons[i] for i in index)
        return _made(self.method, [a[index] for a in arrays], reasons, self.common_error)

    def doubted(self, reasons: Sequence[str]) -> Evidence:
        """The estimates, those with a reason not to be trusted NaN; earlier reasons come after."""
        both = [a or b for a, b in zip(reasons, self.reasons, strict=True)]
        found = Evidence.of(self.method, self.value, self.error, self.ess, self.k_hat, self.freedom, both)
        return replace(found, common_error=self.common_error)

    def replaced(self, rows: np.ndarray, other: Evidence) -> Evidence:
        """The estimates, others in the place of those of some data."""
        if len(rows) == len(self):
            return other
        place = {int(row): len(self) + i for i, row in enumerate(rows)}
        return Evidence.concatenate([self, other]).take(np.array([place.get(i, i) for i in range(len(self))]))

    @staticmethod
    def concatenate(parts: Sequence[Evidence]) -> Evidence:
        """The estimates of several lists of data, one after the other."""
        names = ("value", "error", "ess", "k_hat", "freedom")
        arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        reasons = tuple(reason for part in parts for reason in part.reasons)
        return _made(parts[0].method, arrays, reasons, parts[0].common_error)


def _made(method: str, arrays: Sequence[np.ndarray], reasons: tuple[str, ...], common_error: float) -> Evidence:
    value, error, ess, k_hat, freedom = arrays
    return Evidence(method, value, error, ess, k_hat, freedom, reasons, common_error)
