"""A Pyro program seen from outside: its sites, plate, tilts and parameters, found by running it once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro.poutine.util import site_is_subsample
from torch.distributions import constraints
from torch.overrides import TorchFunctionMode

from pplebm.errors import PplebmError
from pplebm.ppl import Site, Structure

_REQUIRES_GRAD = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]
_CALL_HINT = "pplebm calls the model with one argument, a batch of data of shape (B, ...)."


class Substitute(TorchFunctionMode):
    """Let given tensors stand in for a program's parameters wherever torch meets them.

    Substitution by identity reaches modules in closures, parameter stores and PyroModules alike.
    """

    def __init__(self, replacements: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.replacements = replacements

    def _swap(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor):
            return self.replacements.get(id(a), a)
        if type(a) in (list, tuple):
            return type(a)(self._swap(v) for v in a)
        return a

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _REQUIRES_GRAD:  # pyro.module asks the module's own tensor, not its stand-in
            return func(*args)
        kwargs = {k: self._swap(v) for k, v in (kwargs or {}).items()}
        return func(*self._swap(tuple(args)), **kwargs)


@contextlib.contextmanager
def seeded(key: int) -> Iterator[None]:
    """Torch's global generator, on which Pyro draws, seeded for a while and then as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key % 2**63)
        yield


def call(model: Any, x: torch.Tensor) -> Any:
    """Run the user's model; what goes wrong in it is told as theirs, with the batch it was given."""
    try:
        return model(x)
    except PplebmError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise PplebmError(f"the model failed on a batch of shape {tuple(x.shape)}: {what} ({_CALL_HINT})") from error


def plates_of(site: dict[str, Any]) -> dict[str, Any]:
    """Vectorised plates around a site, by name."""
    return {f.name: f for f in site["cond_indep_stack"] if f.vectorized}


def sample_sites(trace: Any) -> list[dict[str, Any]]:
    """Sample statements in program order, without deterministic ones."""
    return [
        site
        for site in trace.nodes.values()
        if site["type"] == "sample" and not site["infer"].get("_deterministic") and not site_is_subsample(site)
    ]


def find_plate(sites: list[dict[str, Any]], full_sizes: dict[str, int], batch: int, wanted: str | None) -> str:
    """Name of the data plate: the one asked for, the only one, or the one named "data"."""
    frames = {name: frame for site in sites for name, frame in plates_of(site).items()}
    if wanted is None:
        wanted = next(iter(frames)) if len(frames) == 1 else "data"
    if wanted not in frames:
        found = ", ".join(f"'{n}'" for n in frames) or "none"
        raise PplebmError(
            f"no data plate: plates found: {found}; put per-datum sites inside `with pyro.plate('data', len(x)):` "
            f"or name the data plate with Program(model, plate=...)."
        )
    size = full_sizes.get(wanted, frames[wanted].size)
    if size != batch:
        raise PplebmError(
            f"plate '{wanted}' has size {size} on a batch of {batch} data; write "
            f"pyro.plate('{wanted}', len(x)) without subsampling, pplebm passes the mini-batches itself."
        )
    return wanted


def noise_scale(fn: Any) -> Any | None:
    """The Normal or MultivariateNormal inside a distribution, if its noise coordinates are known."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    normal = (torch.distributions.Normal, torch.distributions.MultivariateNormal)
    return fn if isinstance(fn, normal) else None


def check_latent(site: dict[str, Any]) -> None:
    """Refuse what gradients cannot reach."""
    name, fn = site["name"], site["fn"]
    if fn.support.is_discrete:
        raise PplebmError(
            f"latent site '{name}' ({type(fn).__name__}) is discrete; Langevin and HMC need continuous latents: "
            f"marginalise it, or observe it."
        )
    if not fn.has_rsample and fn.support is constraints.dependent:
        raise PplebmError(f"latent site '{name}' has no support that can be mapped to real coordinates.")


def check_tilt(site: dict[str, Any], plate: str) -> None:
    """Refuse tilts that are not one number per datum."""
    name, frames = site["name"], plates_of(site)
    if plate not in frames:
        raise PplebmError(
            f"tilt '{name}' stands outside the data plate '{plate}'; move it inside, one value per datum, shape (B,)."
        )
    if not torch.isfinite(site["fn"].log_factor).all():
        raise PplebmError(
            f"tilt '{name}' is not finite at draws of the base; keep its argument in its domain, or bound it with "
            f"tilt('{name}', ..., bound=8.0)."
        )
    expected = [1] * max(-f.dim for f in frames.values())
    for frame in frames.values():
        expected[frame.dim] = frame.size
    got = tuple(site["infer"]["tilt_shape"])
    if got != tuple(expected):
        raise PplebmError(
            f"tilt '{name}' returned shape {got}; expected {tuple(expected)}, one value per datum of plate '{plate}'. "
            f"Sum over event axes only, and squeeze the last axis of a net that ends in one unit."
        )


def structure_of(trace: Any, batch: int, wanted_plate: str | None) -> Structure:
    """Sort the sites of a trace into latents, observations and tilts, and refuse what cannot be handled."""
    sites = sample_sites(trace)
    for site in sites:
        if not site["is_observed"]:
            check_latent(site)
    subsamples = {n: s["fn"].size for n, s in trace.nodes.items() if s["type"] == "sample" and site_is_subsample(s)}
    plate = find_plate(sites, subsamples, batch, wanted_plate)
    latents, observed, tilts, has_noise, bounds = [], [], [], {}, {}
    for site in sites:
        name, local = site["name"], plate in plates_of(site)
        if site["infer"].get("is_tilt"):
            check_tilt(site, plate)
            tilts.append(Site(name, (), "", "tilt", True))
            if site["infer"]["bound"] is not None:
                bounds[name] = float(site["infer"]["bound"])
        elif site["infer"].get("is_auxiliary"):
            raise PplebmError(
                f"site '{name}' is a pyro.factor, which pplebm cannot place in prior or likelihood; write "
                f"tilt('{name}', ...) for a factor of the prior, or an observed pyro.sample for the likelihood."
            )
        elif site["is_observed"]:
            if not local:
                raise PplebmError(f"observed site '{name}' stands outside the data plate '{plate}'; move it inside.")
            observed.append(describe(site, site["value"], plate))
        else:
            has_noise[name] = noise_scale(site["fn"]) is not None
            unconstrained = torch.distributions.biject_to(site["fn"].support).inv(site["value"])
            latents.append(describe(site, unconstrained, plate))
    if not latents:
        raise PplebmError("the program has no latent site; write pyro.sample('z', ...) without obs for one.")
    return Structure(plate, tuple(latents), tuple(observed), tuple(tilts), has_noise, bounds)


def describe(site: dict[str, Any], value: torch.Tensor, plate: str) -> Site:
    """Name, per-datum shape, support and distribution of a site."""
    frames = plates_of(site)
    local = plate in frames
    shape = tuple(datum_first(value, site, plate).shape[1:]) if local else tuple(value.shape)
    fn = site["fn"]
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return Site(site["name"], shape, support_name(fn.support), type(fn).__name__, local)


def support_name(support: Any) -> str:
    """Short name of a support, as torch calls it."""
    for name in ("real", "positive", "nonnegative", "unit_interval", "simplex", "real_vector", "boolean"):
        if support is getattr(constraints, name):
            return name
    return str(support).strip("()").lower()


def datum_first(value: torch.Tensor, site: dict[str, Any], plate: str) -> torch.Tensor:
    """Move the data axis of a site's value to the front: (B, other plates, event)."""
    return value.movedim(_axis(value, site, plate), 0)


def datum_back(value: torch.Tensor, site: dict[str, Any], plate: str) -> torch.Tensor:
    """The inverse of `datum_first`."""
    return value.movedim(0, _axis(value, site, plate))


def _axis(value: torch.Tensor, site: dict[str, Any], plate: str) -> int:
    return value.dim() - site["fn"].event_dim + plates_of(site)[plate].dim


def per_datum(log_density: torch.Tensor, site: dict[str, Any], plate: str) -> torch.Tensor:
    """Sum the log density of a site over every plate but the data plate: (B,)."""
    front = log_density.movedim(plates_of(site)[plate].dim, 0)
    return front.flatten(1).sum(1) if front.dim() > 1 else front


def mean(site: dict[str, Any]) -> torch.Tensor:
    """Mean of a site's distribution; the host knows none for some."""
    try:
        return site["fn"].mean
    except NotImplementedError as error:
        raise PplebmError(f"site '{site['name']}' ({type(site['fn']).__name__}) has no mean; ask for draws.") from error


def parameters_of(trace: Any) -> dict[str, torch.Tensor]:
    """Unconstrained leaf tensors behind the parameter statements of a trace, by readable name."""
    leaves = {}
    for name, site in trace.nodes.items():
        if site["type"] == "param":
            value = site["value"]
            leaves[name.replace("$$$", ".")] = value.unconstrained() if hasattr(value, "unconstrained") else value
    return leaves


def unregistered_leaves(values: list[torch.Tensor], known: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """Shapes of tensors that require gradients and enter `values` without a parameter statement."""
    known_ids = {id(leaf) for leaf in known.values()}
    stack: list[Any] = [v.grad_fn for v in values if v.grad_fn is not None]
    seen, found = set(), []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known_ids:
            found.append(tuple(leaf.shape))
        stack.extend(parent for parent, _ in node.next_functions)
    return found


def store_scope(state: Any) -> Any:
    """A program's own parameter store, so that equal names of two programs never meet."""
    return pyro.get_param_store().scope(state)
