"""Observed information, score and outer product at given parameters, with Monte Carlo errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pplebm.errors import PplebmError

LEAST = 1e-5  # of the information that a direction must have: less is rounding in single precision


@dataclass(frozen=True)
class Information:
    r"""Score, observed information and outer product of scores at given parameters, with their Monte Carlo errors.

    Arrays are in the order of `labels`. `without` holds what leaving out one replicate each gives, from which
    `error_of` has the error of anything computed of them by the jackknife.
    """

    labels: tuple[str, ...]
    value: np.ndarray  # (n,), the parameters
    n_data: int
    score: np.ndarray  # (n,), ∇ log p(data)
    observed: np.ndarray  # (n, n), -∇² log p(data)
    outer: np.ndarray | None  # (n, n), sum of s_i s_i'; None where all data are one datum
    without: tuple[np.ndarray, np.ndarray, np.ndarray]  # score (m, n), observed and outer (m, n, n)

    def error_of(self, function: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]) -> np.ndarray:
        r"""Monte Carlo error of a function of score, observed information and outer product.

        .. math:: \hat\sigma^2 = \frac{m - 1}{m} \sum_k (t_{(k)} - \bar t)^2

        Source: Efron, Stein (Annals of Statistics 1981).
        """
        found = np.stack([np.asarray(function(*parts), float) for parts in zip(*self.without, strict=True)])
        error: np.ndarray = np.sqrt((len(found) - 1) * found.var(0))
        return error

    @property
    def score_covariance(self) -> np.ndarray:
        """Monte Carlo covariance of the score, (n, n)."""
        score = self.without[0]
        away = score - score.mean(0)
        covariance: np.ndarray = (len(score) - 1) / len(score) * away.T @ away
        return covariance

    @property
    def n_replicates(self) -> int:
        """Independent estimates that errors come from."""
        return len(self.without[0])

    def weakest(self) -> tuple[float, float, np.ndarray]:
        r"""Information along the direction that data tell least about, its Monte Carlo error, and the direction, (n,).

        Numbers are measured in units of :math:`|H_{kk}|^{-1/2}`, so that the answer does not depend on their scales: 1
        is the information there would be if all numbers were estimated apart.
        """
        scale = np.sqrt(np.abs(np.diag(self.observed)))
        scale = 1.0 / np.where(scale > 0.0, scale, 1.0)
        scaled = self.observed * scale[:, None] * scale
        direction = np.linalg.eigh(scaled)[1][:, 0]
        v = direction * scale
        error = self.error_of(lambda score, observed, outer: v @ observed @ v)
        return float(v @ self.observed @ v), float(error), direction

    def check(self) -> None:
        """Raise unless the information is positive definite beyond its Monte Carlo error.

        Raises:
            PplebmError: naming the parameters of a direction that data do not determine.
        """
        along, error, direction = self.weakest()
        if along > max(2.0 * error, LEAST):
            return
        order = np.argsort(-np.abs(direction))
        told = [k for k in order[:4] if abs(direction[k]) > 0.2 * abs(direction[order[0]])]
        names = " ".join(f"{direction[k]:+.2f} {self.labels[k]}" for k in told)
        raise PplebmError(
            f"the information is not positive definite within its Monte Carlo error: along {names} it is {along:.2g} ± "
            f"{error:.2g} of what these parameters have one by one, so that the data do not determine them, or these "
            f"are not parameters of greatest likelihood; hold some (names= of the others), or take more draws."
        )
