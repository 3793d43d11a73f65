"""Arrays and helpers that the tests of pplebm.data share."""

from pathlib import Path

import numpy as np
import pytest

import pplebm.data as data
from pplebm.errors import PplebmError

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
NONE = data.Scaling("none", 0.0, 1.0)
RNG = np.random.default_rng(0)
TABLE = RNG.normal(3.0, 2.0, (50, 3))
HOLE = TABLE.copy()
HOLE[[7, 9], [1, 0]] = np.nan, np.inf
IMAGES = RNG.random((20, 6, 5))
BYTES = RNG.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


def fault(words, call, *args, **kwargs):
    """The message of the PplebmError that `call` raises: one line that holds all `words`."""
    with pytest.raises(PplebmError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".") and len(message) > 30
    for word in words:
        assert word in message, message
    return message


def same_rows(ds, x):
    """Assert that the data set holds the rows of `x`, each once, in user values."""
    both = ds.scaling.to_user(np.concatenate([ds.train, ds.held_out])).reshape(len(x), -1)
    wanted = np.asarray(x, float).reshape(len(x), -1)
    np.testing.assert_allclose(both[np.lexsort(both.T)], wanted[np.lexsort(wanted.T)], rtol=1e-5, atol=1e-5)
