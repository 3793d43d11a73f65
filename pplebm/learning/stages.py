r"""Stages of learning a tilt: in every one it is told from what it was when the stage began, a law that stands still.

p_k(z) = p₀(z) exp[ f_1(z) + ... + f_k(z) ] / Z_k,        f_k: what the declared tilt gained in stage k
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pplebm.learning.algorithm import Algorithm, Info, State
from pplebm.learning.samples import Samples
from pplebm.learning.sources import BaseDraws
from pplebm.ppl.language import Array, Data, Params

REPORTED = {
    "stage": "number of the stage, from 1",
    "accepted_negative": "mean acceptance of trajectories of prior chains; 1 in the first stage, which has none",
    "ess_negative": "effective draws of the stage before, as a share of those that moved",
    "log_z_before": "log Z of the stage before, 0 of the first, by the weights of its draws, nats",
    "log_z_before_error": "its standard error, nats",
}


class StagedState(NamedTuple):
    """A `State` with the parameters of the tilts at the end of the stage before, by name."""

    params: Params
    optimizer: Any
    update: Any
    positive: Any
    negative: Any
    earlier: Params


def starts(first: float, updates: int, n_stages: int) -> tuple[int, ...]:
    """Updates at which the second and further stages begin: the first has a share of all, the others equal parts.

    >>> starts(0.6, 1000, 3), starts(0.6, 1000, 1)
    ((600, 800), ())
    """
    rest = (1.0 - first) * updates
    return tuple(math.ceil(first * updates + k * rest / (n_stages - 1)) for k in range(n_stages - 1))


def begin(state: State, algorithm: Algorithm) -> StagedState:
    """The state before the first update; the tilt before the first stage has no strength."""
    return StagedState(*state, {name: state.params[name] for name in sorted(algorithm.program.tilt_params)})


def entered(algorithm: Algorithm, state: StagedState, at: tuple[int, ...]) -> tuple[StagedState, Array]:
    """The state, whose tilt is kept where a stage begins with this update; and the number of the stage, from 1."""
    ppl = algorithm.ppl
    update = ppl.asarray(1.0 * state.update)
    begins = sum((1.0 * (update == float(t)) for t in at), 0.0 * update) > 0.5
    earlier = {name: ppl.where(begins, state.params[name], kept) for name, kept in state.earlier.items()}
    return state._replace(earlier=earlier), sum((1.0 * (update >= float(t)) for t in at), 1.0 + 0.0 * update)


def draws(
    algorithm: Algorithm, key: Any, state: StagedState, x: Data, index: Any, stage: Array
) -> tuple[Samples | None, dict[str, Any]]:
    """Weighted draws of the prior as it was at the end of the stage before; of the base in the first stage.

    In the first stage chains make no trajectory, and so begin anew with draws of the base at every update. At the
    first update of the second they are annealed from there; in later ones their weights make up for what the tilt
    gained in a stage.

    Returns:
        The draws, None without a tilt, and the arguments of `pplebm.objectives.nce.refining_nce` that say what they
        are; draws of the base among them, unless every row has a log Z of its own.
    """
    program, ppl, moves = algorithm.program, algorithm.ppl, 1.0 * (stage > 1.5)
    if not program.tilts:
        return None, {}
    source, rows = algorithm.hyper.prior, program.prior_rows(x)
    k_pool, k_base = ppl.split(key)
    moving: Any = source._replace(n_steps=moves * source.n_steps, n_annealed=moves * source.n_annealed)
    before = dict(state.params) | dict(state.earlier)
    found = moving.advance(algorithm, k_pool, before, rows, False, state.negative, index)
    accepted = ppl.where(moves > 0.5, found.info.accepted, 1.0 + 0.0 * moves)  # 0 / 0 without trajectories
    given = {"earlier": state.earlier, "weight": found.weight, "strength": moves}
    if not program.prior_reads:
        base = BaseDraws().advance(algorithm, k_base, state.params, rows, False, (), index)
        given |= {"base": base.z, "log_z": found.info.log_weight}
    return found._replace(info=found.info._replace(accepted=accepted)), given


def curves(info: Info, stage: Array) -> Info:
    """Figures of an update by name, log Z of the stage before in the place of the log mean weight."""
    names = {"log_weight_negative": "log_z_before", "log_weight_error_negative": "log_z_before_error"}
    return {names.get(name, name): a for name, a in info.items()} | {"stage": stage}
