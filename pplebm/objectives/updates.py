r"""From a gradient to new parameters: clipping, rates that fall at the end, Adam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pplebm.objectives.gradients import clip, norm
from pplebm.ppl import Array, Params
from pplebm.program import Program


class Moved(NamedTuple):
    """New parameters, and what a person wants to see of the way there."""

    params: Params
    adam: Any
    grad_norm: Array  # before clipping
    grad_norm_tilt: Array
    clipped: Array  # whether the gradient was shortened


def moved(
    program: Program,
    params: Params,
    gradient: Params,
    adam: Any,
    update: Any,
    hyper: Any,
    factors: Mapping[str, Any] | None = None,
) -> Moved:
    r"""One step of Adam on a gradient clipped to `hyper.clip_norm`.

    Rates are `hyper.learning_rate`, of the tilts `hyper.learning_rate_tilt`; both fall linearly to zero over the last
    `hyper.decay_share` of `hyper.updates`.

    Args:
        params: of the model, its guide and whatever else learns.
        update: number of updates done.
        factors: further factors of rates by name; 0 holds a parameter still.
    """
    ppl = program.ppl
    like = next(iter(gradient.values())).sum()
    norm_tilt = norm({name: gradient[name] for name in program.tilt_params}, like=like)
    clipped, norm_all = clip(ppl, gradient, hyper.clip_norm)
    left = ppl.asarray((1.0 - update / hyper.updates) / max(hyper.decay_share, 1e-6))
    decay = ppl.where(left < 1.0, left, 1.0 + 0.0 * left)
    tilt_rate, rate = decay * hyper.learning_rate_tilt, decay * hyper.learning_rate
    rates = {name: tilt_rate if name in program.tilt_params else rate for name in params}
    for name, factor in (factors or {}).items():
        rates[name] = factor * rates[name]
    params, adam = ppl.adam(params, clipped, adam, rates)
    return Moved(params, adam, norm_all, norm_tilt, norm_all > hyper.clip_norm)
