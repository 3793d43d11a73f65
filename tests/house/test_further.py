"""What `make test` leaves to `make test-full`: pairs of values, never a value."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
from further import SLOW, pairs_beyond

LAW = sorted(SLOW)[0]


def cases(name, **values):
    """Tests of one law at every combination of values."""
    for combination in product(*values.values()):
        params = dict(zip(values, combination, strict=True))
        ident = f"test_room.py::{name}[{'-'.join(map(str, combination))}]"
        yield SimpleNamespace(nodeid=ident, originalname=name, callspec=SimpleNamespace(params=params))


@pytest.mark.parametrize("n", [2, 5, 9])
def test_every_value_of_a_slow_law_stays_and_backends_share(n):
    items = list(cases(LAW, page=range(n), backend=("pyro", "numpyro"), shape=((3,), (4, 4))))
    beyond = {item.nodeid for item in pairs_beyond(items)}
    kept = [item.callspec.params for item in items if item.nodeid not in beyond]
    assert len(kept) == n, "one test for every page is enough for all values"
    for name in ("page", "backend", "shape"):
        assert {str(params[name]) for params in kept} == {str(item.callspec.params[name]) for item in items}
    assert abs(sum(params["backend"] == "pyro" for params in kept) - n / 2) <= 0.5
    assert beyond == {item.nodeid for item in pairs_beyond(items)}, "every process chooses the same"


def test_quick_laws_keep_all_pairs():
    assert not pairs_beyond(list(cases("test_of_a_moment", page=range(4), backend=("pyro", "numpyro"))))
