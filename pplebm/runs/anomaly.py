"""Scores of data under a run's model, log p(x) and log Z those that are kept in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pplebm.errors import PplebmError
from pplebm.runs import evidence
from pplebm.scores.posterior import learned
from pplebm.scores.registry import entry_of, scored
from pplebm.scores.scoring import Constants, Score, Scoring
from pplebm.scores.settings import Settings

if TYPE_CHECKING:
    from pplebm.runs.run import Run

OF_CONSTANTS = ("log_evidence", "typicality")  # scores that draw from no posterior
POSTERIORS = ("chains", "learned")
LEARNED_RUNS, LEARNED_ROWS = 4, 512  # of each datum; data at once


def anomaly_scores(
    run: Run,
    x: Any,
    names: Sequence[str] = ("log_evidence",),
    *,
    posterior: str = "chains",
    n_draws: int | None = None,
    normal: Any = None,
    **settings: Any,
) -> dict[str, Score]:
    """What `pplebm.anomaly_scores` gives for the learned parameters and data in the user's units, in model units.

    Args:
        run: any.
        x: data, one row for every score wanted.
        names: of scores.
        posterior: "chains" that accept and reject, or "learned", the short runs or the guide of learning, which are
            quick and need not be draws of p(z|x).
        n_draws: of each chain, 20 by default; or learned runs of every datum, 4 by default.
        normal: data known to be normal, for scores of typicality.
        settings: as in `pplebm.anomaly_scores`.

    Raises:
        PplebmError: for an unknown score or source of latents, or draws wanted for scores that make none.
    """
    for name in names:
        entry_of(name)
    if posterior not in POSTERIORS:
        raise PplebmError(f"posterior '{posterior}' is not known; choose one of {', '.join(POSTERIORS)}.")
    if all(name in OF_CONSTANTS for name in names) and (n_draws is not None or posterior != "chains"):
        raise PplebmError(
            f"score '{names[0]}' draws from no posterior, so n_draws and posterior have no meaning; give "
            f"evidence={{'n_particles': ...}}, or score='log_joint' for the unnormalised log posterior."
        )
    draw = None
    if posterior == "learned":
        n_draws = LEARNED_RUNS if n_draws is None else n_draws
        draw = learned(run.algorithm, run.params, n_draws)
        settings = {"rows_at_once": LEARNED_ROWS * n_draws, **settings, "n_chains": n_draws}
    elif n_draws is not None:
        settings = {**settings, "n_draws": n_draws}
    how = Settings(**settings)

    def scoring(rows: Any, other: Scoring | None) -> Scoring:
        squares = "reconstruction" in names
        return Scoring(
            run.program, run.data(rows), run.params, how, draw, _kept(run, rows, how), other, squares
        )  # fmt: skip

    both = scoring(x, None if normal is None else scoring(normal, None))
    return {name: scored(both, name) for name in names}


def _kept(run: Run, rows: Any, how: Settings) -> Constants:
    """log p(x) and log Z of these rows from the run's folder, computed where they are not there."""
    settings = how.of_evidence
    return Constants(
        lambda data: evidence.log_evidence(run, rows, **settings),
        lambda data: evidence.constants_of(run, rows, **settings),
    )
