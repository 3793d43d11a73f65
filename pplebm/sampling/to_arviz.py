"""Draws as ArviZ knows them, on its 0.x and 1.x alike."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves
from pplebm.program import Program
from pplebm.sampling.draws import STANDARD_STATS, Draws
from pplebm.sampling.guide_draws import GuideDraws
from pplebm.sampling.on_disk import OnDisk
from pplebm.sampling.predictive import log_likelihood, predictive, spaced

ARVIZ_NAMES = {
    "log_density": "lp", "accept_prob": "acceptance_rate", "is_divergent": "diverging", "num_steps": "n_steps",
}  # fmt: skip
Variables = dict[str, tuple[tuple[str, ...], Any, np.ndarray | None]]  # dimensions, values, numbers of draws


def to_arviz(
    posterior: Draws | None = None,
    prior: Draws | None = None,
    *,
    guide: GuideDraws | None = None,
    n_base: int = 1000,
    n_predictive: int | None = 200,
    seed: int = 0,
) -> Any:
    r"""Put draws into ArviZ's container: InferenceData on 0.x, xarray.DataTree on 1.x.

    Groups: `posterior`, `sample_stats`, `observed_data`, `posterior_predictive`, `log_likelihood`; `prior`,
    `sample_stats_prior`, `prior_predictive`; and `base_prior`, ancestral draws with the tilts ignored, to see what
    the tilt does. The log likelihood holds :math:`\log p(x \mid z)` by datum, tilts left out: they are a factor of
    the prior. `constant_data` holds covariates. The axis of the data is named after the data plate, axes of other
    plates after these, the rest after their site; a plate that is named like a column of text has its levels as
    coordinates. Deterministic sites stand beside the latents.

    Draws of a guide are no posterior and have a group of their own, `guide`, marked as such in its attributes, and
    `guide_stats` with the weights, k-hat and the effective sample size by datum. They are independent and have one
    chain, so that R-hat, which says nothing about them, is not defined.

    Args:
        posterior: of `pplebm.sample` with data.
        prior: of `pplebm.sample` without data, of the same program.
        guide: of `pplebm.sample_guide`, of the same program.
        n_base: draws in `base_prior`; 0 leaves it out.
        n_predictive: draws of each chain in the predictive groups and the log likelihood, evenly spaced; None: all.
        seed: of the base and predictive draws.

    Raises:
        PplebmError: if none is given, or a prior stands in the place of a posterior.

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
        groups |= _of_posterior(posterior, n_predictive, seed)
    if prior is not None:
        groups |= _of_prior(prior, n_predictive, seed)
    one = posterior or prior
    if one is not None and n_base and one.program.tilts and not one.program.reads.fed_latents:
        groups["base_prior"] = _of_base(one, n_base, seed)
    if guide is not None:
        groups |= _of_guide(guide)
        for sentence in guide.verdict:
            warnings.warn(sentence, PplebmWarning, stacklevel=2)
    attributes = {name: _facts(draws) for name, draws in given.items() if draws is not None}
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
        return _named(program, shaped, program.plate or "data")
    given = draws.data if program.has_global_latents else None
    z = program.draw_base(key, n, draws.params, given)
    drawn = program.constrain(draws.params, z, given)
    return _named(program, {name: ppl.to_numpy(a)[None] for name, a in drawn.items()}, None)


def _of_posterior(draws: Draws, n: int | None, seed: int) -> dict[str, Variables]:
    program, plate = draws.program, draws.program.plate or "data"
    axis = plate if draws.has_data_axis else None
    groups = {
        "posterior": _named(program, draws.values, axis),
        "sample_stats": _named(program, _stats(draws), None) | _named(program, _by_datum(draws), axis),
    }
    if program.observed:
        groups["log_likelihood"] = _named(program, log_likelihood(draws, n), plate, spaced(draws, n), pointwise=True)
        groups["posterior_predictive"] = _named(program, _predicted(draws, n, seed), plate, spaced(draws, n))
        given = {name: program.ppl.to_numpy(a) for name, a in program.observed_data(draws.data).items()}
        dims = {name: groups["posterior_predictive"][name][0][2:] for name in given}
        groups["observed_data"] = {name: (dims[name], a, None) for name, a in given.items()}
    constant = _covariates(draws)
    return groups | ({"constant_data": constant} if constant else {})


def _of_prior(draws: Draws, n: int | None, seed: int) -> dict[str, Variables]:
    program = draws.program
    axis = program.plate or "data" if draws.has_data_axis else None
    groups = {
        "prior": _named(program, draws.values, axis),
        "sample_stats_prior": _named(program, _stats(draws), None),
    }
    if program.observed and (draws.data is not None or not program.generator_reads):
        plate = program.plate if program.has_global_latents else axis
        groups["prior_predictive"] = _named(program, _predicted(draws, n, seed), plate, spaced(draws, n))
    return groups


def _predicted(draws: Draws, n: int | None, seed: int) -> dict[str, np.ndarray]:
    """Data of the observed sites; deterministic ones stand in the group of the latents."""
    found = predictive(draws, n, seed)
    return {site.name: found[site.name] for site in draws.program.observed}


def _covariates(draws: Draws) -> Variables:
    """Arrays of the data that are no observed site's value as a whole, ArviZ's constant_data."""
    program, ppl = draws.program, draws.program.ppl
    plate, found = program.plate or "data", Variables()
    for path, a in tree_leaves(draws.data):
        name = program.reads.names.get(path, path)
        if program.reads.parts.get(path, False) or name in {site.name for site in program.observed}:
            continue
        dims = (plate, *(f"{name}_dim_{i}" for i in range(a.ndim - 1)))
        found[name] = (dims, ppl.to_numpy(a), None)
    return found


def _stats(draws: Draws) -> dict[str, np.ndarray]:
    """Statistics for ArviZ's plots, (chains, draws).

    Of all data the sum, but the mean acceptance and step size, any divergence, and the longest trajectory, for which
    the others of a batch wait.
    """
    together: dict[str, Any] = {
        "is_divergent": np.any, "accept_prob": np.mean, "step_size": np.mean, "num_steps": np.max,
    }  # fmt: skip
    found = {}
    for name, a in draws.stats.items():
        if draws.has_data_axis and name in STANDARD_STATS:
            a = together.get(name, np.sum)(a, axis=2)
        if not draws.has_data_axis or name in STANDARD_STATS:
            found[ARVIZ_NAMES.get(name, name)] = a
    return found


def _by_datum(draws: Draws) -> dict[str, np.ndarray]:
    """The same by datum, and the extra fields."""
    if not draws.has_data_axis:
        return {}
    return {f"{ARVIZ_NAMES.get(n, n)}_by_datum" if n in STANDARD_STATS else n: a for n, a in draws.stats.items()}


def _named(
    program: Program,
    arrays: dict[str, np.ndarray],
    axis: str | None,
    at: np.ndarray | None = None,
    pointwise: bool = False,
) -> Variables:
    """Arrays (chain, draw, ...) with names of their dimensions: the data's if it comes first, plates', then by site.

    Args:
        axis: name of the first axis after the draws, if it is the data's.
        at: numbers of the draws, if not all are there.
        pointwise: the arrays are by datum and have no axes of events.
    """
    found = Variables()
    sites = {site.name: site for site in (*program.latents, *program.observed)}
    for name, a in arrays.items():
        site, plates = sites.get(name), tuple[str, ...]()
        if site is not None and not pointwise:
            plates = tuple(p for p in site.plates if p)
            plates = plates if len(plates) == len(site.plates) else ()
        first: tuple[str, ...] = ("chain", "draw")
        is_whole = (
            program.has_global_latents and site is not None and bool(plates)
        )  # the data plate is among the others then
        if axis is not None and a.ndim > 2 and not is_whole:
            first = (*first, axis)
        named = plates[: max(0, a.ndim - len(first))]
        rest = a.ndim - len(first) - len(named)
        found[name] = ((*first, *named, *(f"{name}_dim_{i}" for i in range(rest))), a, at)
    return found


def _dataset(variables: Variables, attributes: dict[str, Any], levels: Mapping[str, Sequence[str]]) -> Any:
    """Variables with coordinates: the levels of a column of text for the plate of its name, numbers otherwise."""
    import xarray

    coordinates: dict[str, Any] = {}
    for dims, a, at in variables.values():
        for d, n in zip(dims, a.shape, strict=True):
            coordinates[d] = np.asarray(levels[d]) if len(levels.get(d, ())) == n else np.arange(n)
        if at is not None:
            coordinates["draw"] = at
    held = {name: a.variable(dims) if isinstance(a, OnDisk) else (dims, a) for name, (dims, a, _) in variables.items()}
    return xarray.Dataset(held, coordinates, attributes)


def _datasets(
    groups: dict[str, Variables], attributes: dict[str, dict[str, Any]], levels: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    library = {
        "inference_library": "pplebm",
        "inference_library_version": importlib.metadata.version("pplebm"),
    }
    return {name: _dataset(a, library | attributes.get(name, {}), levels) for name, a in groups.items()}


def _container(
    groups: dict[str, Variables], attributes: dict[str, dict[str, Any]], levels: Mapping[str, Sequence[str]]
) -> Any:
    arviz, sets = import_arviz(), _datasets(groups, attributes, levels)
    if has_inference_data():
        return arviz.InferenceData(**sets)
    import xarray

    return xarray.DataTree.from_dict(sets)


def streamed_groups(draws: Draws) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Groups of draws as they are written to a file while a run goes on, and where in them the draws are.

    Returns:
        Datasets by group: draws in the supports of the sites and unconstrained, figures of the kernel, the data; and by
        "values", "latents" and "stats" the place of every name, "group/variable".
    """
    kind, plate = "prior" if draws.is_prior else "posterior", draws.program.plate or "data"
    axis, whole = plate if draws.has_data_axis else None, f"unconstrained_{'prior' if draws.is_prior else 'posterior'}"
    figures = "sample_stats_prior" if draws.is_prior else "sample_stats"
    groups = {
        kind: _named(draws.program, draws.values, axis),
        whole: _named(draws.program, draws.latents, axis),
        figures: _named(draws.program, _stats(draws), None) | _named(draws.program, _by_datum(draws), axis),
    }
    if constant := _covariates(draws):
        groups["constant_data"] = constant
    if not draws.is_prior and draws.program.observed:
        observed = {name: draws.program.ppl.to_numpy(a) for name, a in draws.program.observed_data(draws.data).items()}
        as_draws = _named(draws.program, {name: a[None, None] for name, a in observed.items()}, plate)
        groups["observed_data"] = {name: (dims[2:], a[0, 0], None) for name, (dims, a, _) in as_draws.items()}
    called = {n: ARVIZ_NAMES.get(n, n) + "_by_datum" * (draws.has_data_axis and n in STANDARD_STATS)
              for n in draws.stats}  # fmt: skip
    places = {
        "values": {name: f"{kind}/{_in_file(name)}" for name in draws.values},
        "latents": {name: f"{whole}/{_in_file(name)}" for name in draws.latents},
        "stats": {name: f"{figures}/{_in_file(other)}" for name, other in called.items()},
    }
    named = {
        group: {_in_file(name): (tuple(map(_in_file, dims)), a, at) for name, (dims, a, at) in found.items()}
        for group, found in groups.items()
    }
    return _datasets(named, {kind: _facts(draws)}, draws.program.levels), places


def _in_file(name: str) -> str:
    """A slash would open a group."""
    return name.replace("/", ".")


def _facts(draws: Draws) -> dict[str, Any]:
    plan = draws.plan
    facts = {"sampling_time": draws.facts["seconds"], "tuning_steps": plan.n_warmup, "thinning": plan.thin}
    return facts | {"kernel": plan.kernel}


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
    return {"guide": _named(guide.program, guide.values, plate), "guide_stats": stats}


def has_inference_data() -> bool:
    """Whether ArviZ is 0.x."""
    return importlib.metadata.version("arviz").startswith("0.")


def import_arviz() -> Any:
    """ArviZ; 0.x announces 1.x by a warning at its first import of a day, which is no news to users of pplebm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz
