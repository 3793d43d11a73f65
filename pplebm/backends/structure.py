"""The sites of one run of a model, sorted into latents, observations, tilts and the rest, for every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.ppl.language import Site, Structure

SiteDict = dict[str, Any]
SUPPORTS = ("real", "positive", "nonnegative", "unit_interval", "simplex", "real_vector", "boolean")


class BackendSites(NamedTuple):
    """What a backend knows of its distributions and arrays."""

    name: str  # as it stands in a statement: "pyro" or "numpyro"
    unwrap: Callable[[Any], Any]  # the distribution inside Independent and the like
    has_noncentered: Callable[[Any], bool]
    is_discrete: Callable[[Any], bool]
    is_deterministic: Callable[[SiteDict], bool]  # recomputed at every run, whatever its statement says
    support_name: Callable[[Any], str]
    unconstrained: Callable[[Any, Any], Any]  # of a distribution and a value
    all_finite: Callable[[Any], bool]
    has_mask: Callable[[SiteDict], bool]


def plates_of(site: SiteDict) -> dict[str, Any]:
    """Vectorised plates around a site, by name."""
    return {f.name: f for f in site["cond_indep_stack"] if f.dim is not None}


def row_axis(n_dims: int, site: SiteDict, plate: str) -> int:
    """Which axis of a site's value, of n_dims axes, is the data's."""
    return n_dims - site["fn"].event_dim + plates_of(site)[plate].dim


def coordinate_axis(site: SiteDict, plate: str) -> int:
    """The same of its unconstrained coordinates, whose event may have another number of axes than the value's."""
    return len(site["fn"].batch_shape) + plates_of(site)[plate].dim


def support_name(support: Any, constraints: Any) -> str:
    """Short name of a support, as the backend's module of constraints calls it; bounds that are arrays are left out."""
    for name in SUPPORTS:
        if support is getattr(constraints, name):
            return name
    if hasattr(support, "base_constraint"):
        return support_name(support.base_constraint, constraints)
    name = type(support).__name__.strip("_").lower()
    numbers = [f"{key}={value}" for key, value in vars(support).items() if isinstance(value, (int, float))]
    return f"{name}({', '.join(numbers)})" if numbers else name


def structure_of(
    sites: list[SiteDict], full_sizes: dict[str, int], batch: int, wanted_plate: str | None, backend: BackendSites
) -> Structure:
    """Sort sample statements, and refuse what cannot be handled, by name.

    Args:
        sites: sample and deterministic statements in program order, without subsampling.
        full_sizes: sizes of subsampled plates.
        batch: number of data in the run.
        wanted_plate: name of the data plate, if the user gave one.
        backend: its knowledge of its distributions.
    """
    fixed = [site for site in sites if backend.is_deterministic(site)]
    sites = [site for site in sites if not any(site is other for other in fixed)]
    given = given_of(sites, backend)
    sites = [site | {"is_observed": False} if site["name"] in given else site for site in sites]
    is_global = any(not site["is_observed"] and not plates_of(site) for site in sites)
    for site in sites:
        if not site["is_observed"] and backend.is_discrete(site["fn"]):
            raise PplebmError(
                f"latent site '{site['name']}' ({type(site['fn']).__name__}) is discrete; Langevin and HMC need "
                f"continuous latents: marginalise it, or observe it."
            )
    plate = find_plate(sites, full_sizes, batch, wanted_plate, backend, is_global)
    has_global_latents = any(not site["is_observed"] and plate not in plates_of(site) for site in sites)
    latents, observed, tilts, factors, has_noncentered, bounds = [], [], [], [], {}, {}
    for site in sites:
        name, fn, infer = site["name"], site["fn"], site["infer"] or {}
        if infer.get("is_tilt"):
            check_tilt(site, plate, backend, has_global_latents)
            tilts.append(Site(name, (), "", "tilt", True))
            if infer["bound"] is not None:
                bounds[name] = float(infer["bound"])
        elif infer.get("is_auxiliary"):
            check_factor(site, plate, backend, has_global_latents)
            kind = "likelihood factor" if infer.get("is_likelihood") else "factor"
            factors.append(Site(name, (), "", kind, plate in plates_of(site)))
        elif site["is_observed"]:
            if plate not in plates_of(site) and not has_global_latents:
                raise PplebmError(f"observed site '{name}' stands outside the data plate '{plate}'; move it inside.")
            observed.append(describe(site, site["value"], plate, backend, has_global_latents))
        else:
            has_noncentered[name] = backend.has_noncentered(fn)
            latents.append(describe(site, backend.unconstrained(fn, site["value"]), plate, backend, has_global_latents))
    if not latents:
        raise PplebmError(f"the program has no latent site; write {backend.name}.sample('z', ...) without obs for one.")
    deterministic = tuple(Site(s["name"], tuple(s["value"].shape), "", "deterministic", True) for s in fixed)
    return Structure(
        plate,
        tuple(latents),
        tuple(observed),
        tuple(tilts),
        has_noncentered,
        bounds,
        tuple(factors),
        deterministic,
        given,
    )


def given_of(sites: list[SiteDict], backend: BackendSites) -> tuple[str, ...]:
    """Names of the observed sites of a tilted program that has no other: these are tilted, and data are their values.

    Raises:
        PplebmError: if one of them is masked or discrete, so that chains of the prior cannot move it.
    """
    infer = lambda site: site["infer"] or {}
    stated = [site for site in sites if not infer(site).get("is_tilt")]
    if len(stated) == len(sites) or any(not s["is_observed"] or infer(s).get("is_auxiliary") for s in stated):
        return ()
    for site in stated:
        if backend.has_mask(site) or backend.is_discrete(site["fn"]):
            what = "is masked" if backend.has_mask(site) else f"({type(site['fn']).__name__}) is discrete"
            raise PplebmError(
                f"observed site '{site['name']}' {what}, but no latent is there for the tilt to stand on, so that "
                f"chains have to move its value: sample a continuous latent that it depends on."
            )
    return tuple(site["name"] for site in stated)


def find_plate(
    sites: list[SiteDict],
    full_sizes: dict[str, int],
    batch: int,
    wanted: str | None,
    backend: BackendSites,
    is_global: bool,
) -> str:
    """Name of the data plate: the one asked for, the only one, or the one named "data".

    A program with a latent outside all plates needs none: its whole data are one datum, and the name is "".
    """
    frames = {name: frame for site in sites for name, frame in plates_of(site).items()}
    if wanted is None:
        wanted = next(iter(frames)) if len(frames) == 1 else "data"
        if is_global and (wanted not in frames or full_sizes.get(wanted, frames[wanted].size) != batch):
            return ""
    if wanted not in frames:
        found = ", ".join(f"'{n}'" for n in frames) or "none"
        raise PplebmError(
            f"no data plate: plates found: {found}; put per-datum sites inside "
            f"`with {backend.name}.plate('data', len(x)):` or name the data plate with Program(model, plate=...)."
        )
    size = full_sizes.get(wanted, frames[wanted].size)
    if size != batch:
        raise PplebmError(
            f"plate '{wanted}' has size {size} on a batch of {batch} data; write "
            f"{backend.name}.plate('{wanted}', len(x)) without subsampling, pplebm passes the mini-batches itself."
        )
    return wanted


def check_tilt(site: SiteDict, plate: str, backend: BackendSites, has_global_latents: bool) -> None:
    """Refuse tilts that are not one finite number per datum, or per chain of a program with global latents."""
    name, frames = site["name"], plates_of(site)
    if plate not in frames and not has_global_latents:
        raise PplebmError(
            f"tilt '{name}' stands outside the data plate '{plate}'; move it inside, one value per datum, shape (B,)."
        )
    expected = [1] * max((-f.dim for f in frames.values()), default=0)
    for frame in frames.values():
        expected[frame.dim] = frame.size
    got = tuple(site["infer"]["tilt_shape"])
    if got != tuple(expected):
        raise PplebmError(
            f"tilt '{name}' returned shape {got}; expected {tuple(expected)}, one value per datum of plate '{plate}'. "
            f"Sum over event axes only, and squeeze the last axis of a net that ends in one unit."
        )
    if not backend.all_finite(backend.unwrap(site["fn"]).log_factor):
        raise PplebmError(
            f"tilt '{name}' is not finite at draws of the base; keep its argument in its domain, or bound it with "
            f"tilt('{name}', ..., bound=8.0)."
        )


def check_factor(site: SiteDict, plate: str, backend: BackendSites, has_global_latents: bool) -> None:
    """Refuse a factor that belongs to no datum."""
    if plate not in plates_of(site) and not has_global_latents:
        raise PplebmError(
            f"factor '{site['name']}' stands outside the data plate '{plate}'; move it inside, one value per datum."
        )


def refuse_bare_factor(name: str, backend: str) -> PplebmError:
    """For a factor of which nobody can tell whether it belongs to the prior or to the likelihood."""
    return PplebmError(
        f"site '{name}' is a {backend}.factor that reads no data, so it may belong to the prior or to the likelihood; "
        f"write tilt('{name}', ...) for a factor of the prior, likelihood_factor('{name}', ...) for one of the "
        f"likelihood."
    )


def describe(site: SiteDict, value: Any, plate: str, backend: BackendSites, has_global_latents: bool) -> Site:
    """Name, shape, support and distribution of a site; the shape is per datum, or of all data in a joint program."""
    frames, shape = plates_of(site), list(value.shape)
    local = plate in frames
    names = [""] * max(len(site["fn"].batch_shape), *(-f.dim for f in frames.values()), 0)
    for name, frame in frames.items():
        names[frame.dim] = name
    if local and not has_global_latents:
        at = row_axis(value.ndim, site, plate) if site["is_observed"] else coordinate_axis(site, plate)
        del shape[at]
        del names[frames[plate].dim]
    fn = backend.unwrap(site["fn"])
    return Site(site["name"], tuple(shape), backend.support_name(fn.support), type(fn).__name__, local, tuple(names))


def weighed(
    terms: dict[str, Any], structure: Structure, tilt_strength: Any = None, likelihood_strength: Any = None
) -> Any:
    """Sum of the log densities of all sites, (B,): tilts, and observed sites and factors, times a strength if given.

    Args:
        terms: by site.
        structure: of the program, which tells their kinds.
        tilt_strength, likelihood_strength: a number, or one per row.
    """
    strengths = {site.name: tilt_strength for site in structure.tilts}
    strengths |= {site.name: likelihood_strength for site in (*structure.observed, *structure.factors)}
    parts = [term if strengths.get(name) is None else strengths[name] * term for name, term in terms.items()]
    return sum(parts[1:], parts[0])


def all_there(wanted: Iterable[str], found: Mapping[str, Any]) -> list[str]:
    """Names of a program's parameters, all of which are found.

    Raises:
        PplebmError: naming those that are not.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        raise PplebmError(
            f"the program's parameters {', '.join(missing)} are not among those given, {', '.join(found) or 'none'}; "
            f"give the model that the program was made of."
        )
    return list(wanted)


def by_row(a: Any, site: SiteDict, plate: str) -> tuple[Any, Any]:
    """Numbers of a site's batch shape as one per row of the data, and whether every row had a single one."""
    front = a.swapaxes(0, plates_of(site)[plate].dim)
    rows = front.reshape(len(front), -1)
    return rows[:, 0], rows.shape[1] == 1 or (rows == rows[:, :1]).all()


def check_by_row(is_single: Any, site: str, plate: str) -> None:
    """Refuse weights that differ within a row of the data."""
    if not is_single:
        raise PplebmError(
            f"scales or masks differ within a datum of site '{site}'; scale or mask whole data, one number per row of "
            f"plate '{plate}'."
        )
