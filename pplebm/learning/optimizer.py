r"""Optimizers, from a gradient to new parameters: accumulation, clipping, rates that rise and fall, and the rule."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Count, NonNegative, Positive, Schedule, Share, Whole
from pplebm.learning.gradients import clip, norm
from pplebm.ppl.language import PPL, Array, Params, Rule
from pplebm.ppl.trees import tree_map
from pplebm.program import Program

EXPONENTIAL_END = 0.01  # where an exponential fall of the rates ends


class Accumulated(NamedTuple):
    """The rule's state, and the mean gradient of the batches since its last step, so far."""

    rule: Any
    gradient: Params


class Update(NamedTuple):
    """New parameters, and what a person wants to see of the way there."""

    params: Params
    state: Any
    grad_norm: Array  # before clipping; of the mean so far, where gradients are accumulated
    grad_norm_tilt: Array
    clipped: Array  # whether the gradient was shortened


class Optimizer(NamedTuple):
    r"""An optimizer as data: how parameters follow their gradients.

    The learning rate at update t of T is

    .. math:: \text{learning\_rate} \cdot \min(1, (t + 1) / w)\; g(\min(1, (1 - t/T) / s))

    with warm-up w, the share s of the updates over which rates fall, and g(a) = a ("linear"), :math:`0.01^{1 - a}`
    ("exponential"), 1 ("constant"). Those of the tilts rise besides, over a share of the updates: a base that is yet
    far from the data is moved there by its own parameters, and a tilt that learned the distance would spend its bound
    on what is gone some updates later.

    >>> from types import SimpleNamespace
    >>> import torch, pplebm
    >>> program = pplebm.Program(pplebm.bind("latent_ebm", shape=(2,), latent_dim=1))
    >>> optimizer = Optimizer(rule="sgd", arguments="momentum=0.9")
    >>> state = optimizer.init(program.ppl, program.params)
    >>> gradient = {name: torch.ones_like(p) for name, p in program.params.items()}
    >>> new = optimizer.update(program, program.params, gradient, state, 0, 100)
    >>> sorted(new.params) == sorted(program.params), round(float(new.grad_norm) ** 2) == sum(
    ...     p.numel() for p in program.params.values())
    (True, True)
    """

    learning_rate: NonNegative = 1e-3  # of all parameters but the tilts' and the guide's
    learning_rate_tilt: NonNegative = 1e-3  # of the parameters that enter tilts alone
    learning_rate_guide: NonNegative = 1e-3  # of a guide's own, which are networks even where the model has none
    decay_share: Share = 0.3  # of the updates, at the end, over which the rates fall
    schedule: Schedule = "linear"  # of that fall to zero; "exponential" ends at a hundredth, "constant" does not fall
    warmup: Whole = 0  # updates at the beginning over which rates rise
    warmup_tilt: Share = 0.0  # of the updates, at the beginning, over which those of the tilts rise besides
    accumulate: Count = 1  # batches to a step of the rule: more where memory holds small batches only
    clip_norm: Positive = 100.0  # longest gradient of all parameters; ordinary norms are 10 to 50
    rule: str = "adam"  # or one of torch.optim or optax by name, or the path of one's own, package.module.name
    arguments: str = ""  # of that rule, as in a call: "momentum=0.9, nesterov=True"

    def init(self, ppl: PPL, params: Params) -> Any:
        """State before the first update.

        Raises:
            PplebmError: for a rule that is not known, or arguments that it does not take.
        """
        state = self._rule(ppl).init(params)
        return state if self.accumulate == 1 else Accumulated(state, {n: 0.0 * p for n, p in params.items()})

    def is_graph(self, ppl: PPL) -> bool:
        """Whether an update can be part of a graph of operations."""
        return self._rule(ppl).is_graph

    def factor(self, ppl: PPL, update: Any, n_updates: int) -> Array:
        """Factor of the rates at an update, a scalar.

        >>> import pplebm.backends.pyro as ppl
        >>> optimizer = Optimizer(decay_share=0.5, warmup=10)
        >>> [round(float(optimizer.factor(ppl, t, 100)), 2) for t in (0, 9, 50, 75, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
        """
        left = _at_most_one(ppl, (1.0 - update / n_updates) / max(self.decay_share, 1e-6))
        risen = _at_most_one(ppl, (update + 1.0) / max(self.warmup, 1))
        falls = {"linear": left, "exponential": ppl.exp(math.log(EXPONENTIAL_END) * (1.0 - left)), "constant": 1.0}
        return risen * falls[self.schedule]

    def factor_tilt(self, ppl: PPL, update: Any, n_updates: int) -> Array:
        """Factor of the tilts' rates at an update besides, a scalar.

        >>> import pplebm.backends.pyro as ppl
        >>> optimizer = Optimizer(warmup_tilt=0.1)
        >>> [round(float(optimizer.factor_tilt(ppl, t, 100)), 2) for t in (0, 4, 9, 50)]
        [0.1, 0.5, 1.0, 1.0]
        """
        return _at_most_one(ppl, (update + 1.0) / max(self.warmup_tilt * n_updates, 1.0))

    def update(
        self,
        program: Program,
        params: Params,
        gradient: Params,
        state: Any,
        update: Any,
        n_updates: int,
        factors: Mapping[str, Any] | None = None,
        of_guide: Collection[str] = (),
    ) -> Update:
        """One step of the rule on a clipped gradient; with `accumulate` k > 1 after every k-th, on the mean of k.

        Args:
            program: says which parameters are the tilts'.
            params: of the model, its guide and whatever else learns.
            gradient: of a loss that falls, by name.
            state: of `init`, or of the update before.
            update: number of updates done.
            n_updates: of the whole run.
            factors: further factors of rates by name; 0 holds a parameter still.
            of_guide: names of the parameters that are a guide's own.
        """
        ppl, k, rule = program.ppl, self.accumulate, self._rule(program.ppl)
        if k > 1:
            gradient = {name: g + gradient[name] / k for name, g in state.gradient.items()}
        like = next(iter(gradient.values())).sum()
        norm_tilt = norm({n: g for n, g in gradient.items() if n in program.tilt_params}, like=like)
        clipped, norm_all = clip(ppl, gradient, self.clip_norm)
        factor = self.factor(ppl, update, n_updates)
        rate, own, of_kind = factor * self.learning_rate, self.learning_rate_guide, dict[str, Any]()
        if own != self.learning_rate:
            of_kind = dict.fromkeys(of_guide, factor * own)
        risen = self.factor_tilt(ppl, update, n_updates)
        of_kind |= dict.fromkeys(program.tilt_params, risen * factor * self.learning_rate_tilt)
        rates = {name: of_kind.get(name, rate) for name in params}
        scaled: dict[Any, Any] = {}  # equal rates stay one object, by which a rule can tell them
        for name, further in (factors or {}).items():
            rates[name] = scaled.setdefault(
                (id(further), id(rates[name])), (further, rates[name], further * rates[name])
            )[2]
        before = state.rule if k > 1 else state
        new, after = rule.update(params, clipped, before, rates)
        if k > 1:
            is_full = ppl.asarray(1.0 * ((update + 1) % k)) < 0.5
            choose = lambda a, b: tree_map(lambda a, b: ppl.where(is_full, a, b), a, b)
            kept = choose({name: 0.0 * g for name, g in gradient.items()}, gradient)
            new, after = choose(new, dict(params)), Accumulated(choose(after, before), kept)
        return Update(new, after, norm_all, norm_tilt, norm_all > self.clip_norm)

    def _rule(self, ppl: PPL) -> Rule:
        return ppl.optimizer(self.rule, **_keywords(self.arguments))


def _at_most_one(ppl: PPL, a: Any) -> Array:
    a = ppl.asarray(a)
    return ppl.where(a < 1.0, a, 1.0 + 0.0 * a)


def _keywords(text: str) -> dict[str, Any]:
    """Arguments as in a call, by name.

    >>> _keywords("momentum=0.9, betas=(0.5, 0.9)")
    {'momentum': 0.9, 'betas': (0.5, 0.9)}
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError) as error:
        raise PplebmError(f"optimizer arguments '{text}' are none; write them as in a call: momentum=0.9.") from error
