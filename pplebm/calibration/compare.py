"""Comparison of programs by the evidence of the same data, in the columns of ArviZ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence

if TYPE_CHECKING:
    import pandas

GOOD_K_HAT = 0.7


def compare(evidence: Mapping[str, Evidence]) -> pandas.DataFrame:
    r"""Table of programs, the best first, by the log density of all data, :math:`\sum_i \log p(x_i)`.

    .. math::
        \mathrm{se}^2 = n\, \mathrm{var}_i \log p(x_i), \qquad
        \mathrm{dse}^2 = n\, \mathrm{var}_i \bigl(\log p_{best}(x_i) - \log p(x_i)\bigr)

    With given parameters a datum is no other datum's business, and log p(x_i) is its density given all the others as
    well: the sum is the elpd that leave-one-out is about, with no parameters fitted. Standard errors are over data, and
    that of a difference is paired: models of the same data err together. What the estimators of log p(x) add, their
    Monte Carlo error, stands beside them: their errors by datum are part of `se` and `dse` too, that of a log Z, which
    moves all data alike, is not. Estimates are taken for independent of each other.

    Args:
        evidence: by name of the program, of `pplebm.log_evidence` at the same data in the same order.

    Returns:
        A data frame with ArviZ's columns `rank`, `elpd_loo`, `p_loo` (0), `elpd_diff`, `se`, `dse`, `warning`, `scale`,
        and `estimator_se` and `estimator_dse`, which are those of the sum and of the difference. It warns where a k-hat
        is above 0.7.

    Raises:
        PplebmError: for fewer than two programs or data, other numbers of data, or data that cannot be trusted.

    Source: Vehtari, Gelman, Gabry (Statistics and Computing 2017), section 5.2.

    Example:
        >>> from pplebm.evidence.estimate import Evidence
        >>> tilted, twin = Evidence.of("ais", [-1.0, -2.0], [0.1, 0.1]), Evidence.of("ais", [-1.5, -2.3], [0.0, 0.0])
        >>> table = compare({"twin": twin, "tilted": tilted})
        >>> list(table.index), table.elpd_diff.round(2).tolist(), table.dse.round(3).tolist()
        (['tilted', 'twin'], [0.0, 0.8], [0.0, 0.141])
        >>> table.estimator_dse.round(3).tolist()
        [0.0, 0.141]
    """
    import pandas

    _check(evidence)
    names = sorted(evidence, key=lambda name: -evidence[name].value.sum())
    best = evidence[names[0]]
    rows = []
    for rank, name in enumerate(names):
        found = evidence[name]
        n, difference = len(found), best.value - found.value
        own, its = found.mean_error * n, best.mean_error * n
        rows.append({
            "rank": rank, "elpd_loo": found.value.sum(), "p_loo": 0.0, "elpd_diff": difference.sum(),
            "se": (n * found.value.var()) ** 0.5, "dse": (n * difference.var()) ** 0.5,
            "estimator_se": own, "estimator_dse": (own**2 + its**2) ** 0.5 if rank else 0.0,
            "warning": bool((found.k_hat > GOOD_K_HAT).any()), "scale": "log",
        })  # fmt: skip
    return pandas.DataFrame(rows, index=names)


def _check(evidence: Mapping[str, Evidence]) -> None:
    if len(evidence) < 2:
        raise PplebmError(f"a comparison needs two programs or more, got {len(evidence)}.")
    sizes = {name: len(found) for name, found in evidence.items()}
    if len(set(sizes.values())) > 1 or min(sizes.values()) < 2:
        told = ", ".join(f"{n} of '{name}'" for name, n in sizes.items())
        raise PplebmError(f"programs are compared at the same data, two or more; got {told}.")
    for name, found in evidence.items():
        lost = np.flatnonzero(~(np.isfinite(found.value) & np.isfinite(found.error)))
        if len(lost):
            raise PplebmError(
                f"log p(x) under '{name}' cannot be trusted at {len(lost)} of {len(found)} data, datum {lost[0]} "
                f"the first of them; estimate it by another method, or take these data out of every program's "
                f"(evidence.take(rows))."
            )
