r"""From a gradient to new parameters: accumulation, clipping, rates that rise and fall, Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pplebm.learning.gradients import clip, norm
from pplebm.ppl.language import Array, Params
from pplebm.program import Program

LOWEST = 0.01  # where an exponential fall ends


class Accumulated(NamedTuple):
    """Adam's state, and the mean gradient of the batches since its last step, so far."""

    adam: Any
    gradient: Params


class Moved(NamedTuple):
    """New parameters, and what a person wants to see of the way there."""

    params: Params
    adam: Any
    grad_norm: Array  # before clipping; of the mean so far, where gradients are accumulated
    grad_norm_tilt: Array
    clipped: Array  # whether the gradient was shortened


def begun(ppl: Any, params: Params, hyper: Any) -> Any:
    """State of the optimiser before the first update."""
    adam = ppl.init_adam(params)
    if hyper.accumulate == 1:
        return adam
    return Accumulated(adam, {name: 0.0 * p for name, p in params.items()})


def factor(ppl: Any, update: Any, hyper: Any) -> Array:
    r"""What rates are multiplied by at an update, a scalar.

    .. math:: \min(1, (t + 1) / w)\; g(\min(1, (1 - t/T) / s))

    with warm-up w, T updates, and the share s of them over which rates fall: g(a) = a ("linear"),
    :math:`0.01^{1 - a}` ("exponential"), 1 ("constant").

    >>> import pplebm.backends.pyro as ppl
    >>> from pplebm.inference.short_run_mle import Hyper
    >>> hyper = Hyper(updates=100, decay_share=0.5, warmup=10)
    >>> [round(float(factor(ppl, t, hyper)), 2) for t in (0, 9, 50, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    left = ppl.asarray((1.0 - update / hyper.updates) / max(hyper.decay_share, 1e-6))
    left = ppl.where(left < 1.0, left, 1.0 + 0.0 * left)
    risen = ppl.asarray((update + 1.0) / max(hyper.warmup, 1))
    risen = ppl.where(risen < 1.0, risen, 1.0 + 0.0 * risen)
    falls = {"linear": left, "exponential": ppl.exp(math.log(LOWEST) * (1.0 - left)), "constant": 1.0}
    return risen * falls[hyper.schedule]


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

    Rates are `hyper.learning_rate`, of the tilts `hyper.learning_rate_tilt`; `factor` tells their course. With
    `hyper.accumulate` k > 1 a step is made after every k-th gradient, on the mean of k.

    Args:
        params: of the model, its guide and whatever else learns.
        adam: of `begun`, or of the update before.
        update: number of updates done.
        factors: further factors of rates by name; 0 holds a parameter still.
    """
    ppl, k = program.ppl, hyper.accumulate
    if k > 1:
        gradient = {name: g + gradient[name] / k for name, g in adam.gradient.items()}
    like = next(iter(gradient.values())).sum()
    norm_tilt = norm({name: gradient[name] for name in program.tilt_params}, like=like)
    clipped, norm_all = clip(ppl, gradient, hyper.clip_norm)
    course = factor(ppl, update, hyper)
    tilt_rate, rate = course * hyper.learning_rate_tilt, course * hyper.learning_rate
    rates = {name: tilt_rate if name in program.tilt_params else rate for name in params}
    for name, further in (factors or {}).items():
        rates[name] = further * rates[name]
    before = adam.adam if k > 1 else adam
    new, after = ppl.adam(params, clipped, before, rates)
    if k > 1:
        full = ppl.asarray(1.0 * ((update + 1) % k)) < 0.5
        choose = lambda a, b: {name: ppl.where(full, a[name], b[name]) for name in b}
        new, rest = choose(new, params), choose({n: 0.0 * g for n, g in gradient.items()}, gradient)
        moments = (choose(after.mean, before.mean), choose(after.square, before.square))
        after = Accumulated(type(after)(*moments, ppl.where(full, after.n_updates, before.n_updates)), rest)
    return Moved(new, after, norm_all, norm_tilt, norm_all > hyper.clip_norm)
