r"""Scores by name: a formula of averages each, with one sentence for docs and the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.program import Program
from pplebm.scores.conditional import layers_of
from pplebm.scores.scoring import Score, Scoring

Found = tuple[np.ndarray, np.ndarray]  # value and error, (n,) each


class Entry(NamedTuple):
    """A score of the registry."""

    sentence: str
    formula: Callable[..., Found]  # of a Scoring, and of k where the name holds one
    needs_normal: bool = False


def of_chains(by_chain: np.ndarray) -> Found:
    r"""Mean over chains, and its standard error by their spread, :math:`s / \sqrt C`; (n,) each."""
    return by_chain.mean(0), by_chain.std(0, ddof=1) / len(by_chain) ** 0.5


def _plus(found: Found, constant: Evidence) -> Found:
    """A mean plus an independent constant, of all data or of each."""
    return found[0] + constant.value, np.hypot(found[1], constant.error)


def _log_evidence(s: Scoring) -> Found:
    return -s.evidence.value, s.evidence.error


def _log_joint(s: Scoring) -> Found:
    return of_chains(-s.log_joint())


def _likelihood(s: Scoring) -> Found:
    return of_chains(-s.likelihood())


def _reconstruction(s: Scoring) -> Found:
    return of_chains(s.squared_error)


def _prior(s: Scoring) -> Found:
    return _plus(of_chains(-(s.base() + s.tilt())), s.log_z)


def _tilt_ratio(s: Scoring) -> Found:
    return _plus(of_chains(-s.tilt()), s.log_z)


def _tempered(s: Scoring) -> Found:
    return of_chains(-(s.likelihood() / s.how.temperature + s.base() + s.tilt()))


def _above(s: Scoring, k: int) -> Found:
    return of_chains(-s.log_joint(s.above(k)))


def _ratio(s: Scoring, k: int) -> Found:
    return of_chains(s.log_joint() - s.log_joint(s.above(k)))


def _typicality(s: Scoring) -> Found:
    assert s.normal is not None
    mine, theirs = s.evidence, s.normal.evidence
    own = np.sqrt(np.maximum(mine.error**2 - mine.common_error**2, 0.0))  # log Z of all data cancels
    kept = theirs.take(theirs.is_trusted)
    of_mean = np.sqrt(np.maximum(kept.error**2 - kept.common_error**2, 0.0).sum()) / len(kept)
    return abs(mine.value - kept.value.mean()), np.hypot(own, of_mean)


def _typicality_joint(s: Scoring) -> Found:
    assert s.normal is not None
    (value, error), (theirs, their_error) = of_chains(s.log_joint()), of_chains(s.normal.log_joint())
    return abs(value - theirs.mean()), np.hypot(error, np.sqrt((their_error**2).sum()) / len(their_error))


SCORES: dict[str, Entry] = {
    "log_evidence": Entry("-log p(x), log Z subtracted: how improbable the datum is.", _log_evidence),
    "log_joint": Entry(
        "-E[log p(x|z) + log p0(z) + f(z) | x], the unnormalised log posterior L^{>0} of Cui et al., without log Z and "
        "without the entropy of p(z|x).",
        _log_joint,
    ),
    "likelihood": Entry("-E[log p(x|z) | x], reconstruction in nats.", _likelihood),
    "reconstruction": Entry(
        "E[|x - E[x|z]|^2 | x], the squared error of reconstruction in squared units of the model.", _reconstruction
    ),
    "prior": Entry("-E[log p0(z) + f(z) | x] + log Z, minus the log density of the tilted prior.", _prior),
    "tilt_ratio": Entry("-E[f(z) | x] + log Z, the log ratio of the base to the tilted prior.", _tilt_ratio),
    "tempered": Entry(
        "-E[log p(x|z) / T + log p0(z) + f(z) | x]: `log_joint` with the log likelihood divided by a temperature T, "
        "the posterior left as it is.",
        _tempered,
    ),
    "log_joint>k": Entry(
        "-L^{>k}: `log_joint` with the layers above k from the posterior and those up to k from the tilted prior given "
        "them.",
        _above,
    ),
    "llr>k": Entry(
        "LLR^{>k} = L^{>0} - L^{>k}: what the layers up to k know of the datum that those above do not; log Z cancels, "
        "the entropies of the two distributions of z do not.",
        _ratio,
    ),
    "typicality": Entry(
        "|log p(x) - mean of log p over normal data|: far from typical on either side.", _typicality, True
    ),
    "typicality_joint": Entry(
        "The same of the unnormalised log posterior: |L^{>0}(x) - mean of L^{>0} over normal data|.",
        _typicality_joint,
        True,
    ),
}
OF_LAYERS = re.compile(r"(log_joint|llr)>(\d+)")


def names_of(program: Program, layers: object = None) -> list[str]:
    """Names of the scores that a program has, k in numbers.

    Example:
        >>> import pplebm
        >>> names_of(pplebm.Program(pplebm.bind("conjugate_tilt")))[-4:]
        ['log_joint>1', 'llr>1', 'typicality', 'typicality_joint']
    """
    ks, found = range(1, len(layers_of(program, layers))), []  # type: ignore[arg-type]
    for name in SCORES:
        found += [name.replace("k", str(k)) for k in ks] if name.endswith(">k") else [name]
    return found


def entry_of(name: str) -> tuple[Entry, dict[str, int]]:
    """The entry of a name, and k if it holds one.

    Raises:
        PplebmError: for an unknown name.

    Example:
        >>> entry_of("llr>2")[1]
        {'k': 2}
    """
    if found := OF_LAYERS.fullmatch(name):
        return SCORES[f"{found[1]}>k"], {"k": int(found[2])}
    if name not in SCORES or name.endswith(">k"):
        known = ", ".join(SCORES)
        raise PplebmError(f"score '{name}' is not known; choose one of {known}, with a number in the place of k.")
    return SCORES[name], {}


def scored(scoring: Scoring, name: str) -> Score:
    """The score of that name.

    Raises:
        PplebmError: for an unknown name, or without normal data where the score needs them.
    """
    entry, k = entry_of(name)
    if entry.needs_normal and scoring.normal is None:
        raise PplebmError(f"score '{name}' compares with normal data; give normal= rows that are known to be normal.")
    return Score(name, *entry.formula(scoring, **k))
