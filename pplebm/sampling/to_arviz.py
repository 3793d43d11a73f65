"""Draws as ArviZ knows them, on its 0.x and 1.x alike."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.sampling.draws import Draws
from pplebm.sampling.guide_draws import GuideDraws
from pplebm.sampling.labelled import Variables, covariates, datasets, facts_of, named, stats_by_datum, stats_of
from pplebm.sampling.likelihoods import CONDITIONAL, CONDITIONAL_FACTS, likelihoods
from pplebm.sampling.predictive import predictive, spaced


def to_arviz(
    posterior: Draws | None = None,
    prior: Draws | None = None,
    *,
    guide: GuideDraws | None = None,
    evidence: Any = None,
    n_base: int = 1000,
    n_predictive: int | None = 200,
    seed: int = 0,
) -> Any:
    r"""Put draws into ArviZ's container: InferenceData on 0.x, xarray.DataTree on 1.x.

    Groups: `posterior`, `sample_stats`, `observed_data`, `posterior_predictive`; `prior`, `sample_stats_prior`,
    `prior_predictive`; and `base_prior`, ancestral draws with the tilts ignored, to see what the tilt does.

    `log_likelihood` is what ArviZ leaves data out by. Of a program whose latents all stand outside the data plate, such
    as a regression, it holds :math:`\log p(x_i \mid z)` by datum, tilts left out: they are a factor of the prior. Where
    latents stand in the plate, :math:`\log p(x_i \mid z_i)` at latents that were fitted to that very datum says little
    about data that were left out, and stands as `conditional_log_likelihood`, which ArviZ does not look at. With
    `evidence` given, `log_likelihood` holds the integrated :math:`\log p(x_i)`, the same for every draw, and the group
    `evidence` its errors; without, there is none. `arviz.loo` then gives the sum of log p(x), but ArviZ 0.x finds no
    Pareto tail in weights that are all equal and warns; `pplebm.calibration.compare` gives its table without.

    `constant_data` holds covariates. The axis of the data is named after the data plate, axes of other
    plates after these, the rest after their site; a plate that is named like a column of text has its levels as
    coordinates. Deterministic sites stand beside the latents.

    Draws of a guide are no posterior and have a group of their own, `guide`, marked as such in its attributes, and
    `guide_stats` with the weights, k-hat and the effective sample size by datum. They are independent and have one
    chain, so that R-hat, which says nothing about them, is not defined.

    Args:
        posterior: of `pplebm.sample` with data.
        prior: of `pplebm.sample` without data, of the same program.
        guide: of `pplebm.sample_guide`, of the same program.
        evidence: of `pplebm.log_evidence` at the data of the posterior, where latents stand in the data plate.
        n_base: draws in `base_prior`; 0 leaves it out.
        n_predictive: draws of each chain in the predictive groups and the log likelihood, evenly spaced; None: all.
        seed: of the base and predictive draws.

    Raises:
        PplebmError: if none is given, a prior stands in the place of a posterior, or evidence is not by datum.

    Warns:
        PplebmWarning: where k-hat says that the guide misses parts of the posterior.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> prior = pplebm.sample(program, n_chains=2, n_draws=50, n_warmup=100)
        >>> tree = to_arviz(prior=prior)
        >>> tree.prior["z1"].dims, tree.prior["z1"].shape
        (('chain', 'draw', 'z1_dim_0'), (2, 50, 3))
    """
    given = {"posterior": posterior, "prior": prior}
    if posterior is None and prior is None and guide is None:
        raise PplebmError("give to_arviz(posterior=...), to_arviz(prior=...) or to_arviz(guide=...), or several.")
    for name, draws in given.items():
        if draws is not None and draws.is_prior != (name == "prior"):
            raise PplebmError(
                f"draws with data are no {name}." if name == "prior" else "draws without data are a prior."
            )
    groups: dict[str, Variables] = {}
    if posterior is not None:
        groups |= _of_posterior(posterior, n_predictive, seed, evidence)
    if prior is not None:
        groups |= _of_prior(prior, n_predictive, seed)
    one = posterior or prior
    if one is not None and n_base and one.program.tilts and not one.program.reads.fed_latents:
        groups["base_prior"] = _of_base(one, n_base, seed)
    if guide is not None:
        groups |= _of_guide(guide)
        for sentence in guide.verdict:
            warnings.warn(sentence, PplebmWarning, stacklevel=2)
    attributes = {name: facts_of(draws) for name, draws in given.items() if draws is not None}
    attributes |= {CONDITIONAL: CONDITIONAL_FACTS}
    attributes |= {} if guide is None else {name: _guide_facts(guide) for name in ("guide", "guide_stats")}
    known = one or guide
    assert known is not None
    return _container(groups, attributes, known.program.levels)


def _of_base(draws: Draws, n: int, seed: int) -> Variables:
    """Ancestral draws, of every row where the prior reads covariates."""
    program, ppl = draws.program, draws.program.ppl
    key = ppl.key(seed)
    if program.prior_reads and not program.has_global_latents:
        rows = n_rows(draws.data)
        index = ppl.asarray(np.tile(np.arange(rows), n))
        data = take_rows(draws.data, index)
        drawn = program.constrain(draws.params, program.draw_base(key, data, draws.params), data)
        shaped = {name: ppl.to_numpy(a).reshape(1, n, rows, *a.shape[1:]) for name, a in drawn.items()}
        return named(program, shaped, program.plate or "data")
    given = draws.data if program.has_global_latents else None
    z = program.draw_base(key, n, draws.params, given)
    drawn = program.constrain(draws.params, z, given)
    return named(program, {name: ppl.to_numpy(a)[None] for name, a in drawn.items()}, None)


def _of_posterior(draws: Draws, n: int | None, seed: int, evidence: Any) -> dict[str, Variables]:
    program, plate = draws.program, draws.program.plate or "data"
    axis = plate if draws.has_data_axis else None
    groups = {
        "posterior": named(program, draws.values, axis),
        "sample_stats": named(program, stats_of(draws), None) | named(program, stats_by_datum(draws), axis),
    }
    if program.observed:
        groups |= likelihoods(draws, n, evidence)
        groups["posterior_predictive"] = named(program, _predicted(draws, n, seed), plate, spaced(draws, n))
        given = {name: program.ppl.to_numpy(a) for name, a in program.observed_data(draws.data).items()}
        dims = {name: groups["posterior_predictive"][name][0][2:] for name in given}
        groups["observed_data"] = {name: (dims[name], a, None) for name, a in given.items()}
    constant = covariates(draws)
    return groups | ({"constant_data": constant} if constant else {})


def _of_prior(draws: Draws, n: int | None, seed: int) -> dict[str, Variables]:
    program = draws.program
    axis = program.plate or "data" if draws.has_data_axis else None
    groups = {
        "prior": named(program, draws.values, axis),
        "sample_stats_prior": named(program, stats_of(draws), None),
    }
    if program.observed and (draws.data is not None or not program.generator_reads):
        plate = program.plate if program.has_global_latents else axis
        groups["prior_predictive"] = named(program, _predicted(draws, n, seed), plate, spaced(draws, n))
    return groups


def _predicted(draws: Draws, n: int | None, seed: int) -> dict[str, np.ndarray]:
    """Data of the observed sites; deterministic ones stand in the group of the latents."""
    found = predictive(draws, n, seed)
    return {site.name: found[site.name] for site in draws.program.observed}


def _container(
    groups: dict[str, Variables], attributes: dict[str, dict[str, Any]], levels: Mapping[str, Sequence[str]]
) -> Any:
    arviz, sets = import_arviz(), datasets(groups, attributes, levels)
    if has_inference_data():
        return arviz.InferenceData(**sets)
    import xarray

    return xarray.DataTree.from_dict(sets)


def _guide_facts(guide: GuideDraws) -> dict[str, Any]:
    return {
        "inference_method": "guide",
        "meaning": "independent draws of q(z|x), not of the posterior; see k_hat in guide_stats, R-hat says nothing",
        "verdict": " ".join(guide.verdict) or "k-hat is good at all data",
    }


def _of_guide(guide: GuideDraws) -> dict[str, Variables]:
    plate = guide.program.plate or "data"
    stats: Variables = {"log_weight": (("chain", "draw", plate), guide.log_weights, None)}
    stats |= {name: ((plate,), a, None) for name, a in (("k_hat", guide.k_hat), ("ess", guide.ess))}
    return {"guide": named(guide.program, guide.values, plate), "guide_stats": stats}


def has_inference_data() -> bool:
    """Whether ArviZ is 0.x."""
    return importlib.metadata.version("arviz").startswith("0.")


def import_arviz() -> Any:
    """ArviZ; 0.x announces 1.x by a warning at its first import of a day, which is no news to users of pplebm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz
