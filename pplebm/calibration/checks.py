r"""Data against data that a program replicates: predictive checks, and where data lie among predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pplebm.calibration.quantities import Quantity
from pplebm.errors import PplebmError
from pplebm.sampling.draws import Draws
from pplebm.sampling.predictive import predictive


class Check(NamedTuple):
    """A statistic T of data, and of data replicated."""

    observed: np.ndarray  # (data,)
    replicated: np.ndarray  # (draws, data)
    by_datum: np.ndarray  # (data,) share of T(x̃) ≥ T(x), ties counted half
    overall: float  # the same of the mean of T over the data


def predictive_checks(
    draws: Draws, statistics: Mapping[str, Quantity], data: Any = None, *, n: int | None = 200, seed: int = 0
) -> dict[str, Check]:
    r"""Compare statistics of data with those of data that the program replicates, :math:`P(T(\tilde x) \ge T(x))`.

    Replications given draws of a posterior have seen the data: their p-values gather about 1/2 also where the program
    is right, most of all by datum where each has latents of its own. Those given draws of the prior have not, and are
    uniform by datum if the program is right; a tilted prior gives them through its chains.

    Args:
        draws: of a posterior, or of a prior.
        statistics: functions by name, of values by observed site (rows, *event) to one number per row.
        data: to be checked; those of the draws if left out, which those of a prior without covariates lack.
        n: draws of each chain; None for all.
        seed: of the replications.

    Returns:
        By name of the statistic. The rows of a prior that reads no covariates are replicated in sets as large as data.

    Raises:
        PplebmError: for data that are missing, of another number of rows, or statistics of another shape.

    Source: Gelman, Meng, Stern (Statistica Sinica 1996).

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> draws = pplebm.sample(program, data=torch.zeros(5, 3), n_chains=2, n_draws=20, n_warmup=100)
        >>> found = predictive_checks(draws, {"largest": lambda values: values["x"].max(-1)})["largest"]
        >>> found.by_datum.shape, 0 <= found.overall <= 1
        ((5,), True)
    """
    program = draws.program
    if draws.data is None and data is None:
        raise PplebmError("draws of a prior have no data; give data= to check.")
    x = draws.data if data is None else program.data(data)
    given = None if data is None or not (draws.has_data_axis or program.has_global_latents) else data
    seen = {name: program.ppl.to_numpy(a) for name, a in program.observed_data(x).items()}
    made = predictive(draws, n, seed, data=given)
    n_rows = len(next(iter(seen.values())))
    copies = {name: _sets(made[name], n_rows, draws) for name in seen}
    found = {}
    for name, statistic in statistics.items():
        observed = _value(name, statistic, seen, n_rows)
        flat = {site: a.reshape(-1, *a.shape[2:]) for site, a in copies.items()}
        replicated = _value(name, statistic, flat, len(next(iter(flat.values())))).reshape(-1, n_rows)
        by_datum = _share(replicated, observed)
        found[name] = Check(observed, replicated, by_datum, float(_share(replicated.mean(1), observed.mean())))
    return found


def leave_one_out_pit(prior: Draws, data: Any, *, n: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    r"""Where every number of data lies in its prediction from all other data, :math:`P(\tilde x_i \le x_i)`.

    Where every datum has latents of its own and parameters are given, other data tell nothing about it: the prediction
    without it is that of the tilted prior, and its integral transform is uniform if the program is right. Of posterior
    draws `arviz.loo_pit` would look at latents that were fitted to the datum; with data as `y`, those of
    `pplebm.predictive(prior)` as `y_hat` (data, draws), and equal `log_weights` it gives these numbers, and
    `arviz.plot_loo_pit` their picture.

    Args:
        prior: of `pplebm.sample_prior`; at the rows of the data where the prior or the generator reads covariates.
        data: as for `pplebm.sample`.
        n: draws of each chain; None for all.
        seed: of the predictions.

    Returns:
        By observed site (data, *event), in [0, 1], ties counted half.

    Raises:
        PplebmError: for draws of a posterior, or global latents, which other data do tell about.
    """
    if not prior.is_prior:
        raise PplebmError("draws of a posterior have seen the datum they predict; give draws of the prior.")
    program = prior.program
    if program.has_global_latents:
        raise PplebmError("other data tell about global latents; use arviz.loo_pit on to_arviz(posterior).")
    seen = program.observed_data(program.data(data))
    made = predictive(prior, n, seed, data=data if prior.has_data_axis else None)
    found = {}
    for name, a in seen.items():
        x, copies = program.ppl.to_numpy(a), made[name]
        flat = copies.reshape(-1, *copies.shape[2:])
        flat = flat if prior.has_data_axis else flat[:, None]
        found[name] = 1.0 - _share(flat, x)
    return found


def _sets(made: np.ndarray, n_rows: int, draws: Draws) -> np.ndarray:
    """Replicated data (draws, data, *event); rows of a prior without data axis in sets as large as the data."""
    if draws.has_data_axis or draws.program.has_global_latents:
        flat = made.reshape(-1, *made.shape[2:])
        if flat.shape[1] != n_rows:
            raise PplebmError(
                f"draws at {flat.shape[1]} rows replicate no {n_rows} data; give those that were sampled."
            )
        return flat
    flat = made.swapaxes(0, 1).reshape(-1, *made.shape[2:])  # sets of rows from different chains
    n_sets = len(flat) // n_rows
    if not n_sets:
        raise PplebmError(
            f"{len(flat)} draws of the prior replicate no set of {n_rows} data; draw more, or take n=None."
        )
    return flat[: n_sets * n_rows].reshape(n_sets, n_rows, *flat.shape[1:])


def _value(name: str, statistic: Quantity, values: dict[str, np.ndarray], n: int) -> np.ndarray:
    a = np.asarray(statistic(values), float)
    if a.shape != (n,):
        raise PplebmError(f"statistic '{name}' has shape {a.shape} for {n} rows; return one number per row.")
    return a


def _share(replicated: np.ndarray, observed: Any) -> Any:
    return (replicated > observed).mean(0) + 0.5 * (replicated == observed).mean(0)
