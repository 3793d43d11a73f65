"""The narrow waist: all that kernels, objectives and gallery pages may ask of a probabilistic language.

A backend is a module with these names (`pplebm.backends.pyro`); it is passed as the argument `ppl`, never
looked up in a global. A new name needs a law in tests/ppl/test_waist.py and an implementation in every backend.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from pplebm.errors import PplebmError
from pplebm.ppl.parallel import Parallel

BACKENDS = ("pyro", "numpyro")

Array = Any
Tree = Any
T = TypeVar("T")
Key = Any  # of random numbers; functions pass keys on, and a person gives a seed
Data = Any  # what a model is called with: an array, a mapping of names to arrays, or a tuple; rows first
Latents = dict[str, Array]  # site -> (B, *event), unconstrained coordinates
Params = dict[str, Array]


class Site(NamedTuple):
    """One sample statement of a program."""

    name: str
    shape: tuple[int, ...]  # per datum, in unconstrained coordinates for latents
    support: str  # "real", "positive", ...: as the backend names it
    distribution: str
    is_local: bool  # inside the data plate
    plates: tuple[str, ...] = ()  # names of the axes before the event's, "" for none; the data plate's only if joint


class Structure(NamedTuple):
    """What tracing a program once found: never declared a second time by the user."""

    plate: str  # of the data; "" for none
    latents: tuple[Site, ...]
    observed: tuple[Site, ...]
    tilts: tuple[Site, ...]
    has_noncentered: dict[str, bool]  # latent -> its distribution has noncentered coordinates (location and scale)
    bounds: dict[str, float]  # tilt -> its bound, for tilts that have one
    factors: tuple[Site, ...] = ()  # of the likelihood
    deterministic: tuple[Site, ...] = ()
    given: tuple[str, ...] = ()  # latents that data are values of: all of them, or none

    @property
    def has_global_latents(self) -> bool:
        """Some latent stands outside the data plate, so the whole data are one datum of every chain.

        Latents then have a row per chain and the shape of all data, and log densities are one number per chain.
        """
        return not all(site.is_local for site in self.latents)


class Reads(NamedTuple):
    """Which data the sites of a program depend on, and which observed sites feed others."""

    prior: frozenset[str]  # latents and tilts that read covariates
    generator: frozenset[str]  # observed sites whose distribution reads data
    deterministic: frozenset[str]  # deterministic sites that read data
    derived: dict[str, frozenset[str]]  # deterministic site -> observed sites whose values it depends on
    fed: frozenset[str]  # observed sites whose distribution depends on the value of another one
    fed_latents: frozenset[str]  # latents that do
    covariates: tuple[str, ...]  # names of the data that no observed site gets as its value
    names: dict[str, str]  # path of an array in the data -> what a person calls it
    parts: dict[str, bool]  # path of an array with observed numbers -> whether all of them are observed
    whole: dict[str, str]  # observed site -> path of the array that it is, number by number


class ChainOptions(NamedTuple):
    """How a program's chains run."""

    coordinates: str = "centered"
    compiled: bool = False  # spend seconds on compiling one step; NumPyro compiles whatever it is given
    precision: str = "full"  # of the networks inside a step: that of the program, or "bf16"


class Traced(Protocol):
    """A program as a backend runs it; made by `PPL.trace`. Data always have a row for every row of the latents."""

    structure: Structure
    reads: Reads
    params: Params
    example: Data  # the rows of the first run
    dtypes: dict[str, Any]  # NumPy's, of the latents
    tilt_params: frozenset[str]
    prior_params: frozenset[str]
    reached_params: frozenset[str]  # all that enter any density
    unregistered: list[tuple[int, ...]]  # shapes of tensors that enter a density and are no parameters

    def rows(self, n: int) -> Data:
        """n rows, for runs that read none of their values."""

    def terms(self, params: Params, z: Latents, data: Data, coordinates: str, observed: bool) -> dict[str, Array]:
        """Log density of every site, (B,) each, log|J| included; observed sites are left out where not wanted."""

    def chain(
        self,
        ppl: PPL,
        kernel: Any,
        state: Any,
        keys: Any,
        params: Params,
        data: Data,
        options: ChainOptions,
        observed: bool,
    ) -> tuple[Any, Any]:
        """State after one step of a kernel per key towards p(z|x), or towards the prior; infos stacked by step."""

    def as_latents(self, value: Array, z: Latents) -> Array:
        """A log density, (B,), in the precision of the latents."""

    def move(self, params: Params, z: Latents, data: Data, coordinates: str, target: str) -> Latents:
        """The same latents in other coordinates."""

    def given(self, params: Params, data: Data, coordinates: str) -> Latents:
        """Coordinates of the latents that data are values of."""

    def given_terms(self, params: Params, data: Data) -> dict[str, Array]:
        """Log density of every site at these values, in their own supports, (B,) each."""

    def draw(self, key: Any, n: int, params: Params, data: Data, coordinates: str, start: bool = False) -> Latents:
        """Ancestral draws that ignore the tilts: one per row of the data, or n of a joint program."""

    def constrain(self, params: Params, z: Latents, data: Data, coordinates: str) -> dict[str, Array]:
        """Values of the latent sites in their own supports, and of the deterministic sites that the data tell."""

    def unconstrain(self, params: Params, values: dict[str, Array], data: Data, coordinates: str) -> Latents:
        """The inverse of `values`."""

    def pointwise(self, params: Params, z: Latents, data: Data, coordinates: str) -> dict[str, Array]:
        """Log density of every observed site by datum: (B,), or (B, data) in a joint program."""

    def predict(
        self, params: Params, z: Latents, data: Data, coordinates: str, key: Any | None, fixed: list[str]
    ) -> dict[str, Array]:
        """Means of the observed sites given the latents, or draws with a key; with these deterministic sites."""

    def observed_data(self, params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Values of the observed sites when the program is called with data, at any latents of one run."""

    def observed_masks(self, params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Which numbers of the observed sites count, (B, *event), of those sites that masks touch."""

    def faults(self, params: Params, z: Latents, data: Data) -> dict[str, Any]:
        """Faults by observed site: values that are NaN, and those outside their support, where they count."""

    def check_bf16(self) -> None:
        """Refuse steps in bfloat16 where they would be slower."""

    def params_of(self, values: Mapping[str, Any]) -> Params:
        """Parameters by name from those that the backend's own SVI holds."""

    def params_in_supports(self, params: Params) -> Params:
        """Values that the model itself sees of those parameters that it declares with a constraint."""

    def write_back(self, params: Params) -> None:
        """Copy parameter values into the user's own modules."""


class Rule(NamedTuple):
    """A rule by which parameters follow gradients; pure functions."""

    init: Callable[[Params], Any]  # parameters -> the state before the first update
    update: Callable[[Params, Params, Any, Mapping[str, Any]], tuple[Params, Any]]
    """Parameters, gradients, state and learning rates by name -> new parameters, new state."""
    is_graph: bool = True  # whether `update` consists of operations that a graph can hold


class PPL(Protocol):
    """The vocabulary; laws in tests/ppl/test_waist.py."""

    name: str
    dist: Any  # the backend's own distributions

    # declaring a model: the backend's own statements
    def sample(self, name: str, fn: Any, obs: Any = None) -> Array: ...
    def plate(self, name: str, size: int) -> Any: ...
    def param(self, name: str, init: Any) -> Array: ...
    def tilt(self, name: str, log_factor: Array, bound: float | None = None) -> None: ...
    def exp(self, a: Array) -> Array: ...
    def softplus(self, a: Array) -> Array: ...
    def concat(self, arrays: Sequence[Array], axis: int) -> Array: ...
    def stack(self, arrays: Sequence[Array], axis: int) -> Array: ...
    def bind(self, page: Any, hyper: Any, shape: Any, seed: int) -> Callable[..., Any]: ...

    # arrays
    def asarray(self, a: Any, keep: bool = False) -> Array: ...
    def to_numpy(self, a: Array) -> Any: ...
    def where(self, condition: Array, a: Array, b: Array) -> Array: ...
    def isfinite(self, a: Array) -> Array: ...
    def median(self, a: Array, axis: int) -> Array: ...
    def logsumexp(self, a: Array, axis: int) -> Array: ...
    def log_abs_det(self, a: Array) -> Array: ...
    def put(self, a: Array, index: Array, rows: Array) -> Array: ...
    def take(self, schedule: Any, step: Any) -> Any: ...

    # randomness by explicit keys
    def key(self, seed: int | list[int]) -> Any: ...
    def split(self, key: Any, n: int = 2) -> Sequence[Any]: ...
    def seeded(self, key: Any) -> Any: ...
    def normal_like(self, key: Any, tree: T) -> T: ...

    # derivatives, loops, updates
    def value_and_grad(
        self, function: Callable[[Tree], Any], at: Tree, has_aux: bool = False, differentiable: bool = False
    ) -> tuple[Any, Tree]: ...
    def stop_gradient(self, tree: T) -> T: ...
    def iterate(
        self,
        step: Callable[[Any, Any], tuple[Any, Any]],
        state: Any,
        keys: Sequence[Any] | int,
        draw: Callable[[Any], Tree] = lambda key: None,
    ) -> Any: ...
    def repeat(self, step: Callable[[Any, Any], tuple[Any, Any, Array]]) -> Callable[[Any, Any, int], Any]: ...
    def compiled(self, function: Callable[..., Any], whole: ChainOptions | None = None) -> Callable[..., Any]: ...
    def threads_for(self, work: int) -> Any: ...
    def optimizer(self, rule: str = "adam", **arguments: Any) -> Rule: ...

    # processes and devices that learn together
    def parallel(self, devices: int, nodes: int, strategy: str) -> Parallel: ...
    def average(self, tree: T) -> T: ...

    # a program as densities
    def trace(self, model: Callable[..., Any], data: Any, plate: str | None, seed: int) -> Traced: ...


def load_backend(name: str) -> PPL:
    """The backend module of that name: an implementation of `pplebm.ppl.language.PPL`.

    Raises:
        PplebmError: if there is none of that name, or its extra is not installed.
    """
    if name not in BACKENDS:
        raise PplebmError(f"backend '{name}' is not known; choose one of {', '.join(BACKENDS)}.")
    try:
        return cast(PPL, importlib.import_module(f"pplebm.backends.{name}"))
    except ModuleNotFoundError as error:
        raise PplebmError(f"backend '{name}' needs {error.name}; pip install 'pplebm[{name}]'.") from error
