r"""One sentence: what this algorithm is.

where positive and negative samples come from, and the update, in symbols
"""

from typing import Any, NamedTuple

from pplebm.gallery.hyper import Count, NonNegative, Positive
from pplebm.kernels.langevin import langevin
from pplebm.objectives.contrast import contrast
from pplebm.sampling.chains import short_run

PAPER = "Authors. Title. Venue Year. arXiv number"
DEVIATIONS = ("One sentence per departure from the paper; leave the tuple empty if there is none.",)
N_STEPS = {"posterior": "n_steps", "prior": "n_steps"}  # lengths of chains; by default n_steps_posterior, ...


class Hyper(NamedTuple):
    updates: Count = 1000  # a reason for every default
    batch_size: Count = 128  # the loop needs this field and `updates`; all others are the page's own
    learning_rate: NonNegative = 1e-3  # of all parameters
    n_steps: Count = 40  # of both chains
    step_size: Positive = 0.1  # of both chains


class State(NamedTuple):
    """What the next update needs; `params` is asked for by others, the rest is the page's own."""

    params: Any
    adam: Any


class Info(NamedTuple):
    """What a person wants to see of an update; scalars, plotted by name in the report."""

    tilt_gap: Any
    log_likelihood: Any


def init(ppl: Any, key: Any, program: Any, x: Any, hyper: Hyper) -> State:
    """State before the first update; x is the first batch."""
    program.refuse_global_latents("this algorithm")
    return State(program.params, ppl.init_adam(program.params))


def posterior(ppl: Any, key: Any, program: Any, params: Any, x: Any, hyper: Hyper) -> tuple[Any, Any]:
    """Latents given x, and a diagnostic; used in learning and, afterwards, by `run.sample_posterior`."""
    return short_run(program, key, params, x, langevin(ppl, hyper.step_size), hyper.n_steps)


def prior(ppl: Any, key: Any, program: Any, params: Any, n: Any, hyper: Hyper) -> tuple[Any, Any]:
    """n latents of the tilted prior, and a diagnostic; used in learning and by `run.sample_prior`."""
    return short_run(program, key, params, n, langevin(ppl, hyper.step_size), hyper.n_steps, observed=False)


def step(ppl: Any, key: Any, state: State, program: Any, x: Any, hyper: Hyper) -> tuple[State, Info]:
    """One update on a batch x: a new state, the old one unchanged."""
    k_positive, k_negative = ppl.split(key)
    positive, _ = posterior(ppl, k_positive, program, state.params, x, hyper)
    negative, _ = prior(ppl, k_negative, program, state.params, program.prior_rows(x), hyper)
    (_, aux), gradient = ppl.value_and_grad(
        lambda params: contrast(program, params, x, positive, negative), state.params, has_aux=True
    )
    gradient, aux = ppl.average((gradient, aux))  # over the devices that share the batch
    rates = dict.fromkeys(state.params, hyper.learning_rate)
    params, adam = ppl.adam(state.params, gradient, state.adam, rates)
    return State(params, adam), Info(aux.tilt_positive - aux.tilt_negative, aux.log_likelihood)
