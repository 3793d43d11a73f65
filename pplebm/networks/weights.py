"""What a layer says of its weights."""

from __future__ import annotations

from typing import NamedTuple

Shape = tuple[int, ...]


class Weights(NamedTuple):
    """Shapes of a layer's weights, and the number of terms in one of its outputs."""

    weight: Shape
    bias: int  # 0: there is none
    fan_in: float
