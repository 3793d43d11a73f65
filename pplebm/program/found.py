"""What tracing a model found: sites, parameters, and which data are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pplebm.errors import PplebmError
from pplebm.ppl.language import PPL, ChainOptions, Data, Params, Reads, Site, Traced

Coordinates = Literal["centered", "noncentered"]


class Found:
    """The part of a program that says what its model is made of."""

    ppl: PPL
    options: ChainOptions
    seed: int
    _model: Callable[..., Any]
    _plate: str | None  # as the user named it
    _found: Traced | None
    _params: Params | None  # given since the first run

    def _trace(self, data: Data) -> None:
        self._found = self.ppl.trace(self._model, data, self._plate, self.seed)

    @property
    def _traced(self) -> Traced:
        if self._found is None:
            raise PplebmError("the program has seen no data yet; pass a batch: Program(model, data=x[:5]).")
        return self._found

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
    def given(self) -> tuple[str, ...]:
        """Latents that data are values of: all of a program whose tilts stand on observed sites, otherwise none."""
        return self._traced.structure.given

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

    def params_of(self, values: Mapping[str, Any]) -> Params:
        """Parameters by name from those that the backend's SVI holds: constrained in NumPyro, unconstrained in Pyro.

        Raises:
            PplebmError: if one is missing.
        """
        return self._traced.params_of(values)

    def params_in_supports(self, params: Params | None = None) -> Params:
        """Values that the model sees of the parameters that it declares with a constraint, such as a positive scale.

        `params` holds these unconstrained; parameters without a constraint are the same on both scales and left out.
        """
        return self._traced.params_in_supports(self._own(self.params if params is None else params))

    def write_back(self, params: Params) -> None:
        """Copy parameter values into the model's own modules and parameters, as a Pyro user expects after learning."""
        self._traced.write_back(self._own(params))

    def _own(self, params: Params) -> Params:
        """Parameters of this program among others, such as those of its guide."""
        return {name: params[name] for name in self._traced.params}

    def work(self, n: int) -> int:
        """Rough number of multiplications of one density evaluation on n data: parameters times data."""
        return n * sum(int(math.prod(p.shape)) for p in self._traced.params.values())

    def refuse_given(self, method: str) -> None:
        """Raise if data are the values of all latents, so that there is no posterior to know more about."""
        if self.given:
            raise PplebmError(
                f"every site of the program is observed ({', '.join(self.given)}) and none is left that {method} could "
                f"infer; ask for log_evidence, log_z or draws of the prior."
            )

    def refuse_global_latents(self, method: str) -> None:
        """Raise if a latent stands outside the data plate, which per-datum methods cannot handle."""
        backend = self.ppl.name
        for site in self.latents:
            if not self.plate:
                raise PplebmError(
                    f"latent site '{site.name}' stands in no data plate, which {method} needs: put per-datum sites "
                    f"inside `with {backend}.plate('data', len(x)):`, or sample them all with pplebm.sample."
                )
            if not site.is_local:
                raise PplebmError(
                    f"latent site '{site.name}' stands outside the data plate '{self._traced.structure.plate}': a "
                    f"global latent, which {method} cannot handle; make it a pyro.param, or move it into the plate."
                )
