"""One chain of a model's joint posterior, as the hosts' `MCMC` want it: the half that both share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import AdaptingState, adapted, adapting, next_window, windows
from pplebm.kernels.kernel import Info, Kernel, LogDensity, State
from pplebm.ppl.language import PPL, Key, Latents

ONE_CHAIN = (1, 1, 1)  # replicas, chains, data

Change = Callable[[AdaptingState], AdaptingState]


class OneChain:
    """A kernel of pplebm and its warm-up, for one chain: states have a single row.

    The potential is the host's own, so plates, supports, tilts and factors mean what they mean there, and there is one
    accept decision for all data together. `pplebm.sample` decides by datum; use it where that matters.

    Args:
        model: a model of the host; or
        potential_fn: a function of unconstrained latents by name; it needs a start, `initial_params` or `init_params`.
        settings: of the kernel, see the function it is named after.

    Raises:
        PplebmError: if not one of model and potential_fn is given, or for settings that the kernel refuses.
    """

    _ppl: PPL
    _make: Callable[..., Kernel]
    _made: tuple[str, ...] = ()  # attributes that a run makes, which other processes make for themselves

    def __init__(
        self, model: Callable[..., Any] | None = None, potential_fn: Callable[..., Any] | None = None, **settings: Any
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise PplebmError(f"{type(self).__name__} needs a model or a potential_fn, one of them.")
        self.model, self._given_potential, self._settings = model, potential_fn, settings
        self._n_warmup = 0
        assert self.kernel  # what is wrong with the settings shows now

    def __getstate__(self) -> dict[str, Any]:
        """The kernel as other processes get it, without what a run made."""
        return self.__dict__ | dict.fromkeys(self._made)

    @property
    def kernel(self) -> Kernel:
        """The kernel without its warm-up."""
        return type(self)._make(**self._settings)

    @property
    def adapts(self) -> bool:
        """Whether step size and metric are learned; states are then an `AdaptingState`, after warm-up as well."""
        return self.kernel.tuning is not None and self._n_warmup > 0

    def init_chain(self, z: Latents, log_density: LogDensity) -> State:
        """State before the first step."""
        kernel = adapting(self.kernel, ONE_CHAIN) if self.adapts else self.kernel
        return kernel.init(self._ppl, z, log_density)

    def warming_step(self, key: Key, state: AdaptingState, log_density: LogDensity) -> tuple[AdaptingState, Info]:
        """One step of warm-up."""
        return adapting(self.kernel, ONE_CHAIN)(self._ppl, key, state, log_density)

    def settled_step(self, key: Key, state: State, log_density: LogDensity) -> tuple[State, Info]:
        """One step after warm-up, or of a kernel that needs none."""
        if not self.adapts:
            return self.kernel(self._ppl, key, state, log_density)
        inner, info = self.kernel(self._ppl, key, state.inner, log_density)
        return state._replace(inner=inner), info

    def window_ends(self) -> list[tuple[int, Change]]:
        """Steps of warm-up after which a window ends, and what becomes of the state there."""
        found, at = list[tuple[int, Change]](), 0
        for length, metric in windows(self._n_warmup):
            at += length
            found.append((at, self._settle if at == self._n_warmup else self._next_window(metric)))
        return found

    def _settle(self, state: AdaptingState) -> AdaptingState:
        return state._replace(inner=adapted(self._ppl, state, ONE_CHAIN))

    def _next_window(self, metric: bool) -> Change:
        return lambda state: next_window(self._ppl, state, ONE_CHAIN, metric)
