"""A program seen as unnormalised densities over its latents, one number per datum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from pplebm.data import columns
from pplebm.errors import PplebmError
from pplebm.ppl.language import ChainOptions, Params, Site, load_backend
from pplebm.program.checks import Checks
from pplebm.program.draws import Draws
from pplebm.program.found import Coordinates
from pplebm.program.moves import Moves

OLDER = {"centred": "centered", "noise": "noncentered"}  # words of earlier programs, still understood
PRECISIONS = ("full", "bf16")


class Program(Checks, Draws, Moves):
    r"""A generator with a tilted prior, as densities that learning and sampling can use.

    With latents z, data x, and tilts :math:`f_k`,

    .. math::
        \log \tilde p(x, z) = \log p(x \mid z) + \log p_0(z) + \sum_k f_k(z), \qquad
        \log \tilde p(z) = \log p_0(z) + \sum_k f_k(z), \qquad Z = \int \tilde p(z)\, dz .

    Sites, plates, supports, tilts and parameters are found by running the model once; nothing is declared twice.
    Latents live in unconstrained coordinates, `z[site]` of shape (B, *event). In "centered" coordinates a site's
    value is the backend's bijection of z; in "noncentered" coordinates :math:`z_i = \mu_i + \sigma_i \epsilon_i` for
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
        backend: "pyro" or "numpyro", of a plain program; bound pages know theirs.

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
        self.ppl = load_backend(str(backend or getattr(model, "backend", "pyro")))
        self._model, self._plate, self.seed = model, plate, seed
        self.signature, self.levels = columns.signature_of(model), dict[str, tuple[str, ...]]()
        self.guide: Any = None  # see `with_guide`
        self._found = self._params = None
        self._kept = {}
        data = getattr(model, "example", None) if data is None else data
        if data is not None:
            self._trace(self.data(data))

    def __repr__(self) -> str:
        if self._found is None:
            return "Program (has seen no data yet)"
        found = f"latents {_names(self.latents)}; tilts {_names(self.tilts)}; observed {_names(self.observed)}"
        if self.factors:
            found += f"; likelihood factors {_names(self.factors)}"
        if self.covariates:
            found += f"; covariates {', '.join(self.covariates)}"
        if self.deterministic:
            found += f"; deterministic {_names(self.deterministic)}"
        return f"Program in {self.ppl.name}: {found}; data plate {self.plate or 'none'}; {self.coordinates} coordinates"

    def with_coordinates(self, coordinates: str) -> Program:
        """The same program, its latents in other coordinates."""
        return self._changed(options=self.options._replace(coordinates=_checked(coordinates)))

    def with_chains(self, compiled: bool | None = None, precision: str | None = None) -> Program:
        """The same program, its chains run in another way; what is not given stays as it is.

        Args:
            compiled: on Pyro, compile one step of every kernel, which takes seconds for each shape and about
                halves the time of a step; the uncompiled graph is the default. NumPyro compiles in any case.
            precision: "full", or on Pyro "bf16": matrix products and convolutions inside a step in bfloat16,
                learning and reported densities in full precision. `pplebm check` tells the error of the gradient.

        Raises:
            PplebmError: for a precision that is not known, not for this backend, or slower on this device.
        """
        options = self.options
        if precision is not None:
            if precision not in PRECISIONS:
                raise PplebmError(f"precision '{precision}' is not known; choose one of {', '.join(PRECISIONS)}.")
            if precision != "full":
                self._traced.check_bf16()
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


def _names(sites: tuple[Site, ...]) -> str:
    return ", ".join(site.name for site in sites) or "none"


def _checked(coordinates: str) -> str:
    coordinates = OLDER.get(coordinates, coordinates)
    if coordinates not in get_args(Coordinates):
        raise PplebmError(
            f"coordinates '{coordinates}' are not known; choose one of {', '.join(get_args(Coordinates))}."
        )
    return coordinates
