r"""Chains of one posterior that a figure speaks against, and what signs of trouble in them are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pplebm.sampling.convergence import figures

GOOD_R_HAT, GOOD_ESS, GOOD_BFMI = 1.01, 400.0, 0.3  # Vehtari et al. (2021); Betancourt (2016)
CHANCE = 1e-3  # of a test to be wrong, shared among the scalars of a posterior
MIN_OWN_ESS = 20.0  # of a chain that has seen the place where it is
LEAST = 20  # draws; fewer tell no cause


class Chains(NamedTuple):
    """Chains of one posterior and what is known about them."""

    place: str  # " of datum 3", or nothing
    names: list[str]  # of the scalars
    numbers: np.ndarray  # (C,) of the chains, in the draws
    x: np.ndarray  # (C, N, K)
    stats: dict[str, np.ndarray]  # (C, N) each
    r_hat: np.ndarray  # (K,)
    ess: np.ndarray  # (K,) the smaller one of bulk and tails

    def only(self, is_kept: np.ndarray) -> Chains:
        """Some of the chains, with figures of their own."""
        x = self.x[is_kept]
        found = figures(x)
        return self._replace(
            numbers=self.numbers[is_kept],
            x=x,
            stats={name: a[is_kept] for name, a in self.stats.items()},
            r_hat=found.r_hat,
            ess=np.minimum(found.ess_bulk, found.ess_tail),
        )

    def called(self, is_meant: np.ndarray) -> str:
        """Some of the chains by number: "chain 3 of datum 1", "all chains"."""
        if is_meant.all() and len(is_meant) > 1:
            return f"all chains{self.place}"
        return f"{listed('chain', self.numbers[is_meant])}{self.place}"


class Advice(NamedTuple):
    """What a remedy depends on."""

    longer: str  # how to get longer trajectories
    coordinates: str  # how to get others, or nothing
    temper: str  # how to cross between modes
    n_warmup: int


class Sign(NamedTuple):
    """Something wrong with the chains of one posterior."""

    cause: str
    severity: float  # the larger the worse, among signs of one cause
    sentence: str
    place: str


def listed(noun: str, numbers: np.ndarray | list[int], most: int = 6) -> str:
    """Things by number.

    >>> listed("chain", [3]), listed("datum", [0, 4]), listed("chain", list(range(9)))
    ('chain 3', 'data 0 and 4', 'chains 0, 1, 2, 3, 4, 5 and 3 more')
    """
    names = [str(int(i)) for i in numbers]
    if len(names) == 1:
        return f"{noun} {names[0]}"
    more = len(names) - most
    shown, last = (names[:most], f"{more} more") if more > 0 else (names[:-1], names[-1])
    return f"{'data' if noun == 'datum' else noun + 's'} {', '.join(shown)} and {last}"
