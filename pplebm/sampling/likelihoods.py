"""Log likelihoods of draws for ArviZ: those that data may be left out by, and those that they may not."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.sampling.draws import Draws
from pplebm.sampling.labelled import Variables, named
from pplebm.sampling.predictive import log_likelihood, spaced

CONDITIONAL = "conditional_log_likelihood"
CONDITIONAL_FACTS = {
    "warning": "log p(x_i | z_i) at latents fitted to x_i itself; no log likelihood for leave-one-out or for comparing "
    "models, which needs the integrated log p(x_i): to_arviz(..., evidence=pplebm.log_evidence(program, data))",
}


def likelihoods(draws: Draws, n: int | None, evidence: Any) -> dict[str, Variables]:
    """Groups of log likelihoods of a posterior, (chains, n, data) each.

    Args:
        draws: of a posterior.
        n: draws of each chain, evenly spaced.
        evidence: log p(x) by datum with `value` and `error`, as `pplebm.log_evidence` gives it, or None.

    Raises:
        PplebmError: for evidence of a program whose data are one datum, or of another number of data.
    """
    program, plate, at = draws.program, draws.program.plate or "data", spaced(draws, n)
    pointwise = named(program, log_likelihood(draws, n), plate, at, pointwise=True)
    has_local = any(site.is_local for site in program.latents)
    if evidence is None:
        return {CONDITIONAL if has_local else "log_likelihood": pointwise}
    if program.has_global_latents:
        raise PplebmError(
            "the program has global latents, so that its evidence is one number for all data and no log likelihood of "
            "each; leave evidence= out, and compare such programs by pplebm.log_evidence itself."
        )
    if len(evidence.value) != draws.plan.n_data:
        raise PplebmError(
            f"evidence of {len(evidence.value)} data for draws at {draws.plan.n_data}; give that of these."
        )
    name = program.observed[0].name if len(program.observed) == 1 else "observed"
    value = np.broadcast_to(evidence.value, (draws.plan.n_chains, len(at), len(evidence.value)))
    told: Variables = {f: ((plate,), getattr(evidence, f), None) for f in ("value", "error", "ess", "k_hat")}
    return {"log_likelihood": {name: (("chain", "draw", plate), value, at)}, "evidence": told, CONDITIONAL: pointwise}
