r"""One sentence: what this algorithm is.

where positive and negative samples come from, and the update, in symbols
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm, Loss
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import ShortRun
from pplebm.objectives.contrast import contrast
from pplebm.ppl.language import Data, Latents, Params

PAPER = Paper("Given Family and Given Family", "Title", 2000, "CONFERENCE", arxiv="0000.00000")
WHEN = "for what it does better than the others, in half a line"
DEVIATIONS = ("One sentence per departure from the paper; leave the tuple empty if there is none.",)
REPORTS = {"squared_tilt": "what this page reports besides what all do, with its unit"}


class Hyper(NamedTuple):
    updates: Count = 1000  # a reason for every default
    batch_size: Count = 128  # the loop needs this field, `updates` and `optimizer`; all others are the page's own
    optimizer: Optimizer = Optimizer(learning_rate=1e-3)  # rates, clipping, another rule than Adam
    posterior: ShortRun = ShortRun(n_steps=40, step_size=0.1)  # where positive samples come from
    prior: ShortRun = ShortRun(n_steps=40, step_size=0.1)  # where negative samples come from


def loss(algorithm: Algorithm, key: Any, params: Params, x: Data, positive: Latents, negative: Latents | None) -> Loss:
    """A scalar whose gradient is followed downhill, and what is reported of it, by name."""
    value, seen = contrast(algorithm.program, params, x, positive, negative)
    return value, {**seen._asdict(), "squared_tilt": (algorithm.program.log_tilt(params, positive, x) ** 2).mean()}


# Where the paper does something else, a page also has (see pplebm.learning.algorithm.Algorithm):
# positive(algorithm, key, params, x), negative(algorithm, key, params, rows), rates(algorithm, state),
# init(algorithm, key, x, n_data), step(algorithm, key, state, x, index).
