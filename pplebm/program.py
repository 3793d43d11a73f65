"""A program seen as unnormalised densities over its latents, one number per datum."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, ChainOptions, Data, Latents, Params, Reads, Site, Traced, load_backend
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves, tree_map

Coordinates = Literal["centered", "noncentered"]
OLDER = {"centred": "centered", "noise": "noncentered"}  # words of earlier programs, still understood
PRECISIONS = ("full", "bf16")
CHECKED = 4096  # rows whose observed values are checked at once


class Program:
    r"""A generator with a tilted prior, as densities that learning and sampling can use.

    With latents z, data x, and tilts :math:`f_k`,

    .. math::
        \log \tilde p(x, z) = \log p(x \mid z) + \log p_0(z) + \sum_k f_k(z), \qquad
        \log \tilde p(z) = \log p_0(z) + \sum_k f_k(z), \qquad Z = \int \tilde p(z)\, dz .

    Sites, plates, supports, tilts and parameters are found by running the model once; nothing is declared twice.
    Latents live in unconstrained coordinates, `z[site]` of shape (B, *event). In "centered" coordinates a site's
    value is the host's own bijection of z; in "noncentered" coordinates :math:`z_i = \mu_i + \sigma_i \epsilon_i` for
    normal sites. log|J| is included in every density.

    Data are what the model is called with: an array, `model(x)`; a mapping of names to arrays or a data frame,
    `model(**data)`; a tuple, `model(*data)`. Rows, the leading axes, are the data plate. Which of them are observed and
    which are covariates is found by running the model; every density and draw is computed at the rows it is about.

    Args:
        model: any Pyro function, PyroModule or NumPyro function called with data, or what `pplebm.bind` returns.
        data: to run it on; may be left out for bound gallery pages.
        coordinates: "centered" or "noncentered".
        plate: name of the data plate, if there are several plates and none is called "data".
        seed: seed of the first run.
        backend: "pyro" or "numpyro", the language of a plain program; bound pages know theirs.

    Raises:
        PplebmError: naming the site, for what cannot be handled: discrete latents, tilts of wrong shape or outside
            the data plate, priors that read observed values, rows that interact, a random or untraceable density.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(dose, y):
        ...     with pyro.plate("data", len(y)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", 0.5 * z)
        ...         pyro.sample("y", dist.Normal(z + 2. * dose, 1.), obs=y)
        >>> program = pplebm.Program(model, data={"dose": torch.arange(3.), "y": torch.zeros(3)})
        >>> program.covariates, [site.name for site in program.observed]
        (('dose',), ['y'])
        >>> z = {"z": torch.tensor([0., 1., 2.])}
        >>> [round(v, 3) for v in program.log_tilt(program.params, z).tolist()]
        [0.0, 0.5, 1.0]
    """

    def __init__(
        self,
        model: Callable[..., Any],
        data: Any = None,
        *,
        coordinates: str = "centered",
        plate: str | None = None,
        seed: int = 0,
        backend: str | None = None,
    ) -> None:
        self.options = ChainOptions(_checked(coordinates))
        self.ppl: Any = load_backend(str(backend or getattr(model, "backend", "pyro")))
        self._model, self._plate, self.seed = model, plate, seed
        self.signature, self.levels = columns.signature_of(model), dict[str, tuple[str, ...]]()
        self.guide: Any = None  # see `with_guide`
        self._found: Traced | None = None
        self._kept: dict[Any, Callable[..., Any]] = {}
        self._params: Params | None = None
        data = getattr(model, "example", None) if data is None else data
        if data is not None:
            self._trace(self.data(data))

    def _trace(self, data: Data) -> None:
        self._found = self.ppl.trace(self._model, data, self._plate, self.seed)

    def __repr__(self) -> str:
        if self._found is None:
            return "Program (has seen no data yet)"
        names = lambda sites: ", ".join(site.name for site in sites) or "none"
        found = f"latents {names(self.latents)}; tilts {names(self.tilts)}; observed {names(self.observed)}"
        if self.factors:
            found += f"; likelihood factors {names(self.factors)}"
        if self.covariates:
            found += f"; covariates {', '.join(self.covariates)}"
        if self.deterministic:
            found += f"; deterministic {names(self.deterministic)}"
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
    def factors(self) -> tuple[Site, ...]:
        """Factors of the likelihood in program order."""
        return self._traced.structure.factors

    @property
    def deterministic(self) -> tuple[Site, ...]:
        """Deterministic sites in program order; they come back with values and draws."""
        return self._traced.structure.deterministic

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the data that are no value of an observed site; "x[1]" for a part of an array."""
        return self._traced.reads.covariates

    @property
    def reads(self) -> Reads:
        """Which sites read which data."""
        return self._traced.reads

    @property
    def prior_reads(self) -> bool:
        """Whether latents or tilts read covariates: the tilted prior then has a constant Z of its own in every row."""
        return bool(self._traced.reads.prior)

    @property
    def generator_reads(self) -> bool:
        """Whether the distribution of an observed site reads data."""
        return bool(self._traced.reads.generator)

    @property
    def tilt_bounds(self) -> dict[str, float]:
        """Bounds in nats of the tilts that have one."""
        return self._traced.structure.bounds

    @property
    def params(self) -> Params:
        """Unconstrained parameters by name: the model's own values when it was first run, or those given since."""
        return dict(self._traced.params if self._params is None else self._params)

    @property
    def example(self) -> Data:
        """The rows on which the program was first run."""
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
    def has_global_latents(self) -> bool:
        """Whether a latent stands outside the data plate.

        The whole data are then one datum: latents have a row per chain and the shape of all data, and log densities
        are one number per chain, (n_chains,).
        """
        return self._traced.structure.has_global_latents

    @property
    def coordinates(self) -> str:
        """ "centered" or "noncentered"."""
        return self.options.coordinates

    @property
    def has_noncentered(self) -> dict[str, bool]:
        """Latent sites by name, and whether each has noncentered coordinates of its own."""
        return dict(self._traced.structure.has_noncentered)

    def with_coordinates(self, coordinates: str) -> Program:
        """The same program, its latents in other coordinates."""
        return self._changed(options=self.options._replace(coordinates=_checked(coordinates)))

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
        options = self.options
        if precision is not None:
            if precision not in PRECISIONS:
                raise PplebmError(f"precision '{precision}' is not known; choose one of {', '.join(PRECISIONS)}.")
            if precision != "full" and self.ppl.name != "pyro":
                raise PplebmError(
                    f"precision '{precision}' is for the backend 'pyro'; on '{self.ppl.name}' it was slower."
                )
            options = options._replace(precision=precision)
        return self._changed(options=options if compiled is None else options._replace(compiled=compiled))

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

    # --- data

    def data(self, source: Any) -> Data:
        """What a user gives, as arrays of the host in the structure that the model is called with; dtypes are kept.

        Args:
            source: an array of NumPy, torch or JAX, a mapping of names to arrays, a data frame, or a tuple. Columns of
                text become codes of the levels they had in the first data, `program.levels`.

        Raises:
            PplebmError: for names or levels that are not known, or arrays of different numbers of rows.
        """
        tree, levels = columns.read(source, self.signature, self.levels)
        self.levels = levels | self.levels
        return tree_map(lambda a: self.ppl.asarray(a, keep=True), tree)

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Data:
        """Arguments of a call of the model, such as those the host's SVI makes, as data of this program."""
        names = dict(zip(self.signature.names, args, strict=False)) | dict(kwargs)
        if isinstance(self.example, Mapping):
            return self.data({name: names[name] for name in self.example if name in names})
        found = tuple(names.values()) if names else args
        return self.data(found[: len(self.example)] if isinstance(self.example, tuple) else found[0])

    def rewritten(self, change: Callable[[Any], Any]) -> Program:
        """The program of a changed model on the same rows."""
        plate = self._plate or self.plate or None
        return Program(
            change(self._model),
            self.example,
            coordinates=self.coordinates,
            plate=plate,
            seed=self.seed,
            backend=self.ppl.name,
        )

    def check_data(self, data: Data, params: Params | None = None) -> None:
        """Raise if an observed site gets NaN, or a value outside its support, where it is not masked.

        Raises:
            PplebmError: naming the site, how many rows, the first of them, and the remedies.
        """
        params = self._own(self.params if params is None else params)
        size = n_rows(data) if self.has_global_latents else CHECKED
        for at in range(0, n_rows(data), size):
            part = take_rows(data, slice(at, at + size))
            z = self._traced.draw(self.ppl.key(self.seed), 1, params, part, "centered", True)  # one draw, or one a row
            one = {name: a[0] for name, a in z.items()} if self.has_global_latents else z
            for site, (is_nan, is_outside) in self._traced.faults(params, one, part).items():
                self._refuse_values(site, is_nan, is_outside, at)
            self._check_gradient(params, z, part, at)

    def _refuse_values(self, site: str, is_nan: Any, is_outside: Any, at: int) -> None:
        first = lambda rows: f"{int(rows.sum())} of {len(rows)} rows, the first of them row {at + int(rows.argmax())}"
        if is_nan.any():
            raise PplebmError(
                f"observed site '{site}' is NaN in {first(is_nan)}; give {self.ppl.name}.sample('{site}', ..., "
                f"obs_mask=) with the NaN filled by any number, which imputes them as latents, or leave them out by a "
                f"mask."
            )
        if is_outside.any():
            distribution = next(s for s in self.observed if s.name == site)
            raise PplebmError(
                f"the data of observed site '{site}' leave its support ({distribution.distribution} on "
                f"{distribution.support}) in {first(is_outside)}; check units and scaling, or choose another "
                f"distribution."
            )

    def _check_gradient(self, params: Params, z: Latents, part: Data, at: int) -> None:
        """NaN that a mask hides from the density still spoils its gradient."""
        ppl = self.ppl
        holes = [p for p, a in tree_leaves(part) if ppl.to_numpy(a).dtype.kind == "f" and _has_nan(ppl.to_numpy(a))]
        if not holes:
            return
        _, gradient = ppl.value_and_grad(self.log_density(params, part), z)
        if any(_has_nan(ppl.to_numpy(g)) for g in gradient.values()):
            name = self.reads.names.get(holes[0], holes[0])
            raise PplebmError(
                f"'{name}' holds NaN that makes the gradient of the log density NaN, masked or not; fill it with any "
                f"number where it is masked, for instance where(observed, {name}, 0), before it reaches the model."
            )

    def prior_rows(self, data: Data) -> Data | int:
        """What draws of the prior need to know of data: the data where the prior reads covariates, else how many."""
        return data if self.prior_reads else n_rows(data)

    def _rows(self, rows: Data | int | None, z: Latents | None, what: str, reads: bool) -> tuple[int, Data]:
        """How many rows, and the data of runs that read none of them or all of them."""
        if rows is None:
            assert z is not None
            rows = len(next(iter(z.values())))
        if not isinstance(rows, int):
            return n_rows(rows), rows
        if reads:
            sites = (
                sorted(self.reads.prior) if self.prior_reads and what != "simulate" else sorted(self.reads.generator)
            )
            raise PplebmError(
                f"{what} needs the covariates {', '.join(self.covariates) or 'of the data'}, which site "
                f"'{(sites or ['?'])[0]}' reads; give the data they are in, one row for every row wanted."
            )
        return rows, self._traced.rows(rows)

    # --- densities, (B,) each

    def log_terms(
        self, params: Params, z: Latents, data: Data | None = None, observed: bool | None = None
    ) -> dict[str, Array]:
        """Log density of every site, (B,) each.

        Args:
            params: where they are wanted.
            z: latents, (B, *event) by site.
            data: as `program.data` gives them; may be left out if no observed site is wanted and the prior reads none.
            observed: whether observed sites are wanted; by default if there are data.
        """
        if self._found is None and data is not None:
            self._trace(data)
        observed = data is not None if observed is None else observed
        if data is None and observed:
            raise PplebmError("the densities of observed sites need data.")
        self._check_latents(z, data)
        data = self._rows(data if observed or self.prior_reads else None, z, "log p̃(z)", self.prior_reads)[1]
        return self._traced.terms(self._own(params), z, data, self.coordinates, observed)

    def log_joint(self, params: Params, z: Latents, data: Data) -> Array:
        """log p̃(x, z), (B,): every latent and observed site and every tilt; normalised only up to -log Z."""
        return self.total(self.log_terms(params, z, data))

    def log_prior(self, params: Params, z: Latents, data: Data | None = None) -> Array:
        """log p̃(z), (B,): latent sites and tilts, without the observed sites; data where it reads covariates."""
        return self.total(self.log_terms(params, z, data, observed=False))

    def log_base(self, params: Params, z: Latents, data: Data | None = None) -> Array:
        """log p₀(z), (B,): latent sites without the tilts."""
        return self.total(self.log_terms(params, z, data, observed=False), self.latents)

    def log_tilt(self, params: Params, z: Latents, data: Data | None = None) -> Array:
        """Sum of the tilts f(z), (B,); zero for a program without tilt."""
        return self.total(self.log_terms(params, z, data, observed=False), self.tilts)

    def log_likelihood(self, params: Params, z: Latents, data: Data) -> Array:
        """log p(x|z), (B,): the observed sites and the factors of the likelihood."""
        return self.total(self.log_terms(params, z, data), (*self.observed, *self.factors))

    def log_density(
        self, params: Params, data: Data | None = None, observed: bool | None = None
    ) -> Callable[..., Array]:
        """What kernels move in: log p̃(x, z), or without observed sites log p̃(z), as a function of z.

        The function takes `tilt_strength` as well, a number or one per row, that multiplies the tilts.
        """

        def log_density(z: Latents, tilt_strength: Any = None) -> Array:
            terms = self.log_terms(params, z, data, observed)
            if tilt_strength is not None:
                terms = terms | {t.name: tilt_strength * terms[t.name] for t in self.tilts}
            return self.total(terms)

        return log_density

    def pointwise(self, params: Params, z: Latents, data: Data) -> dict[str, Array]:
        """Log density of every observed site by datum, (B,); (n_chains, data) in a joint program."""
        self._check_latents(z, data)
        return self._traced.pointwise(self._own(params), z, data, self.coordinates)

    def total(self, terms: dict[str, Array], sites: tuple[Site, ...] | None = None) -> Array:
        """Sum of the result of `log_terms` over all its sites or some of them, (B,); zero over none."""
        names = list(terms) if sites is None else [site.name for site in sites]
        if not names:
            return 0.0 * next(iter(terms.values()))
        total = terms[names[0]]
        for name in names[1:]:
            total = total + terms[name]
        return total

    def chain(
        self,
        kernel: Any,
        state: Any,
        keys: Any,
        params: Params,
        data: Data | None = None,
        observed: bool | None = None,
    ) -> tuple[Any, Any]:
        """One step of a kernel per key towards p(z|x), or the tilted prior; last state, and infos by step.

        Arguments as in `log_terms`: with data and `observed=False` the chains are those of the prior given covariates.
        """
        observed = data is not None if observed is None else observed
        self._check_latents(state.z, data)
        needed = data if observed or self.prior_reads else None
        data = self._rows(needed, state.z, "a chain of the prior", self.prior_reads)[1]
        return self._traced.chain(self.ppl, kernel, state, keys, self._own(params), data, self.options, observed)

    def compiled(self, name: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
        """A pure function of arrays, compiled by the host once for all calls that give the same name.

        Whatever the function depends on must be in its arguments, in the name, or in how this program's chains run.
        """
        return self.cached((name, self.options), lambda: self.ppl.compiled(function))

    def cached(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made at the first call with this name and kept with the program."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    # --- draws

    def draw_base(self, key: Any, rows: Data | int, params: Params | None = None, given: Data | None = None) -> Latents:
        """Draw latents ancestrally, tilts ignored: draws of the base, not of the prior.

        Args:
            key: of the backend.
            rows: how many; or data, for one draw at the covariates of every row.
            params: the program's own if left out.
            given: data for any number of draws of a joint program, whose whole data are one datum.

        Raises:
            PplebmError: for a number of rows where the prior reads covariates, or an improper latent.
        """
        return self._drawn(key, rows, params, given, start=False)

    def draw_start(
        self, key: Any, rows: Data | int, params: Params | None = None, given: Data | None = None
    ) -> Latents:
        """The same as a start of chains: latents without draws of their own start uniformly in [-2, 2]."""
        return self._drawn(key, rows, params, given, start=True)

    def _drawn(self, key: Any, rows: Data | int, params: Params | None, given: Data | None, start: bool) -> Latents:
        params = self._own(self.params if params is None else params)
        n = rows if isinstance(rows, int) else 1
        if given is None or not isinstance(rows, int):
            reads = self.prior_reads or bool(self.reads.fed_latents)
            given = self._rows(rows, None, "a draw of the prior", reads)[1]
        return self._traced.draw(key, n, params, given, self.coordinates, start)

    def zeros(self, n: int) -> Latents:
        """n latents at the origin of their coordinates."""
        dtypes = self._traced.dtypes
        return {s.name: self.ppl.asarray(np.zeros((n, *s.shape), dtypes[s.name]), keep=True) for s in self.latents}

    def simulate(
        self, key: Any, rows: Data | int, params: Params | None = None, base: bool = False
    ) -> dict[str, Array]:
        """Simulate data forward from the program: observed sites, (n, *event), in the host's own order.

        Args:
            key: of the backend.
            rows: how many; or data whose covariates to simulate at, their observed values left alone.
            params: the program's own if left out.
            base: ignore the tilts.

        Raises:
            PplebmError: for a tilted program unless `base=True`, because forward simulation ignores tilts; for a number
                of rows where a site reads covariates.
        """
        if self.tilts and not base:
            names = ", ".join(f"'{t.name}'" for t in self.tilts)
            raise PplebmError(
                f"forward simulation would ignore the tilt {names}; draw from the tilted prior with a chain "
                f"(run.sample_data), or ask for the base with base=True."
            )
        params = self.params if params is None else params
        k_latents, k_data = self.ppl.split(key)
        z = self.draw_base(k_latents, rows, params)
        return self.predict(params, z, k_data, None if isinstance(rows, int) else rows)

    def predict(self, params: Params, z: Latents, key: Any | None = None, data: Data | None = None) -> dict[str, Array]:
        """Means of the observed sites given latents, (B, *event); draws when a key is given.

        The mean of a site that reads the value of another observed site is the mean over a thousand draws of that one.

        Args:
            params: of the program.
            z: latents, (B, *event).
            key: of the backend.
            data: with the covariates of these rows, where an observed site or the prior reads any; what is observed in
                them is not looked at, unless the model itself reads it.
        """
        return self._observed(params, z, key, data, [])

    def generate(
        self, params: Params, z: Latents, key: Any | None = None, data: Data | None = None
    ) -> dict[str, Array]:
        """What `predict` gives, and the deterministic sites of the same run; those that read data need them."""
        unknown = frozenset() if data is not None else self.reads.deterministic
        return self._observed(params, z, key, data, [d.name for d in self.deterministic if d.name not in unknown])

    def _observed(
        self, params: Params, z: Latents, key: Any | None, data: Data | None, fixed: list[str]
    ) -> dict[str, Array]:
        self._check_latents(z, data)
        rows = self._rows(data, z, "simulate", self.generator_reads or self._needs_data)[1]
        return self._traced.predict(self._own(params), z, rows, self.coordinates, key, fixed)

    @property
    def _needs_data(self) -> bool:
        """Whether values of latents depend on data: in noncentered coordinates, where the prior does."""
        return self.prior_reads and self.coordinates != "centered"

    def observed_data(self, data: Data) -> dict[str, Array]:
        """Values of the observed sites when the program is called with data: the data, or what it makes of them."""
        z = self._traced.draw(self.ppl.key(0), 1, self._own(self.params), data, "centered", True)
        z = {name: a[0] for name, a in z.items()} if self.has_global_latents else z
        return self._traced.observed_data(self._own(self.params), z, data)

    def move(self, params: Params, z: Latents, target: str, data: Data | None = None) -> Latents:
        """The same latents in the coordinates `target`, for use with `with_coordinates(target)`.

        Data are needed where the prior reads them, as that of a guide does.
        """
        if target == self.coordinates:
            return z
        self._check_latents(z, data)
        data = self._rows(data if self.prior_reads else None, z, "a change of coordinates", self.prior_reads)[1]
        return self._traced.move(self._own(params), z, data, self.coordinates, target)

    def constrain(self, params: Params, z: Latents, data: Data | None = None) -> dict[str, Array]:
        """Values of the latent sites in their own supports, and of the deterministic sites.

        Deterministic sites are left out where they depend on data, or observed values, that are not given.
        """
        self._check_latents(z, data)
        rows = self._rows(data, z, "the values of latents", self._needs_data)[1]
        found = self._traced.constrain(self._own(params), z, rows, self.coordinates)
        unknown = self.reads.deterministic | {name for name, of in self.reads.derived.items() if of}
        return found if data is not None else {k: v for k, v in found.items() if k not in unknown}

    def unconstrain(self, params: Params, values: dict[str, Array], data: Data | None = None) -> Latents:
        """Coordinates of given site values: the inverse of `values`."""
        first = {self.latents[0].name: values[self.latents[0].name]}
        rows = self._rows(data, first, "the coordinates of values", self._needs_data)[1]
        values = {name: self.ppl.asarray(a) for name, a in values.items()}
        return self._traced.unconstrain(self._own(params), values, rows, self.coordinates)

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
        """Parameters of this program among others, such as those of its guide."""
        return {name: params[name] for name in self._traced.params}

    def _check_latents(self, z: Latents, data: Data | None) -> None:
        n = None if data is None or self.has_global_latents else n_rows(data)
        for site in self.latents:
            if site.name not in z:
                raise PplebmError(f"latents lack site '{site.name}'; got {sorted(z)}.")
            shape = tuple(z[site.name].shape)
            n = shape[0] if n is None and shape else n
            if shape != (n, *site.shape):
                raise PplebmError(f"latent '{site.name}' has shape {shape}; expected {(n, *site.shape)}.")


def _has_nan(a: Any) -> bool:
    return bool((a != a).any())


def _checked(coordinates: str) -> str:
    coordinates = OLDER.get(coordinates, coordinates)
    if coordinates not in get_args(Coordinates):
        raise PplebmError(
            f"coordinates '{coordinates}' are not known; choose one of {', '.join(get_args(Coordinates))}."
        )
    return coordinates
