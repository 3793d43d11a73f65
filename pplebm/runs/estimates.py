"""Standard errors of the parameters that a run learned, from the data that it learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pplebm.estimation.table import Estimates
from pplebm.estimation.table import estimates as of_program

if TYPE_CHECKING:
    from pplebm.runs.run import Run


def estimates(run: Run, x: Any = None, *, names: Sequence[str] | None = None, **settings: Any) -> Estimates:
    """What `pplebm.estimates` gives for the learned parameters, which are those of data in model units.

    Derivatives are at fixed latents, in centered coordinates; chains run in noncentered ones unless settings say
    otherwise.

    Args:
        run: any.
        x: data in the user's units, all that the run learned from; found again by themselves where they have a name or
            a file.
        names, settings: as in `pplebm.estimates`.

    Raises:
        PplebmError: if the run learned from data in memory and none are given.
    """
    data = run.data(run.to_user(run.load().train) if x is None else x)
    settings = {"coordinates": "noncentered", "params": run.params, **settings}
    return of_program(run.program.with_coordinates("centered"), data, names=names, **settings)
