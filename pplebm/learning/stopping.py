r"""When learning by noisy gradients has arrived: the likelihood's gain in a window of updates, and its error."""

from __future__ import annotations

from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.learning.algorithm import State
from pplebm.ppl.language import PPL, Array, Params
from pplebm.ppl.trees import tree_map

BLOCKS = 10  # of a window, whose spread is the error of its mean
ERRORS, WINDOWS = 2.0, 2  # gains below so many standard errors, in so many windows in a row, are none
TOLD = 0.1  # nats per datum: where the error of a gain is more, nothing can be told, and learning goes on
AFTER = 3.0  # times the updates that the climb took are made in all: an average needs more of them than the way there
REPORTED = {
    "gain": "gain of the log likelihood in the last window of updates, nats per datum, along the way of the parameters",
    "gain_error": "standard error of that gain",
}
FALL = 0.6  # power by which rates fall once the climb is over


class Climb(NamedTuple):
    """What is known of the way of the parameters; means are over the updates of a window."""

    total: Params  # of the window under way
    before: Params  # mean of the last whole window
    heading: Params  # that less the mean of the window before it
    slope: Array  # along the heading, summed over the block under way
    slopes: Array  # (BLOCKS,) means of the blocks of this window
    gain: Array  # of the last whole window, nats per datum
    gain_error: Array
    n_still: Array  # windows in a row without a gain
    over_at: Array  # update at which the climb was over; 0 before


class ClimbingState(NamedTuple):
    """A `State` of an algorithm that knows when it has arrived."""

    params: Params
    optimizer: Any
    update: Any
    positive: Any
    negative: Any
    climb: Climb


def begin(ppl: PPL, state: State, window: int) -> ClimbingState:
    """The state before the first update.

    Raises:
        PplebmError: for a window that is not of ten blocks.
    """
    if window % BLOCKS:
        raise PplebmError(f"window must be a multiple of {BLOCKS} updates, got {window}.")
    zero = ppl.compiled(lambda params: {name: 0.0 * p for name, p in params.items()})(state.params)  # in one call
    none = next(iter(zero.values())).sum()
    blocks = none + ppl.asarray([0.0] * BLOCKS)
    return ClimbingState(*state, Climb(zero, dict(state.params), zero, none, blocks, none, none, none, none))


def follow(ppl: PPL, state: ClimbingState, params: Params, gradient: Params, window: int, rising: float = 0.0) -> Climb:
    r"""What is known after one more update.

    With :math:`\bar\theta_k` the mean of the parameters over window k, the gain of the log likelihood in the next one,
    if the parameters went on as they did, is

    .. math:: \hat\Delta_{k+1} = \big(\bar\theta_k - \bar\theta_{k-1}\big)^T\,
              \frac1W \sum_{t \in k+1} \hat\nabla \ell(\theta_t)

    whose terms have noise of mean zero: it tells an ascent from a walk around a maximum, where it is 0 in
    expectation. Its error is that of the means of ten blocks of the window. One of a tenth of a nat or more
    tells nothing of an end: so it is where chains of many data have hardly begun.

    Args:
        state: before the update.
        params: after it.
        gradient: of the loss, minus the log likelihood per datum, at the parameters before.
        window: W, updates.
        rising: updates at the beginning over which rates rise; an end is looked for in windows after them.

    Source: Pflug (Monte Carlo Methods and Applications 1990), for products of successive gradients.
    """
    c, t = state.climb, ppl.asarray(state.update) % window  # number of this update in its window
    size = window // BLOCKS
    slope = c.slope
    for name, g in gradient.items():
        slope = slope - (g * c.heading[name]).sum()
    is_block, is_window = (t + 1) % size < 0.5, t > window - 1.5
    number = ppl.asarray([float(i) for i in range(BLOCKS)])
    here = is_block & (abs(number - (t + 1) // size + 1.0) < 0.5)
    slopes = ppl.where(here, slope / size + 0.0 * number, c.slopes)
    gain = slopes.mean()
    error = (((slopes - gain) ** 2).sum() / (BLOCKS - 1) / BLOCKS) ** 0.5
    is_known = ppl.asarray(state.update) > rising + 2.5 * window  # both ends of the heading are windows
    is_none = (gain < ERRORS * error) & (error < TOLD)
    still = ppl.where(is_known & is_none, c.n_still + 1.0, 0.0 * c.n_still)
    total = {name: a + params[name] for name, a in c.total.items()}
    mean = {name: a / window for name, a in total.items()}
    choose = lambda a, b: tree_map(lambda a, b: ppl.where(is_window, a, b), a, b)
    return Climb(
        choose({name: 0.0 * a for name, a in total.items()}, total),
        choose(mean, c.before),
        choose({name: a - c.before[name] for name, a in mean.items()}, c.heading),
        ppl.where(is_block, 0.0 * slope, slope),
        slopes,
        choose(gain, c.gain),
        choose(error, c.gain_error),
        choose(still, c.n_still),
        ppl.where(is_window & (c.over_at < 0.5) & (still > WINDOWS - 0.5), ppl.asarray(state.update) + 1.0, c.over_at),
    )


def factor(ppl: PPL, state: Any) -> Array:
    r"""Factor of the learning rates: 1 until the climb is over at update a, :math:`(a / t)^{0.6}` from there.

    Source: Robbins, Monro (1951); Polyak, Juditsky (1992) for averages of what such rates lead to.
    """
    over_at, t = state.climb.over_at, state.update + 0.0 * state.climb.over_at
    is_over = (over_at > 0.5) & (t > over_at)
    return ppl.where(is_over, (over_at / ppl.where(is_over, t, 1.0 + 0.0 * t)) ** FALL, 1.0 + 0.0 * over_at)


def gains(state: Any) -> dict[str, Array]:
    """Figures of the climb, by name."""
    return {"gain": state.climb.gain, "gain_error": state.climb.gain_error}


def has_arrived(state: Any) -> Any:
    """Whether the average has had its share of the updates."""
    return (state.climb.over_at > 0.5) & (state.climb.over_at * AFTER < state.update + 0.5)
