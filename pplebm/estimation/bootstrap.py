"""Likelihood-ratio tests by the parametric bootstrap, valid where chi-square is not: tilts that are networks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pplebm.errors import PplebmError
from pplebm.estimation.ratio import statistic_of
from pplebm.evidence.estimate import Evidence
from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import n_rows, tree_leaves
from pplebm.program import Program
from pplebm.sampling.blocks import batch_seed

Refit = Callable[[Data, int], tuple[Evidence, Evidence]]


class BootstrapRatio(NamedTuple):
    """A likelihood ratio beside those of data simulated from the smaller model."""

    statistic: float
    error: float  # Monte Carlo standard error of it; the others have such an error too, so that p holds with it
    simulated: np.ndarray  # (B,), statistics of the simulated data
    p_value: float

    def __str__(self) -> str:
        return (
            f"likelihood ratio {self.statistic:.4g} ± {self.error:.2g}; {len(self.simulated)} data sets simulated from "
            f"the smaller model have {np.median(self.simulated):.3g} in the middle, p = {self.p_value:.3g}."
        )


def bootstrap_ratio(
    smaller: Program,
    data: Any,
    refit: Refit,
    *,
    params: Params | None = None,
    n_replications: int = 99,
    seed: int = 0,
    simulate: Callable[[int], Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> BootstrapRatio:
    r"""Test a smaller model within a larger one by data simulated from the smaller one, both refitted to each.

    .. math:: p = \frac{1 + \#\{b : T_b \ge T\}}{B + 1}

    Nothing is asked of the larger model: its parameters may be those of a network, at an end of their range, or
    undetermined under the smaller one. The same imperfect learning and the same Monte Carlo error are in T and in every
    :math:`T_b`; they cost power, and leave p right up to how near the fitted smaller model is to the true one.

    Args:
        smaller: a program without tilts, such as the untilted twin, at its maximum-likelihood estimates.
        data: that are tested, as in `pplebm.sample`.
        refit: of data and a seed to the evidence of the larger and of the smaller model, each after learning from these
            data; the way must be the same for all data.
        params: of the smaller program where they are not to be its own.
        n_replications: B.
        seed: of simulation and learning; that of learning is another one for every data set.
        simulate: of a seed to data of the smaller model, where it has tilts itself.
        out: a .json file that takes every statistic as soon as it is there; the same call goes on with it after an
            interruption.
        progress: show a bar; by default if the output is a terminal.

    Raises:
        PplebmError: for a smaller model with tilts and no `simulate`, or a file of another call.

    Source: Davison, Hinkley, Bootstrap Methods and their Application (1997), section 4.2.

    Example:
        >>> import numpy as np, torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0., 1.)), 1.), obs=x)
        >>> def refit(x, seed):  # x ~ N(m, 2), against m = 0
        ...     at = lambda m: Evidence.of("exact", -0.25 * (np.asarray(x) - m) ** 2, 0.0 * np.asarray(x))
        ...     return at(np.mean(np.asarray(x))), at(0.0)
        >>> x = torch.full((20,), 2.0)
        >>> float(bootstrap_ratio(pplebm.Program(model, data=x), x, refit, n_replications=19).p_value)
        0.05
    """
    if not isinstance(n_replications, int) or n_replications < 1:
        raise PplebmError(f"n_replications must be an integer from 1 on, got {n_replications!r}.")
    if smaller.tilts and simulate is None:
        raise PplebmError(
            f"the smaller model has the tilt '{smaller.tilts[0].name}', which forward simulation ignores; give "
            f"simulate=, of a seed to data drawn from it."
        )
    params = smaller.params if params is None else dict(params)
    x = smaller.data(data)
    told = _checksum(smaller, params, x, seed)
    done = _read(out, told)
    draw = simulate or (lambda seed: simulated(smaller, params, x, seed))
    with tqdm(total=n_replications + 1, initial=len(done), desc="bootstrap", unit="fit",
              disable=None if progress is None else not progress) as bar:  # fmt: skip
        for b in range(len(done), n_replications + 1):  # the data themselves are the first
            own = batch_seed(seed, 2 * b + 1)
            done.append(statistic_of(*refit(x if b == 0 else draw(batch_seed(seed, 2 * b + 2)), own)))
            _write(out, told, done)
            bar.update()
    (statistic, error), others = done[0], np.array([value for value, _ in done[1 : n_replications + 1]])
    p_value = (1 + int((others >= statistic).sum())) / (n_replications + 1)
    return BootstrapRatio(statistic, error, others, p_value)


def simulated(program: Program, params: Params, data: Data, seed: int) -> Data:
    """Data of a program without tilts, as many as there are and at their covariates."""
    ppl = program.ppl
    if not program.has_global_latents:
        at = data if program.prior_reads or program.generator_reads or program.covariates else n_rows(data)
        return program.with_observed(program.simulate(ppl.key(seed), at, params), data)
    of_latents, of_data = ppl.split(ppl.key(seed))
    found = program.predict(params, program.draw_base(of_latents, 1, params, data), of_data, data)
    return program.with_observed({site: a[0] for site, a in found.items()}, data)


def _checksum(program: Program, params: Params, x: Data, seed: int) -> str:
    found = hashlib.sha256(f"{program!r} {seed}".encode())
    for name, a in [*sorted(params.items()), *tree_leaves(x)]:
        array = np.ascontiguousarray(program.ppl.to_numpy(a))
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


def _read(out: str | Path | None, told: str) -> list[tuple[float, float]]:
    if out is None or not Path(out).exists():
        return []
    try:
        kept = json.loads(Path(out).read_text())
        of, statistics = kept["of"], [(float(value), float(error)) for value, error in kept["statistics"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PplebmError(f"'{out}' holds no statistics of pplebm.bootstrap_ratio; give another file.") from error
    if of != told:
        raise PplebmError(f"'{out}' belongs to other data, parameters or another seed; give another file.")
    return statistics


def _write(out: str | Path | None, told: str, done: list[tuple[float, float]]) -> None:
    if out is None:
        return
    partial = Path(f"{out}.partial")
    partial.write_text(json.dumps({"of": told, "statistics": done}))
    os.replace(partial, out)
