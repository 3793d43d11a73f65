"""Samples of a phase, as every source gives them."""

from __future__ import annotations

from typing import Any, NamedTuple

from pplebm.ppl.language import Array, Latents


class Samples(NamedTuple):
    """Latents in centered coordinates; of a guide in learning, the noise they are a function of."""

    z: Latents
    info: Any = None  # figures of the chains that led there, by name
    kept: Any = ()  # what the source goes on from at the next update
    weight: Array | None = None  # one per row, adding up to 1, where rows do not count alike
