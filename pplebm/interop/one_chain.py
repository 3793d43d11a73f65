"""One chain of a model's joint posterior, as the hosts' `MCMC` want it: the half that both share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import AdaptingState, adapted, adapting, next_window, windows
from pplebm.kernels.batch import at_step, schedule
from pplebm.kernels.kernel import Info, Kernel, LogDensity, State
from pplebm.ppl.language import PPL, Array, Key, Latents

ONE_CHAIN = (1, 1, 1)  # replicas, chains, data

Change = Callable[[AdaptingState], AdaptingState]


class Figures(NamedTuple):
    """Figures of one step of the chain, numbers without axes, named as those of the hosts' own kernels."""

    accept_prob: Array  # 1 of kernels that accept every step
    num_steps: Array  # gradients it took
    energy: Array  # -log density plus the kinetic energy; nan of kernels without momentum
    step_size: Array  # of the next step; nan where sites have step sizes of their own


class OneChain:
    """A kernel of pplebm and its warm-up, for one chain: states have a single row.

    The potential is the host's own, so plates, supports, tilts and factors mean what they mean there, and there is one
    accept decision for all data together. `pplebm.sample` decides by datum; use it where that matters.

    Args:
        model: a model of the host; or
        potential_fn: a function of unconstrained latents by name; it needs a start, `initial_params` or `init_params`.
        init_strategy: where a model's chain starts, one of the host's `init_to_...`, as for its own HMC and NUTS.
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
        self.model, self._given_potential = model, potential_fn
        self._settings = self._with_defaults(settings)
        self._n_warmup = 0
        assert self.kernel  # what is wrong with the settings shows now

    def _with_defaults(self, settings: dict[str, Any]) -> dict[str, Any]:
        signature = inspect.signature(type(self)._make)
        try:
            bound = signature.bind(**settings)
        except TypeError as error:
            names = ", ".join(signature.parameters)
            raise PplebmError(f"{type(self).__name__}: {error}; its settings are {names}.") from None
        bound.apply_defaults()
        return bound.arguments

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

    def figures(self, state: State, info: Info) -> Figures:
        """What there is to see of a step, for the state after it."""
        energy = info.energy[0] if hasattr(info, "energy") else math.nan
        accept_prob = info.accept_prob[0] if hasattr(info, "accept_prob") else 1.0
        num_steps = info.num_steps[0] if hasattr(info, "num_steps") else 1
        return Figures(accept_prob, num_steps, energy, self.step_size(state))

    def step_size(self, state: State) -> Array:
        """Length of the next step; nan where sites have step sizes of their own."""
        inner = state.inner if isinstance(state, AdaptingState) else state
        if hasattr(inner, "step_size"):
            return inner.step_size[0]
        given = self._settings["step_size"]
        return math.nan if isinstance(given, Mapping) else at_step(self._ppl, schedule(given, "step_size"), inner.step)

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
