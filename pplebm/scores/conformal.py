r"""P-values and thresholds from scores of held-out normal data: right for any score, if the data are exchangeable."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta, false_discovery_control

from pplebm.errors import PplebmError


def conformal_p_values(scores: Any, normal: Any, randomised: bool = False, seed: int = 0) -> np.ndarray:
    r"""P-values of the hypothesis that a datum is like the normal ones, (m,).

    .. math:: p_i = \frac{1 + \#\{j : s^{cal}_j \ge s_i\}}{n + 1}

    If a normal datum is exchangeable with the n held-out ones, :math:`P(p \le \alpha) \le \alpha` for every
    :math:`\alpha`, whatever the score and however wrong the model. Normal data that the model learned from are not
    exchangeable with new ones.

    Args:
        scores: (m,) of data to judge; p-values of scores that are NaN are NaN.
        normal: (n,) of held-out normal data.
        randomised: break ties, and the step of 1 / (n + 1), at random: p-values of normal data are then exactly uniform
            in [0, 1], also of scores that take few values.
        seed: of that.

    Raises:
        PplebmError: for normal scores that are not finite, or none.

    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), section 2.5; Bates, Candès, Lei,
    Romano, Sesia (Annals of Statistics 2023).

    Example:
        >>> conformal_p_values([0.5, 9.0], [1.0, 2.0, 3.0, 0.0]).tolist()
        [0.8, 0.2]
    """
    ordered, values = checked(normal), np.asarray(scores, float)
    n = len(ordered)
    at_least = n - np.searchsorted(ordered, values, side="left")
    if randomised:
        above = n - np.searchsorted(ordered, values, side="right")
        u = np.random.default_rng(seed).uniform(size=values.shape)
        found = (above + u * (1 + at_least - above)) / (n + 1)
    else:
        found = (1 + at_least) / (n + 1)
    return np.where(np.isnan(values), np.nan, found)


class Threshold(NamedTuple):
    """A threshold on a score, above which data are called anomalous, and what is known of its false alarms."""

    value: float
    false_alarm: float  # rate that was asked for: of new normal data, over calibration sets, at most so many exceed
    low: float  # interval of the rate of this calibration set
    high: float
    level: float
    n: int  # held-out normal data

    def flags(self, scores: Any) -> np.ndarray:
        """Which data exceed the threshold, (m,) bool."""
        return np.asarray(scores, float) > self.value


def threshold(normal: Any, false_alarm: float = 0.01, level: float = 0.9) -> Threshold:
    r"""The least threshold whose rate of false alarms is at most so high, from held-out normal scores.

    .. math::
        t = s_{(n + 1 - m)}, \quad m = \lfloor \alpha (n + 1) \rfloor, \qquad P(s > t) \le \alpha, \qquad
        P(s > t \mid \text{calibration}) \sim \mathrm{Beta}(m, n + 1 - m)

    The first probability is over calibration set and new datum together; it flags what has a conformal p-value of at
    most :math:`\alpha`. The rate of one calibration set varies by the beta law, exactly for scores without ties, and
    lies below it with ties; `low` and `high` are its quantiles.

    Args:
        normal: (n,) scores of held-out normal data, of which none was learned from.
        false_alarm: :math:`\alpha`.
        level: probability of the interval.

    Raises:
        PplebmError: for rates outside (0, 1), or fewer than :math:`1 / \alpha - 1` normal data.

    Source: Vovk (Machine Learning 2013), proposition 2a; Bates et al. (Annals of Statistics 2023), section 2.

    Example:
        >>> found = threshold(np.arange(99.0), 0.05)
        >>> found.value, bool(found.low < 0.05 < found.high), found.flags([93.0, 95.0, 200.0]).tolist()
        (94.0, True, [False, True, True])
    """
    ordered = checked(normal)
    n = len(ordered)
    for name, rate in (("false_alarm", false_alarm), ("level", level)):
        if not 0.0 < rate < 1.0:
            raise PplebmError(f"{name} must lie in (0, 1), got {rate!r}.")
    m = int(np.floor(false_alarm * (n + 1) + 1e-9))
    if m == 0:
        raise PplebmError(
            f"a false-alarm rate of {false_alarm:g} needs {int(np.ceil(1 / false_alarm - 1 - 1e-9))} held-out normal "
            f"data or more, and there are {n}; give more, or allow a rate of {1 / (n + 1):.2g} or higher."
        )
    low, high = beta.ppf((0.5 - 0.5 * level, 0.5 + 0.5 * level), m, n + 1 - m)
    return Threshold(float(ordered[n - m]), false_alarm, float(low), float(high), level, n)


def discoveries(p_values: Any, false_discovery: float = 0.1) -> np.ndarray:
    """Which of a batch of data to call anomalous, (m,) bool, at a rate of false discoveries, by Benjamini-Hochberg.

    Of the data called so, on average at most that share is normal. The p-values may share a calibration set: conformal
    ones then depend on each other in the way that the procedure allows.

    Args:
        p_values: (m,) of `conformal_p_values`; those that are NaN are called nothing.
        false_discovery: rate in (0, 1).

    Raises:
        PplebmError: for another one.

    Source: Benjamini, Hochberg (JRSS B 1995); for conformal p-values Bates et al. (2023), theorem 2.

    Example:
        >>> discoveries([0.001, 0.5, 0.02, 0.9], 0.1).tolist()
        [True, False, True, False]
    """
    if not 0.0 < false_discovery < 1.0:
        raise PplebmError(f"false_discovery must lie in (0, 1), got {false_discovery!r}.")
    p = np.asarray(p_values, float)
    found, known = np.zeros(p.shape, bool), ~np.isnan(p)
    if known.any():
        found[known] = false_discovery_control(p[known]) <= false_discovery
    return found


def checked(normal: Any) -> np.ndarray:
    """Scores of normal data in ascending order.

    Raises:
        PplebmError: if there are none, or not all are finite.
    """
    values = np.asarray(normal, float).reshape(-1)
    if not len(values) or not np.isfinite(values).all():
        raise PplebmError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} scores of normal data are not finite; p-values and "
            f"thresholds need held-out normal data that all have a score."
        )
    return np.sort(values)
