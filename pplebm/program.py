"""A program seen as unnormalised densities over its latents, one number per datum."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Hashable, Mapping
from types import ModuleType
from typing import Any

from pplebm.errors import PplebmError
from pplebm.ppl import Array, How, Latents, Params, Site, Traced

COORDINATES = ("centred", "noise")
BACKENDS = ("pyro", "numpyro")
PRECISIONS = ("full", "bf16")


class Program:
    r"""A generator with a tilted prior, as densities that learning and sampling can use.

    With latents z, data x, and tilts :math:`f_k`,

    .. math::
        \log \tilde p(x, z) = \log p(x \mid z) + \log p_0(z) + \sum_k f_k(z), \qquad
        \log \tilde p(z) = \log p_0(z) + \sum_k f_k(z), \qquad Z = \int \tilde p(z)\, dz .

    Sites, plates, supports, tilts and parameters are found by running the model once; nothing is declared twice.
    Latents live in unconstrained coordinates, `z[site]` of shape (B, *event). In "centred" coordinates a site's
    value is the host's own bijection of z; in "noise" coordinates :math:`z_i = \mu_i + \sigma_i \epsilon_i` for
    normal sites. log|J| is included in every density.

    Args:
        model: any Pyro function, PyroModule or NumPyro function called with a batch of data, or what `pplebm.bind`
            returns.
        data: a batch (B, *event) to run it on; may be left out for bound gallery pages.
        coordinates: "centred" or "noise".
        plate: name of the data plate, if there are several plates and none is called "data".
        seed: seed of the first run.
        backend: "pyro" or "numpyro", the language of a plain program; bound pages know theirs.

    Raises:
        PplebmError: naming the site, for what cannot be handled: discrete latents, tilts of wrong shape or outside
            the data plate, factors, a random or untraceable density.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", 0.5 * z)
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> program = pplebm.Program(model, data=torch.zeros(3))
        >>> z = {"z": torch.tensor([0., 1., 2.])}
        >>> [round(v, 3) for v in program.log_tilt(program.params, z).tolist()]
        [0.0, 0.5, 1.0]
    """

    def __init__(
        self,
        model: Callable[..., Any],
        data: Any = None,
        *,
        coordinates: str = "centred",
        plate: str | None = None,
        seed: int = 0,
        backend: str | None = None,
    ) -> None:
        self.how = How(_checked(coordinates))
        self.ppl: Any = load_backend(str(backend or getattr(model, "backend", "pyro")))
        self._model, self._plate, self.seed = model, plate, seed
        self.guide: Any = None  # see `with_guide`
        self._found: Traced | None = None
        self._kept: dict[Any, Callable[..., Any]] = {}
        self._params: Params | None = None
        data = getattr(model, "example", None) if data is None else data
        if data is not None:
            self._found = self.ppl.trace(model, self.ppl.asarray(data), plate, seed)

    def __repr__(self) -> str:
        if self._found is None:
            return "Program (has seen no data yet)"
        names = lambda sites: ", ".join(site.name for site in sites) or "none"
        found = f"latents {names(self.latents)}; tilts {names(self.tilts)}; observed {names(self.observed)}"
        return f"Program in {self.ppl.name}: {found}; data plate {self.plate or 'none'}; {self.coordinates} coordinates"

    @property
    def _traced(self) -> Traced:
        if self._found is None:
            raise PplebmError("the program has seen no data yet; pass a batch: Program(model, data=x[:5]).")
        return self._found

    # --- what was found

    @property
    def latents(self) -> tuple[Site, ...]:
        """Latent sites in program order."""
        return self._traced.structure.latents

    @property
    def width(self) -> int:
        """Numbers in the latents of one datum, of all sites together."""
        return sum(math.prod(site.shape) for site in self.latents)

    @property
    def observed(self) -> tuple[Site, ...]:
        """Observed sites in program order."""
        return self._traced.structure.observed

    @property
    def tilts(self) -> tuple[Site, ...]:
        """Tilts in program order."""
        return self._traced.structure.tilts

    @property
    def tilt_bounds(self) -> dict[str, float]:
        """Bounds in nats of the tilts that have one."""
        return self._traced.structure.bounds

    @property
    def params(self) -> Params:
        """Unconstrained parameters by name: the model's own values when it was first run, or those given since."""
        return dict(self._traced.params if self._params is None else self._params)

    @property
    def example(self) -> Array:
        """The batch on which the program was first run."""
        return self._traced.example

    @property
    def tilt_params(self) -> frozenset[str]:
        """Names of the parameters that enter the tilts and nothing else."""
        return self._traced.tilt_params

    @property
    def prior_params(self) -> frozenset[str]:
        """Names of the parameters that enter the unnormalised prior; with a tilt, all of them enter Z."""
        return self._traced.prior_params

    @property
    def reached_params(self) -> frozenset[str]:
        """Names of the parameters that enter any density; the others never learn."""
        return self._traced.reached_params

    @property
    def unregistered(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors that require gradients and enter a density, but are no parameters of the program."""
        return tuple(self._traced.unregistered)

    @property
    def plate(self) -> str:
        """Name of the data plate."""
        return self._traced.structure.plate

    @property
    def is_joint(self) -> bool:
        """Whether a latent stands outside the data plate.

        The whole data are then one datum: latents have a row per chain and the shape of all data, and log densities
        are one number per chain, (n_chains,).
        """
        return self._traced.structure.is_joint

    @property
    def coordinates(self) -> str:
        """ "centred" or "noise"."""
        return self.how.coordinates

    @property
    def has_noise(self) -> dict[str, bool]:
        """By latent site, whether it has noise coordinates of its own."""
        return dict(self._traced.structure.has_noise)

    def with_coordinates(self, coordinates: str) -> Program:
        """The same program, its latents in other coordinates."""
        return self._changed(how=self.how._replace(coordinates=_checked(coordinates)))

    def with_chains(self, compiled: bool | None = None, precision: str | None = None) -> Program:
        """The same program, its chains run in another way; what is not given stays as it is.

        Args:
            compiled: on the Pyro side, compile one step of every kernel, which takes seconds for each shape and about
                halves the time of a step; the uncompiled graph is the default. NumPyro compiles in any case.
            precision: "full", or on the Pyro side "bf16": matrix products and convolutions inside a step in bfloat16,
                learning and reported densities in full precision. `pplebm check` tells the error of the gradient.

        Raises:
            PplebmError: for a precision that is not known, or not for this backend.
        """
        how = self.how
        if precision is not None:
            if precision not in PRECISIONS:
                raise PplebmError(f"precision '{precision}' is not known; choose one of {', '.join(PRECISIONS)}.")
            if precision != "full" and self.ppl.name != "pyro":
                raise PplebmError(
                    f"precision '{precision}' is for the backend 'pyro'; on '{self.ppl.name}' it was slower."
                )
            how = how._replace(precision=precision)
        return self._changed(how=how if compiled is None else how._replace(compiled=compiled))

    def with_params(self, params: Params) -> Program:
        """The same program with `params` as its own: what `draw_base` and `simulate` use when none are given."""
        return self._changed(_params=dict(params))

    def with_guide(self, guide: Any) -> Program:
        """The same program with an inference network of its own, a `pplebm.guides.guide.Guide` made for it."""
        return self._changed(guide=guide)

    def _changed(self, **attributes: Any) -> Program:
        other = object.__new__(Program)
        other.__dict__.update(self.__dict__ | attributes)
        return other

    # --- densities, (B,) each

    def log_terms(self, params: Params, z: Latents, x: Array | None = None) -> dict[str, Array]:
        """Log density of every site, (B,) each; without data the observed sites are left out."""
        if self._found is None and x is not None:
            self._found = self.ppl.trace(self._model, self.ppl.asarray(x), self._plate, self.seed)
        self._check_latents(z, x)
        return self._traced.terms(self._own(params), z, x, self.coordinates)

    def log_joint(self, params: Params, z: Latents, x: Array) -> Array:
        """log p̃(x, z), (B,): every latent and observed site and every tilt; normalised only up to -log Z."""
        return self.total(self.log_terms(params, z, x))

    def log_prior(self, params: Params, z: Latents) -> Array:
        """log p̃(z), (B,): latent sites and tilts, without the observed sites."""
        return self.total(self.log_terms(params, z))

    def log_base(self, params: Params, z: Latents) -> Array:
        """log p₀(z), (B,): latent sites without the tilts."""
        return self.total(self.log_terms(params, z), self.latents)

    def log_tilt(self, params: Params, z: Latents) -> Array:
        """Sum of the tilts f(z), (B,); zero for a program without tilt."""
        return self.total(self.log_terms(params, z), self.tilts)

    def log_likelihood(self, params: Params, z: Latents, x: Array) -> Array:
        """log p(x|z), (B,): the observed sites."""
        return self.total(self.log_terms(params, z, x), self.observed)

    def log_density(self, params: Params, x: Array | None = None) -> Callable[..., Array]:
        """What kernels move in: log p̃(x, z), or log p̃(z) without data, as a function of z.

        The function takes `tilt_strength` as well, a number or one per row, that multiplies the tilts.
        """

        def log_density(z: Latents, tilt_strength: Any = None) -> Array:
            terms = self.log_terms(params, z, x)
            if tilt_strength is not None:
                terms = terms | {t.name: tilt_strength * terms[t.name] for t in self.tilts}
            return self.total(terms)

        return log_density

    def pointwise(self, params: Params, z: Latents, x: Array) -> dict[str, Array]:
        """Log density of every observed site by datum, (B,); (n_chains, data) in a joint program."""
        self._check_latents(z, x)
        return self._traced.pointwise(self._own(params), z, x, self.coordinates)

    def total(self, terms: dict[str, Array], sites: tuple[Site, ...] | None = None) -> Array:
        """Sum of the result of `log_terms` over all its sites or some of them, (B,); zero over none."""
        names = list(terms) if sites is None else [site.name for site in sites]
        if not names:
            return 0.0 * next(iter(terms.values()))
        total = terms[names[0]]
        for name in names[1:]:
            total = total + terms[name]
        return total

    def chain(self, kernel: Any, state: Any, keys: Any, params: Params, x: Array | None = None) -> tuple[Any, Any]:
        """One step of a kernel per key towards p(z|x), or the tilted prior; last state, and infos by step."""
        self._check_latents(state.z, x)
        return self._traced.chain(kernel, state, keys, self._own(params), x, self.how)

    def compiled(self, name: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
        """A pure function of arrays, compiled by the host once for all calls that give the same name.

        Whatever the function depends on must be in its arguments, in the name, or in how this program's chains run.
        """
        return self.once((name, self.how), lambda: self.ppl.compiled(function))

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made at the first call with this name and kept with the program."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    # --- draws

    def draw_base(self, key: Any, n: int, params: Params | None = None) -> Latents:
        """Draw n latents ancestrally, tilts ignored: draws of the base, not of the prior."""
        return self._traced.draw(key, n, self._own(self.params if params is None else params), self.coordinates)

    def simulate(self, key: Any, n: int, params: Params | None = None, base: bool = False) -> dict[str, Array]:
        """Simulate data forward from the program: observed sites, (n, *event).

        Raises:
            PplebmError: for a tilted program unless `base=True`, because forward simulation ignores tilts.
        """
        if self.tilts and not base:
            names = ", ".join(f"'{t.name}'" for t in self.tilts)
            raise PplebmError(
                f"forward simulation would ignore the tilt {names}; draw from the tilted prior with a chain "
                f"(run.sample_data), or ask for the base with base=True."
            )
        params = self.params if params is None else params
        k_latents, k_data = self.ppl.split(key)
        z = self.draw_base(k_latents, n, params)
        return self._traced.observe(self._own(params), z, self.coordinates, k_data)

    def observe(self, params: Params, z: Latents, key: Any | None = None) -> dict[str, Array]:
        """Means of the observed sites given latents, (B, *event); draws when a key is given."""
        self._check_latents(z, None)
        return self._traced.observe(self._own(params), z, self.coordinates, key)

    def given(self, x: Array) -> dict[str, Array]:
        """Values of the observed sites when the program is called with data: x, or what it makes of x."""
        z = self._traced.draw(self.ppl.key(0), 1 if self.is_joint else len(x), self.params, "centred")
        z = {name: a[0] for name, a in z.items()} if self.is_joint else z
        return self._traced.given(self.params, z, x)

    def move(self, params: Params, z: Latents, target: str, x: Array | None = None) -> Latents:
        """The same latents in the coordinates `target`, for use with `with_coordinates(target)`.

        Data are needed where latents depend on them, which those of a guide do.
        """
        if target == self.coordinates:
            return z
        self._check_latents(z, x)
        return self._traced.move(self._own(params), z, self.coordinates, target, x)

    def values(self, params: Params, z: Latents) -> dict[str, Array]:
        """Values of the latent sites in their own supports."""
        self._check_latents(z, None)
        return self._traced.values(self._own(params), z, self.coordinates)

    def coordinates_of(self, params: Params, values: dict[str, Array]) -> Latents:
        """Coordinates of given site values: the inverse of `values`."""
        return self._traced.coordinates_of(self._own(params), values, self.coordinates)

    def work(self, n: int) -> int:
        """Rough number of multiplications of one density evaluation on n data: parameters times data."""
        return n * sum(math.prod(p.shape) for p in self._traced.params.values())

    def params_of(self, values: Mapping[str, Any]) -> Params:
        """Parameters by name from those that the host's own SVI holds: constrained in NumPyro, unconstrained in Pyro.

        Raises:
            PplebmError: if one is missing.
        """
        return self._traced.params_of(values)

    def write_back(self, params: Params) -> None:
        """Copy parameter values into the model's own modules and parameters, as a Pyro user expects after learning."""
        self._traced.write_back(self._own(params))

    # --- refusals

    def refuse_global_latents(self, who: str) -> None:
        """Raise if a latent stands outside the data plate, which per-datum methods cannot handle."""
        host = self.ppl.name
        for site in self.latents:
            if not self.plate:
                raise PplebmError(
                    f"latent site '{site.name}' stands in no data plate, which {who} needs: put per-datum sites inside "
                    f"`with {host}.plate('data', len(x)):`, or sample all of them together with pplebm.sample."
                )
            if not site.is_local:
                raise PplebmError(
                    f"latent site '{site.name}' stands outside the data plate '{self._traced.structure.plate}': a "
                    f"global latent, which {who} cannot handle; make it a pyro.param, or move it into the plate."
                )

    def _own(self, params: Params) -> Params:
        """Of parameters, such as those of the model and its guide, the ones of this program."""
        return {name: params[name] for name in self._traced.params}

    def _check_latents(self, z: Latents, x: Array | None) -> None:
        n = None if x is None or self.is_joint else len(x)
        for site in self.latents:
            if site.name not in z:
                raise PplebmError(f"latents lack site '{site.name}'; got {sorted(z)}.")
            shape = tuple(z[site.name].shape)
            n = shape[0] if n is None and shape else n
            if shape != (n, *site.shape):
                raise PplebmError(f"latent '{site.name}' has shape {shape}; expected {(n, *site.shape)}.")


def _checked(coordinates: str) -> str:
    if coordinates not in COORDINATES:
        raise PplebmError(f"coordinates '{coordinates}' are not known; choose one of {', '.join(COORDINATES)}.")
    return coordinates


def load_backend(name: str) -> ModuleType:
    """The backend module of that name: an implementation of `pplebm.ppl.PPL`.

    Raises:
        PplebmError: if there is none of that name, or its extra is not installed.
    """
    if name not in BACKENDS:
        raise PplebmError(f"backend '{name}' is not known; choose one of {', '.join(BACKENDS)}.")
    try:
        return importlib.import_module(f"pplebm.backends.{name}")
    except ModuleNotFoundError as error:
        raise PplebmError(f"backend '{name}' needs {error.name}; pip install 'pplebm[{name}]'.") from error
