r"""The prior chain of learning followed beyond its end: energies step by step, and what it decodes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.kernel import Kernel
from pplebm.learning.adjusted import AdjustedPool
from pplebm.learning.sources import CHAINS, coordinates_of, fresh_kernel
from pplebm.ppl.language import Key, Latents
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.runs.run import Run
from pplebm.sampling import chains
from pplebm.sampling.importance import effective_size, weighted_mean
from pplebm.sampling.interpolate import energies

STEPS = (0, 60, 100, 250, 500, 1000, 2500)  # the paper shows chains of up to 2500 steps
N_BASE = 2000  # base draws: enough for two digits of an effective sample size
MIN_BASE_ESS = 50  # effective base draws, below which a mean over them says nothing


class LongRun(NamedTuple):
    """Prior chains followed by step; figures are (T, chains), nats, in the coordinates in which the chains move."""

    steps: np.ndarray  # (T,)
    energy: np.ndarray  # -log p̃(z)
    tilt: np.ndarray  # f(z)
    log_base: np.ndarray  # log p₀(z)
    learned: int  # steps of a chain in learning
    strip_steps: np.ndarray  # (S,)
    strip: (
        np.ndarray | None
    )  # (S, shown, *event) decoded means, user units; None where data have no mean, or many sites
    level: tuple[float, float] | None  # energy and tilt under the tilted prior, by reweighting base draws


def long_run(
    run: Run,
    n_steps: int = 2500,
    shown: Sequence[int] | None = None,
    n_chains: int = 64,
    n_shown: int = 6,
    kernel: Kernel | None = None,
    seed: int = 0,
    given: Any = None,
) -> LongRun:
    r"""Run the prior chain of learning for long, and look at its energy, tilt and data on the way.

    .. math:: U(z_k) = -\log \tilde p(z_k) = -\log p_0(z_k) - f(z_k), \qquad k = 0, 1, \dots

    A chain that has arrived has a level energy. One whose energy goes on falling finds places that learning, which
    stopped it early, never saw: what is decoded there shows them. `level` is the mean under the tilted prior itself,
    where draws of the base reach it; unadjusted chains settle a little above it in energy.

    Args:
        run: a model with a tilt, whose page draws from the prior by chains.
        n_steps: how long the chains run.
        shown: steps at which chains are decoded; by default 0, 60, 100, 250, 500, 1000 and 2500 as far as n_steps goes.
            Energies are looked at every so many steps as these and n_steps have for their greatest common divisor.
        n_chains: that are followed.
        n_shown: of them that are decoded.
        kernel: that of learning by default; an adjusted one, such as `pplebm.kernels.mala.mala`, has no bias.
        seed: of the chains.
        given: rows in the user's units, a chain for each, where the model reads covariates.

    Raises:
        PplebmError: for a model without tilt, a page that draws its prior in another way, or steps out of range.

    Source: Cui, Wu, Han (CVPR 2023), long-run chains; Nijkamp, Hill, Zhu, Wu (NeurIPS 2019) for what they tell.

    Example:
        >>> import tempfile, numpy, pplebm
        >>> data = numpy.random.default_rng(0).normal(size=(60, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("conjugate_tilt", data, out=f"{folder}/run", updates=1, hyper={"batch_size": 8})
        ...     found = long_run(run, 20, [0, 10, 20], n_chains=5, n_shown=2)
        >>> found.steps.tolist(), found.energy.shape, found.strip.shape
        ([0, 10, 20], (3, 5), (3, 2, 3))
    """
    steps = [step for step in STEPS if step <= n_steps] if shown is None else list(shown)
    if not steps or not all(isinstance(step, int) and 0 <= step <= n_steps for step in steps):
        raise PplebmError(f"shown must be steps from 0 to n_steps={n_steps}; got {steps}.")
    every = math.gcd(n_steps, *steps)
    data = None if given is None else run.data(given)
    if data is None and (run.program.prior_reads or run.program.generator_reads):
        raise PplebmError(
            f"the model reads the covariates {', '.join(run.program.covariates)}; give given= the rows of its chains."
        )
    return follow(run, n_steps, every, steps, n_chains, n_shown, kernel, seed, data)


def follow(
    run: Run,
    n_steps: int,
    every: int,
    shown: Sequence[int],
    n_chains: int,
    n_shown: int,
    kernel: Kernel | None = None,
    seed: int = 0,
    data: Any = None,
) -> LongRun:
    """What `long_run` does, with a look every so many steps, and rows as the program's arrays in model units."""
    if not run.program.tilts:
        raise PplebmError("The model has no tilt: prior draws are exact, and no chain is needed.")
    source, ppl, params = run.algorithm.source("prior"), run.program.ppl, run.params
    if not isinstance(source, (*CHAINS, AdjustedPool)):
        raise PplebmError("The algorithm does not draw its prior by chains.")
    length = source.n_steps_fresh if isinstance(source, AdjustedPool) else source.n_steps
    moving, step = run.program.with_coordinates(coordinates_of(source)), kernel or fresh_kernel(source, length)
    k_start, k_run, k_base = ppl.split(ppl.key(seed), 3)
    at = data if run.program.prior_reads else None
    rows = at if at is not None else n_chains if data is None else n_rows(data)
    start = chains.start(moving, k_start, params, rows, getattr(source, "init", "normal"))
    state = step.init(ppl, start, moving.log_density(params, at, False))
    _, kept = chains.record(moving, k_run, state, params, at, step, n_steps, every)
    looked = [energies(moving, params, z, at) for z in kept]
    chosen = np.unique(np.asarray(shown) // every)
    few = None if data is None else take_rows(data, slice(0, n_shown))
    strip = [_decoded(run, moving, {k: v[:n_shown] for k, v in kept[i].items()}, few) for i in chosen]
    pictures = [a for a in strip if a is not None]
    is_exact = at is None and (isinstance(source, AdjustedPool) or source.temperature == 1.0)
    return LongRun(
        every * np.arange(len(kept)),
        np.stack([e.energy for e in looked]),
        np.stack([e.tilt for e in looked]),
        np.stack([e.log_base for e in looked]),
        length,
        every * chosen,
        np.stack(pictures) if pictures else None,
        _level(run, moving, k_base) if is_exact else None,
    )


def _level(run: Run, moving: Program, key: Key) -> tuple[float, float] | None:
    """Mean energy and tilt under the tilted prior, by weighted draws of the base; None where these do not reach it."""
    base = energies(moving, run.params, moving.draw_base(key, N_BASE, run.params))
    if effective_size(base.tilt) <= MIN_BASE_ESS:
        return None
    return weighted_mean(base.energy, base.tilt).mean, weighted_mean(base.tilt, base.tilt).mean


def _decoded(run: Run, moving: Program, z: Latents, data: Any = None) -> np.ndarray | None:
    if len(moving.observed) != 1:
        return None
    try:
        (name, mean), *_ = moving.predict(run.params, z, data=data).items()
    except PplebmError:  # the observed distribution has no mean
        return None
    return run.site_to_user(name, moving.ppl.to_numpy(mean))
