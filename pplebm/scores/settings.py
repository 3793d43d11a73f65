"""Settings of scores that draw latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pplebm.errors import PplebmError


@dataclass(frozen=True)
class Settings:
    """How a score is estimated.

    Raises:
        PplebmError: for numbers out of range.
    """

    n_chains: int = 16  # of every datum; the spread of their means is the error
    n_draws: int = 20  # of each chain
    n_warmup: int = 200
    n_warmup_lower: int = 100  # of chains of lower layers given upper ones
    n_draws_lower: int = 4  # of each of those
    temperature: float = 9.0  # that the log likelihood is divided by in the score "tempered"
    layers: Sequence[Any] | None = None  # names of sites, next to the data first
    seed: int = 0
    rows_at_once: int | None = None
    progress: bool | None = None
    evidence: dict[str, Any] = field(default_factory=dict)  # settings of `pplebm.log_evidence`

    def __post_init__(self) -> None:
        """Check them."""
        for name, least in (("n_chains", 2), ("n_draws", 1), ("n_warmup", 0), ("n_warmup_lower", 0),
                            ("n_draws_lower", 1)):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise PplebmError(f"{name} must be an integer from {least} on, got {value!r}.")
        if not isinstance(self.temperature, (int, float)) or not self.temperature > 0:
            raise PplebmError(f"temperature must be positive, got {self.temperature!r}.")

    @property
    def of_evidence(self) -> dict[str, Any]:
        """Settings of `pplebm.log_evidence`."""
        common = {"seed": self.seed, "rows_at_once": self.rows_at_once, "progress": self.progress}
        return common | self.evidence
