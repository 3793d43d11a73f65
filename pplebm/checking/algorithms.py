"""What can be wrong with an algorithm page: tried on small models of the gallery."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pplebm.checking.findings import Checklist, Verdict
from pplebm.gallery import pages as gallery
from pplebm.gallery.hyper import flat, override
from pplebm.learning import loop
from pplebm.learning.algorithm import Algorithm
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Source
from pplebm.ppl.language import PPL
from pplebm.ppl.trees import tree_leaves
from pplebm.program import Program
from pplebm.runs import checkpoints

N, D = 24, 4  # data and their dimension
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "conjugate tilt": ("conjugate_tilt", {}),
    "one layer": ("latent_ebm", {"latent_dim": 3, "width": 8, "tilt_width": 8}),
    "no tilt": ("latent_ebm", {"latent_dim": 3, "width": 8, "tilted": False}),
}
OF_DATA: dict[str, tuple[str, dict[str, Any]]] = {  # for pages that take no program with latents
    "one layer": ("data_ebm", {"tilt_width": 8}),
    "linear tilt": ("data_ebm", {"depth": 0}),
}


def check(items: Checklist, page: ModuleType, changes: dict[str, Any], seed: int) -> None:
    """Add the findings on an algorithm page to a checklist."""
    settings = override(page.Hyper(), changes, f"algorithm '{gallery.page_name(page)}'") if changes else None
    items.look("names", lambda: _names(page), essential=True)
    items.look("hyperparameters", lambda: _hyper(page), essential=True)
    cases = OF_DATA if getattr(page, "WITHOUT_LATENTS", False) else CASES
    for name, (model, hyper) in cases.items():
        items.look(name, _Case(page, settings, model, hyper, seed).learns, essential=True)
    items.look("checkpoint", _Case(page, settings, *cases["one layer"], seed).survives)


def _names(page: ModuleType) -> Verdict:
    missing = [name for name in ("PAPER", "DEVIATIONS", "Hyper") if not hasattr(page, name)]
    if missing:
        return False, f"it lacks {', '.join(missing)}; compare with inference/_template.py"
    if not hasattr(page.Hyper, "_fields"):
        return False, "Hyper must be a NamedTuple"
    own = [name for name in ("positive", "negative", "rates", "init", "step") if hasattr(page, name)]
    return True, f"it has a loss and {', '.join(own) or 'nothing else of its own'}" if hasattr(page, "loss") else (
        "it has a step of its own"
    )


def _hyper(page: ModuleType) -> Verdict:
    without = [f for f in page.Hyper._fields if f not in page.Hyper._field_defaults]
    if without:
        return False, f"{', '.join(without)} of Hyper has no default"
    missing = [f for f in ("updates", "batch_size") if not isinstance(getattr(page.Hyper(), f, None), int)]
    if missing:
        return False, f"Hyper needs whole numbers {', '.join(missing)}, which `pplebm fit` reads"
    if not hasattr(page, "step"):
        wanted: dict[str, Any] = {"optimizer": Optimizer, "posterior": Source, "prior": Source}
        own = {"posterior": hasattr(page, "positive"), "prior": hasattr(page, "negative")}
        wrong = [f for f, t in wanted.items() if not (isinstance(getattr(page.Hyper(), f, None), t) or own.get(f))]
        if wrong:
            return False, f"Hyper needs {', '.join(wrong)}, see pplebm.learning.{{optimizer,sources}}"
    return True, f"{len(flat(page.Hyper()))}, all with defaults"


class _Case:
    """The algorithm on one small model and small data."""

    def __init__(self, page: ModuleType, settings: Any, model: str, hyper: dict[str, Any], seed: int) -> None:
        self.page, self.seed, self.model, self.model_hyper = page, seed, model, hyper
        self.settings = settings
        self.data = np.random.default_rng(seed).normal(size=(N, D)).astype(np.float32)

    def _begin(self) -> tuple[Algorithm, Any, loop.Progress]:
        model = gallery.bind(self.model, "pyro", shape=(D,), seed=self.seed, **self.model_hyper)
        program = Program(model, data=self.data[:5], seed=self.seed)
        hyper = (self.page.Hyper() if self.settings is None else self.settings)._replace(batch_size=N // 2)
        algorithm, x = Algorithm(self.page, program, hyper), program.ppl.asarray(self.data[: N // 2])
        return algorithm, x, loop.begin(algorithm, x, self.seed, len(self.data))

    def learns(self) -> Verdict:
        algorithm, x, begin = self._begin()
        ppl = algorithm.ppl
        if "params" not in getattr(begin.state, "_fields", ()):
            return False, "init must return a State, a NamedTuple with a field `params`"
        key = ppl.split(ppl.key(self.seed))[0]
        state, info = algorithm.step(key, begin.state, x)
        if type(state) is not type(begin.state):
            return False, f"step must return the State that init returns, got a {type(state).__name__}"
        bad = [n for n, v in info.items() if not _is_scalar(v) or not np.isfinite(float(v))]
        if bad:
            return False, f"what is reported must be finite scalars, and these are not: {', '.join(bad)}"
        if unnamed := [n for n in info if n not in algorithm.reports]:
            return False, f"REPORTS does not say what {', '.join(unnamed)} mean"
        again, _ = algorithm.step(key, begin.state, x)
        if self._differ(ppl, state, again):
            return False, "two steps from one state and one key differ, so runs could not be repeated or resumed"
        changed = [n for n in self._differ(ppl, state, begin.state) if not n.startswith(("optimizer", "update"))]
        if not changed:
            return False, "nothing moved in one step"
        return self._draws(algorithm, x, state.params, f"one step moved {len(changed)}")

    def _draws(self, algorithm: Algorithm, x: Any, params: Any, sentence: str) -> Verdict:
        """Latents of both phases have the shapes of the program, and shares of divergent chains are numbers."""
        program, key = algorithm.program, algorithm.ppl.key(self.seed)
        for what, found in (
            ("posterior", algorithm.positive(key, params, x)),
            ("prior", algorithm.negative(key, params, program.prior_rows(x))),
        ):
            wanted = {s.name: (len(x), *s.shape) for s in program.latents}
            got = {name: tuple(v.shape) for name, v in found.z.items()}
            if got != wanted:
                return False, f"draws of the {what} must be latents of shapes {wanted}, got {got}"
            share = 0.0 if found.info is None else found.info.divergent
            if not _is_scalar(share) or not 0.0 <= float(share) <= 1.0:
                return False, f"the share of divergent chains of the {what} must be one number in [0, 1]"
        return True, f"{sentence} arrays, what is reported is finite, steps repeat, draws have the right shapes"

    def survives(self) -> Verdict:
        algorithm, _, begin = self._begin()
        progress, _ = next(loop.updates(algorithm, self.data, self.seed, begin, at_most=1))
        with tempfile.TemporaryDirectory() as folder:
            checkpoints.write_checkpoint(Path(folder), algorithm.ppl, progress)
            back = checkpoints.read_checkpoint(Path(folder), algorithm.ppl, begin)
        lost = self._differ(algorithm.ppl, progress, back)
        return not lost, f"it changes {', '.join(lost[:4])}" if lost else "the state goes to a file and back unchanged"

    def _differ(self, ppl: PPL, a: Any, b: Any) -> list[str]:
        """Paths of the leaves in which two trees differ."""

        def plain(leaf: Any) -> Any:
            return ppl.to_numpy(leaf) if hasattr(leaf, "shape") else leaf

        left, right = dict(tree_leaves(a)), dict(tree_leaves(b))
        return [n for n in left if n not in right or not np.array_equal(plain(left[n]), plain(right[n]))]


def _is_scalar(value: Any) -> bool:
    return np.prod(getattr(value, "shape", ()), dtype=int) == 1
