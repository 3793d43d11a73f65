"""Calibration of a run: ranks of the truth among draws of learning's own inference, and of long adjusted chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pplebm.calibration.posteriors import AdjustedChains, Posteriors, in_parts
from pplebm.calibration.sbc import Calibration, sbc
from pplebm.errors import PplebmError
from pplebm.ppl.language import Data, Params
from pplebm.program import Program
from pplebm.runs.run import Run

WAYS = ("learning", "chains")


@dataclass(frozen=True)
class OfLearning:
    """Posteriors as learning draws them: the short runs, or the guide, of the page.

    Args:
        run: whose page it is.
        n_draws: of every datum.
    """

    run: Run
    n_draws: int = 100
    name: str = "learning's own inference"

    def draw(
        self, program: Program, params: Params, x: Data, seed: int, progress: bool | None
    ) -> dict[str, np.ndarray]:
        draw = lambda key, rows: self.run.algorithm.posterior_latents(key, params, rows)
        return in_parts(program, x, self.n_draws, seed, draw)


def calibrate(
    run: Run,
    x: Any = None,
    *,
    ways: tuple[str, ...] = WAYS,
    n_replications: int = 200,
    seed: int = 0,
    progress: bool | None = None,
) -> list[Calibration]:
    r"""Calibrate the inference of a run by simulation from its own learned program.

    Latents come from the learned tilted prior by adjusted chains, in noncentered coordinates, and data from these
    latents. Whether the program fits the data it learned from is another question.

    Args:
        run: a learned model.
        x: data in the user's units with the covariates to simulate at, where the program reads any.
        ways: what is to be calibrated: "learning", the short runs or the guide of the page, and "chains", adjusted
            ones.
        n_replications: data simulated for each way, the same for all.
        seed: of all random numbers.
        progress: show bars; by default if the output is a terminal.

    Raises:
        PplebmError: for a way that is not known, or a program that `pplebm.sbc` refuses.
    """
    known: dict[str, Posteriors] = {"learning": OfLearning(run), "chains": AdjustedChains()}
    if unknown := [way for way in ways if way not in known]:
        raise PplebmError(f"'{unknown[0]}' is no way of inference; choose among {', '.join(known)}.")
    program = run.program.with_coordinates("noncentered")
    given = None if x is None else run.data(x)
    settings: dict[str, Any] = {"n_replications": n_replications, "seed": seed, "progress": progress}
    return [sbc(program, known[way], params=run.params, given=given, **settings) for way in ways]
