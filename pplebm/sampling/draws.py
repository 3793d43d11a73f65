"""Draws by site as `pplebm.sample` returns them, figures of the kernel, and the state to go on from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from pplebm.errors import PplebmError
from pplebm.kernels.kernel import State
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_fill, tree_leaves
from pplebm.program import Program

# Kept of every kernel that has them.
STANDARD_STATS = ("log_density", "accept_prob", "is_divergent", "energy", "num_steps", "step_size")
ROWS_AT_ONCE = 20_000  # draws of data that are transformed at once


class Plan(NamedTuple):
    """Everything that fixes the draws of a call."""

    target: str  # checksum of the program's sites, its parameters and the data
    kernel: str
    n_chains: int
    n_data: int
    n_draws: int
    n_warmup: int
    thin: int
    seed: int
    extra_fields: tuple[str, ...]
    rows_at_once: int  # chains x data of one batch


class Draws:
    """Draws of a posterior or a prior, `draws[site]` of shape (chains, draws, data, *event).

    The axis of the data is there for programs whose latents all stand in the data plate, of a posterior or of a prior
    given covariates; a prior that reads none, and programs with a global latent, have none. Values are in the supports
    of the sites, deterministic sites among them, as NumPy arrays.

    Attributes:
        program, params, data: what was sampled; data is None for a prior that reads none.
        is_prior: whether observed values were left out.
        stats: figures of the kernel, (chains, draws, data) each: `log_density`, and if the kernel has them
            `accept_prob`, `is_divergent`, `energy`, `num_steps`, `step_size`, and the extra fields.
        state: of the kernel, to go on from: that after the last step, or a few steps before it.
        facts: figures about the run, `seconds` among them.
    """

    def __init__(
        self, program: Program, params: Params, data: Data | None, plan: Plan, state: State, is_prior: bool = False
    ) -> None:
        self.program, self.params, self.data, self.plan, self.state = program, params, data, plan, state
        self.is_prior = is_prior or data is None
        self.block = 0  # blocks of warm-up done
        self.begun: tuple[Any, list[Draws]] = (None, [])  # a block that is done for some of the data
        self.facts: dict[str, float] = {"seconds": 0.0}
        self._latents: list[dict[str, np.ndarray]] = []
        self._values: tuple[int, dict[str, np.ndarray]] = (0, {})
        self._stats: list[dict[str, np.ndarray]] = []

    def __repr__(self) -> str:
        what = "prior" if self.is_prior else "posterior"
        shapes = ", ".join(f"{name} {a.shape}" for name, a in self.latents.items())
        return f"Draws of the {what}: {self.n_draws} of {self.plan.n_draws} by {self.plan.n_chains} chains; {shapes}"

    def __getitem__(self, site: str) -> np.ndarray:
        if site not in self.values:
            raise PplebmError(f"there are no draws of '{site}'; there are {', '.join(self.values) or 'none yet'}.")
        return self.values[site]

    @property
    def latents(self) -> dict[str, np.ndarray]:
        """Draws by site in the coordinates of the program, unconstrained."""
        return _joined(self._latents)

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Draws by site, in the supports of the sites."""
        if self._values[0] != self.n_draws:
            values = self.by_row("values", self._values_of, self.latents, self.data)
            self._values = (self.n_draws, values)
        return self._values[1]

    def _values_of(self, params: Params, z: Latents, data: Data | None = None) -> dict[str, Array]:
        return self.program.constrain(params, z, data)

    def by_row(
        self,
        name: str,
        function: Callable[..., dict[str, Array]],
        latents: dict[str, np.ndarray],
        x: Data | None = None,
        key: Key | None = None,
    ) -> dict[str, np.ndarray]:
        """Apply a function of parameters and latents, (rows, *event), and data if given, to draws, part by part.

        Args:
            name: of the function, under which it is kept compiled.
            function: of params, of z, of data and of a key if these are given, to arrays by name, a row each.
            latents: (chains, draws, data, *event) by site, or without data axis.
            x: data, one for each of the data axis; a joint program's are given whole.
            key: a new one is made of it for every part.
        """
        if not latents:
            return {}
        ppl, n_leading = self.program.ppl, 3 if self.has_data_axis else 2
        leading = next(iter(latents.values())).shape[:n_leading]
        flat = {site: a.reshape(-1, *a.shape[n_leading:]) for site, a in latents.items()}
        n, size = math.prod(leading), min(ROWS_AT_ONCE, math.prod(leading))
        run, parts = self.program.compiled((name, x is None, key is None), function), []
        keys = [] if key is None else ppl.split(key, -(-n // size))
        for i, at in enumerate(range(0, n, size)):
            rows = np.arange(at, at + size) % n  # the last part is filled up, so that shapes repeat
            given: list[Any] = [self.params, {site: ppl.asarray(a[rows], keep=True) for site, a in flat.items()}]
            if x is not None:
                given.append(x if self.program.has_global_latents else take_rows(x, ppl.asarray(rows % n_rows(x))))
            if key is not None:
                given.append(keys[i])
            part = run(*given)
            parts.append({name: ppl.to_numpy(a)[: n - at] for name, a in part.items()})
        whole = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return {name: a.reshape(*leading, *a.shape[1:]) for name, a in whole.items()}

    @property
    def stats(self) -> dict[str, np.ndarray]:
        """Figures of the kernel, by name."""
        return _joined(self._stats)

    @property
    def n_draws(self) -> int:
        """Draws of each chain so far."""
        return sum(next(iter(part.values())).shape[1] for part in self._latents)

    @property
    def has_data_axis(self) -> bool:
        """Whether the third axis is the data's."""
        return self.data is not None and not self.program.has_global_latents

    @property
    def n_divergent(self) -> int:
        """Divergent steps among those after warm-up."""
        return int(self.stats["is_divergent"].sum()) if "is_divergent" in self.stats else 0

    def add(self, latents: dict[str, np.ndarray], stats: dict[str, np.ndarray]) -> None:
        """Append draws, (chains, new draws, ...) each."""
        self._latents.append(latents)
        self._stats.append(stats)

    def continued(self, plan: Plan) -> Draws:
        """The same draws to go on from by another plan; these stay as they are."""
        check_plan(self.plan, plan, self.n_draws)
        other = Draws(self.program, self.params, self.data, plan, self.state, self.is_prior)
        other.block, other.facts, other.begun = self.block, dict(self.facts), (self.begun[0], list(self.begun[1]))
        if self.n_draws:
            other.add(dict(self.latents), dict(self.stats))
        return other

    def checkpoint(self, at_once: bool = True) -> None:
        """A block is done: draws that are kept elsewhere are put there now; by default without delay."""

    def last(self) -> dict[str, np.ndarray]:
        """The last draw of every chain, (chains, data, *event)."""
        return {site: a[:, -1] for site, a in self.values.items()}

    def save(self, path: str | Path) -> None:
        """Write everything needed to go on, and the draws, into a .safetensors file; nothing is pickled."""
        arrays = {f"latents/{k}": np.ascontiguousarray(a) for k, a in self.latents.items()}
        arrays |= {f"stats/{k}": np.ascontiguousarray(a) for k, a in self.stats.items()}
        self._write(path, arrays, {})

    def _write(self, path: str | Path, arrays: dict[str, np.ndarray], more: dict[str, Any]) -> None:
        """The state and further arrays and facts into a file, all at once."""
        ppl, numbers = self.program.ppl, {}
        for name, leaf in tree_leaves(self.state):
            if hasattr(leaf, "shape"):
                arrays[f"state/{name}"] = ppl.to_numpy(leaf)
            else:
                numbers[name] = leaf
        meta = {"plan": self.plan._asdict(), "block": self.block, "facts": self.facts, "numbers": numbers, **more}
        partial = Path(f"{path}.partial")
        save_file(arrays, partial, metadata={"draws": json.dumps(meta)})
        os.replace(partial, path)

    def load(self, path: str | Path, started: Callable[[int], State]) -> None:
        """Take draws and state from a file.

        Args:
            path: written by `save`.
            started: the number of blocks done to a state of the structure that the kernel has then.

        Raises:
            PplebmError: if there is no such file, or it belongs to another call or version.
        """
        meta, arrays = read_draws(path)
        latents, stats = ({n.removeprefix(kind): a for n, a in arrays.items() if n.startswith(kind)}
                          for kind in ("latents/", "stats/"))  # fmt: skip
        check_plan(plan_of(path, meta), self.plan, next((a.shape[1] for a in latents.values()), 0))
        self._go_on_from(meta, arrays, started)
        if latents:
            self.add(latents, stats)

    def _go_on_from(self, meta: dict[str, Any], arrays: dict[str, np.ndarray], started: Callable[[int], State]) -> None:
        leaves = {name.removeprefix("state/"): self.program.ppl.asarray(a, keep=True) for name, a in arrays.items()
                  if name.startswith("state/")}  # fmt: skip
        self.state = tree_fill(started(meta["block"]), leaves | meta["numbers"])
        self.block, self.facts = meta["block"], meta["facts"]


def read_draws(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts and arrays of a file that draws wrote."""
    if not Path(path).is_file():
        raise PplebmError(f"'{path}' is not there; write it with draws.save(path).")
    with safe_open(path, framework="numpy") as file:
        meta = json.loads((file.metadata() or {}).get("draws", "{}"))
        if not meta:
            raise PplebmError(f"'{path}' holds no draws of pplebm.sample.")
        return meta, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def plan_of(path: str | Path, meta: dict[str, Any]) -> Plan:
    """The plan of draws in a file."""
    if set(meta["plan"]) != set(Plan._fields):
        raise PplebmError(f"'{path}' was written by another version of pplebm; sample anew.")
    return Plan(**(meta["plan"] | {"extra_fields": tuple(meta["plan"]["extra_fields"])}))


def check_plan(had: Plan, wanted: Plan, n_made: int) -> None:
    """Raise unless draws that were made for one plan can go on by the other, to fewer draws or to more."""
    for field, old, new in zip(Plan._fields, had, wanted, strict=True):
        if old == new or field == "n_draws":
            continue
        if field == "target":
            raise PplebmError("the draws to resume are of another program, of other parameters or of other data.")
        raise PplebmError(f"the draws to resume were made with {field}={old}, not {new}.")
    if wanted.n_draws < n_made:
        raise PplebmError(
            f"there are {n_made} draws of each chain already, more than n_draws={wanted.n_draws}; "
            f"give n_draws={n_made} or more."
        )


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(parts) > 1:
        parts[:] = [{name: np.concatenate([p[name] for p in parts], 1) for name in parts[0]}]
    return dict(parts[0]) if parts else {}
