"""The two phases of an algorithm page on a program, for use after or beside learning: compiled once per shape."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from pplebm.ppl.language import Data, Latents, Params
from pplebm.program import Program


class Phases:
    """Draws of the posterior and of the tilted prior as `page` makes them, in centered coordinates."""

    def __init__(self, program: Program, page: ModuleType, hyper: Any) -> None:
        self._program, self._page, self._hyper, ppl = program, page, hyper, program.ppl
        self._priors: dict[int | str, Callable[..., Latents]] = {}
        self._posterior: Callable[..., Latents] = ppl.compiled(
            lambda key, params, x: page.posterior(ppl, key, program, params, x, hyper)[0]
        )

    def posterior(self, key: Any, params: Params, x: Data) -> Latents:
        """One latent per datum given data x, in model units."""
        return self._posterior(key, params, x)

    def prior(self, key: Any, params: Params, n: Data | int) -> Latents:
        """n latents of the tilted prior; or one given the covariates of every row of data."""
        program, page, hyper, ppl = self._program, self._page, self._hyper, self._program.ppl
        if not isinstance(n, int):
            if "given" not in self._priors:
                self._priors["given"] = ppl.compiled(
                    lambda key, params, given: page.prior(ppl, key, program, params, given, hyper)[0]
                )
            return self._priors["given"](key, params, n)
        if n not in self._priors:
            self._priors[n] = ppl.compiled(lambda key, params: page.prior(ppl, key, program, params, n, hyper)[0])
        return self._priors[n](key, params)
