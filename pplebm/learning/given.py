"""Samples of the posterior of a program whose latents have the data for their values: the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pplebm.learning.adjusted import AdjustedChains, AdjustedInfo
from pplebm.learning.samples import Samples
from pplebm.ppl.language import Data, Params
from pplebm.sampling.weighted import repeated

if TYPE_CHECKING:
    from pplebm.learning.algorithm import Algorithm


def given(algorithm: Algorithm, source: Any, params: Params, rows: Data) -> Samples:
    """The data as latents, as often as the source has chains of a datum; its figures are those of exact draws."""
    program, ppl = algorithm.centered, algorithm.ppl
    params = ppl.stop_gradient(params)
    z = program.given_latents(params, rows)
    if not isinstance(source, AdjustedChains):
        return Samples(z)
    total = program.log_given(params, rows)
    error = (((total - total.mean()) ** 2).mean() / len(total)) ** 0.5
    none = 0.0 * error
    info = AdjustedInfo(none + 1.0, none + 1.0, none, total.mean(), error)
    return Samples(repeated(ppl, z, source.particles) or z, info)
