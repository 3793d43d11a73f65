"""Evidence of a run's model, of its base, and of its untilted twin, side by side on the same data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.runs import files
from pplebm.runs.evidence import bits_per_dimension, constants_of, log_evidence

if TYPE_CHECKING:
    from pplebm.runs.run import Run

FILE = "evaluation.json"


class Row(NamedTuple):
    """One model of the table; nats per datum in the units of its run."""

    model: str
    evidence: Evidence
    log_z: float
    log_z_error: float
    bits: float
    difference: float  # mean of log p(x) minus that of the first row, over data that both rows have
    difference_error: float  # of both estimators, and over the data
    seconds: float

    @property
    def mean(self) -> float:
        """Mean of log p(x) over the data that can be trusted."""
        return float(np.nanmean(self.evidence.value))

    @property
    def error(self) -> float:
        """Standard error of the estimator in that mean."""
        return self.evidence.take(self.evidence.is_trusted).mean_error

    @property
    def data_error(self) -> float:
        """Standard error of that mean as one over all data like these."""
        return over_data(self.evidence.value)


HEAD = ("model", "log p(x)", "±", "± over data", "bits / dim", "minus first", "±", "log Z", "±", "refused", "seconds")


def evaluate(run: Run, x: Any, twin: Run | None = None, **settings: Any) -> list[Row]:
    """Evidence of the tilted model, its base, and its twin, computed where it is not kept already.

    Args:
        run: of a tilted model, or another one.
        x: data in the user's units, such as held-out ones.
        twin: run of another model of the same data in the same units, such as the same generator without tilts.
        settings: of `Run.log_evidence`.

    Raises:
        PplebmError: for a twin in other units.
    """
    if twin is not None and not np.isclose(twin.log_jacobian, run.log_jacobian):
        raise PplebmError(
            f"the twin '{twin.path}' learned in other units than '{run.path}', so that their log densities are not "
            f"comparable; fit it with the same scaling."
        )
    rows: list[Row] = []
    for name, one, base in _models(run, twin):
        began = time.perf_counter()
        found = log_evidence(one, x, base=base, **settings)
        is_tilted = bool(one.program.tilts) and not base
        constant = constants_of(one, x, **settings) if is_tilted else Evidence.of("no tilt", [0.0], [0.0])
        mean = float(np.nanmean(found.value))
        first = rows[0].evidence if rows else found
        rows.append(
            Row(
                name,
                found,
                constant.mean,
                constant.mean_error,
                bits_per_dimension(one, mean),
                *compared(found, first),
                time.perf_counter() - began,
            )
        )  # fmt: skip
    _keep(run, rows)
    return rows


def compared(a: Evidence, b: Evidence) -> tuple[float, float]:
    r"""Mean difference of two estimates of the same data, and its standard error.

    .. math:: \hat\sigma^2 = \frac{\mathrm{var}_i(a_i - b_i)}{n} + \sigma_{c,a}^2 + \sigma_{c,b}^2

    The variance over the data holds the noise of both estimators; what is common to all data comes on top.
    """
    difference = a.value - b.value
    if a is b:
        return 0.0, 0.0
    common = np.hypot(a.common_error, b.common_error)
    return float(np.nanmean(difference)), float(np.hypot(over_data(difference), common))


def over_data(values: np.ndarray) -> float:
    """Standard error of a mean over data; those that are NaN are left out."""
    n = int(np.isfinite(values).sum())
    return float(np.nanstd(values, ddof=1) / n**0.5) if n > 1 else float("nan")


def lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """The table as text, a line for every row."""
    return [
        (
            row.model,
            f"{row.mean:.2f}",
            f"{row.error:.2f}",
            f"{row.data_error:.2f}",
            f"{row.bits:.3f}",
            f"{row.difference:+.2f}" if i else "",
            f"{row.difference_error:.2f}" if i else "",
            f"{row.log_z:.3f}",
            f"{row.log_z_error:.3f}",
            f"{int((~row.evidence.is_trusted).sum())} of {len(row.evidence)}",
            f"{row.seconds:.0f}",
        )
        for i, row in enumerate(rows)
    ]


def _models(run: Run, twin: Run | None) -> list[tuple[str, Run, bool]]:
    first = ("tilted model", run, False) if run.program.tilts else ("model", run, False)
    found = [first, *([("its base", run, True)] if run.program.tilts else [])]
    return [*found, *([] if twin is None else [("twin", twin, False)])]


def _keep(run: Run, rows: list[Row]) -> None:
    names = ("log_z", "log_z_error", "bits", "difference", "difference_error", "seconds", "mean", "error", "data_error")
    told = [{"model": row.model, "method": row.evidence.method, "data": len(row.evidence),
             "refused": int((~row.evidence.is_trusted).sum())} | {name: getattr(row, name) for name in names}
            for row in rows]  # fmt: skip
    files.write_json(run.path / FILE, told)
