"""Signs that a tilt runs away while every number is still finite, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_GAP = 20.0  # nats between E f(z⁺) and E f(z⁻): chains that reach the tilted prior close it
MAX_DIVERGENT = 0.25  # share of chains with a non-finite step
MAX_SATURATED = 0.5  # share of tilt values at their bound, where no gradient passes
SLOWER, LONGER = 0.5, 1.5  # factors of the tilt's rate and of the prior chain's length, at every intervention
MAX_LONGER = 4  # interventions that lengthen the chain; further ones lower the rate only


def trouble(metrics: Mapping[str, float]) -> str:
    """What is wrong after an update, in words; empty if nothing is.

    >>> trouble({"energy_gap": 31.4})
    'the energy gap is 31.4 nats'
    >>> trouble({"energy_gap": 1.2, "divergent_negative": 0.0})
    ''
    """
    if abs(metrics.get("energy_gap", 0.0)) > MAX_GAP:
        return f"the energy gap is {metrics['energy_gap']:.1f} nats"
    for name, value in metrics.items():
        if name.startswith("divergent") and value > MAX_DIVERGENT:
            return f"{value:.0%} of the chains of {name.partition('_')[2] or 'the model'} had a non-finite step"
    if metrics.get("tilt_saturation", 0.0) > MAX_SATURATED:
        return f"{metrics['tilt_saturation']:.0%} of the tilt's values are at its bound"
    return ""


def gentler(hyper: Any, n: int) -> Any:
    """Hyperparameters after n interventions: a slower tilt, and a longer chain to follow it.

    >>> from pplebm.inference.short_run_mle import Hyper
    >>> h = gentler(Hyper(), 1)
    >>> h.learning_rate_tilt, h.n_steps_prior
    (0.0005, 45)
    """
    changes: dict[str, Any] = {}
    if hasattr(hyper, "learning_rate_tilt"):
        changes["learning_rate_tilt"] = hyper.learning_rate_tilt * SLOWER**n
    if hasattr(hyper, "n_steps_prior"):
        changes["n_steps_prior"] = int(hyper.n_steps_prior * LONGER ** min(n, MAX_LONGER))
    return hyper._replace(**changes) if n else hyper


def told(before: Any, after: Any) -> str:
    """What an intervention changed, in words."""
    changed = [f for f in before._fields if getattr(before, f) != getattr(after, f)]
    return ", ".join(f"{f} {getattr(before, f):g} -> {getattr(after, f):g}" for f in changed) or "new noise"
