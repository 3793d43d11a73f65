r"""The program as a simulator for packages that calibrate by themselves, such as simuk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Latents, Params
from pplebm.ppl.trees import n_rows
from pplebm.program import Program


class Simulator:
    r"""Simulates data at latents that somebody else has drawn, as simuk's `SBC(..., simulator=)` asks for.

    It is called with the values of all latent sites of one simulation and a `seed`, by name, and returns a dictionary
    of the observed sites. simuk then puts these into the model by the names of its arguments, so that an observed site
    must be named like the argument that it reads.

    simuk draws the latents by a forward run of the host, which ignores tilts: they are draws of the base, and the ranks
    of right posteriors are not uniform. They are so when every rank counts with the weight of its latents,

    .. math:: w \propto e^{f(z)}, \qquad z \sim p_0, \; x \sim p(x|z) \;\Rightarrow\;
              (z, x) \text{ weighted } \sim \tilde p(z)\, p(x|z) / Z

    which `log_weights` gives. `pplebm.calibration.sbc.sbc` needs no weights, and runs all simulations in one batch.

    Args:
        program: without global latents.
        given: data with whatever else the model reads.
        params: where the program's parameters are not to be its own.

    Raises:
        PplebmError: for global latents, or an observed site that is named like no argument of the model.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", 2. * z)
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> simulator = Simulator(pplebm.Program(model, data=torch.zeros(3)))
        >>> simulator(z=[0., 1., 2.], seed=4)["x"].shape
        (3,)
        >>> simulator.log_weights({"z": [[0., 1., 2.]]}).tolist()
        [[0.0, 2.0, 4.0]]
    """

    def __init__(self, program: Program, given: Any = None, params: Params | None = None) -> None:
        program.refuse_global_latents("a simulator")
        for site in program.observed:
            if site.name not in program.signature.names:
                raise PplebmError(
                    f"observed site '{site.name}' is named like no argument of the model "
                    f"({', '.join(program.signature.names)}), by which simulated data would be put into it; rename one."
                )
        self.program = program.with_coordinates("centered")
        self.params = program.params if params is None else dict(params)
        self.given = None if given is None else program.data(given)

    def __call__(self, *, seed: int, **latents: Any) -> dict[str, np.ndarray]:
        """Data of the observed sites, (rows, *event), at the latents of one simulation.

        Args:
            seed: of the data.
            latents: values by latent site, (rows, *event) each in its support; other names, such as those of
                deterministic sites, are not looked at.

        Raises:
            PplebmError: for a latent site that is missing, or of another shape.
        """
        program = self.program
        z = self._latents(latents)
        found = program.predict(self.params, z, program.ppl.key(int(seed)), self.given)
        return {site.name: program.ppl.to_numpy(found[site.name]) for site in program.observed}

    def log_weights(self, latents: Mapping[str, Any]) -> np.ndarray:
        """Sum of the tilts of every row of every simulation, (simulations, rows): how much its ranks count.

        Args:
            latents: values by latent site, (simulations, rows, *event), as the other package drew them.
        """
        program = self.program
        n = len(np.asarray(latents[program.latents[0].name]))
        parts = []
        for i in range(n):
            z = self._latents({site.name: np.asarray(latents[site.name])[i] for site in program.latents})
            parts.append(program.ppl.to_numpy(program.log_tilt(self.params, z, self.given)))
        return np.stack(parts)

    def _latents(self, values: Mapping[str, Any]) -> Latents:
        program, found = self.program, {}
        n = None if self.given is None else n_rows(self.given)
        for site in program.latents:
            if site.name not in values:
                raise PplebmError(f"latent site '{site.name}' is missing; got {', '.join(values) or 'none'}.")
            a = np.asarray(values[site.name])
            n = len(a) if n is None and a.ndim else n
            if a.shape != (n, *site.shape):
                raise PplebmError(f"latent site '{site.name}' has shape {a.shape}; expected {(n, *site.shape)}.")
            found[site.name] = program.ppl.asarray(a)
        return program.unconstrain(self.params, found, self.given)
