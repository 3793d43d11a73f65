"""Ways to draw from the posteriors of many data at once, each to be put to the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.kernel import Kernel
from pplebm.ppl.language import Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling import chains
from pplebm.sampling.draws import ROWS_AT_ONCE
from pplebm.sampling.sampler import sample

Arrays = dict[str, np.ndarray]


class Posteriors(Protocol):
    """A way to draw from the posterior of every datum."""

    @property
    def name(self) -> str:
        """As it stands in sentences."""
        ...

    def draw(
        self, program: Program, params: Params, x: Data, seed: int, progress: bool | None
    ) -> dict[str, np.ndarray]:
        """Latents in centered coordinates, (chains, draws, data, *event) by site.

        Of a program with global latents, whose whole data have one posterior, they are (chains, draws, *event).
        """
        ...


@dataclass(frozen=True)
class AdjustedChains:
    """Long adjusted chains, `pplebm.sample`: many of every datum, with a few draws of each that lie far apart.

    Draws of one datum should be nearly independent, or their ranks are not uniform even where the chains are right.

    Args:
        n_chains, n_draws: of every datum; their product is the number of draws a rank is among.
        thin: steps per draw.
        n_warmup: steps before.
        kernel: as in `pplebm.sample`.
        coordinates: in which the chains move; the program's own if left out.
    """

    n_chains: int = 10
    n_draws: int = 10
    thin: int = 10
    n_warmup: int = 300
    kernel: Kernel | None = None
    coordinates: str | None = None
    name: str = "adjusted chains"

    def draw(
        self, program: Program, params: Params, x: Data, seed: int, progress: bool | None
    ) -> dict[str, np.ndarray]:
        moving = program.with_coordinates(self.coordinates or program.coordinates)
        draws = sample(
            moving, self.kernel, x, n_chains=self.n_chains, n_draws=self.n_draws, n_warmup=self.n_warmup,
            thin=self.thin, seed=seed, params=params, progress=progress,
        )  # fmt: skip
        return draws.by_row("centered", centered(moving), draws.latents, draws.data)


@dataclass(frozen=True)
class ShortRun:
    """Fresh chains of fixed length, `pplebm.sampling.chains.short_run`: what learning takes for the posterior.

    Args:
        kernel: made by a function of `pplebm.kernels`.
        n_steps: length of the chains.
        n_draws: chains of every datum, one draw each.
        init, coordinates: as in `short_run`.
    """

    kernel: Kernel
    n_steps: int
    n_draws: int = 100
    init: str = "normal"
    coordinates: str = chains.SHORT_RUN_COORDINATES
    name: str = "short runs"

    def draw(
        self, program: Program, params: Params, x: Data, seed: int, progress: bool | None
    ) -> dict[str, np.ndarray]:
        def run(key: Key, rows: Data) -> Latents:
            kernel, n, init = self.kernel, self.n_steps, self.init
            return chains.short_run(
                program, key, params, rows, kernel, n, init=init, coordinates=self.coordinates
            )[0]  # fmt: skip

        return in_parts(program, x, self.n_draws, seed, run)


@dataclass(frozen=True)
class OfGuide:
    """Independent draws of a guide q(z|x).

    Args:
        guide: a `pplebm.guides.guide.Guide`; the program's own if left out.
        n_draws: of every datum.
    """

    guide: Any = None
    n_draws: int = 100
    name: str = "guide"

    def draw(
        self, program: Program, params: Params, x: Data, seed: int, progress: bool | None
    ) -> dict[str, np.ndarray]:
        guide = program.guide if self.guide is None else self.guide
        if guide is None:
            raise PplebmError("the program has no guide: give OfGuide(guide), or program.with_guide(...).")
        own = guide.params | dict(params)
        run = program.compiled(("calibrated guide", id(guide)), lambda key, own, rows: guide.draw(key, own, rows)[0])
        return in_parts(program, x, self.n_draws, seed, lambda key, rows: run(key, own, rows))


def centered(moving: Program) -> Any:
    """A function of parameters, latents and data to the same latents in centered coordinates."""

    def move(params: Params, z: Latents, data: Data | None = None) -> Latents:
        return moving.move(params, z, "centered", data)

    return move


def in_parts(program: Program, x: Data, n_draws: int, seed: int, run: Any) -> Arrays:
    """Independent draws of every datum, (1, n_draws, data, *event), as many at once as a batch may hold.

    Args:
        run: of a key and rows of data to latents.

    Raises:
        PplebmError: for global latents, of which one posterior is drawn at a time.
    """
    program.refuse_global_latents("a short run or a guide")
    ppl, n = program.ppl, n_rows(x)
    size = max(1, min(n_draws, ROWS_AT_ONCE // n))
    rows, parts = take_rows(x, ppl.asarray(np.tile(np.arange(n), size))), []
    for key in ppl.split(ppl.key(seed), -(-n_draws // size)):
        z = run(key, rows)
        parts.append({site: ppl.to_numpy(a).reshape(size, n, *a.shape[1:]) for site, a in z.items()})
    return {site: np.concatenate([p[site] for p in parts])[None, :n_draws] for site in parts[0]}
