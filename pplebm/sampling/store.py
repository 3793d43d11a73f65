"""Draws that are put into a netCDF file block by block, for runs whose draws do not fit into memory."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.kernel import State
from pplebm.ppl.language import Data, Params
from pplebm.program import Program
from pplebm.sampling.appending import append, create, note, settle
from pplebm.sampling.draws import Draws, Plan, check_plan, plan_of, read_draws
from pplebm.sampling.on_disk import OnDisk
from pplebm.sampling.streamed import streamed_groups

SUFFIX = ".nc"
SECONDS_BETWEEN_STATES = 5.0  # of warm-up
Arrays = dict[str, np.ndarray]


class StoredDraws(Draws):
    """Draws of which one block at most is in memory, the rest in a netCDF file that ArviZ and xarray open.

    The file holds draws in the supports of the sites in `posterior` or `prior`, the same in the program's coordinates
    in `unconstrained_posterior` or `unconstrained_prior`, figures of the kernel, and the data. What a run needs to go
    on, small whatever the number of draws, stands beside it in a file of the same name and `.state`. The state is
    replaced at once, together with what completes the file; so a run that is killed leaves all blocks that were done.
    """

    def __init__(
        self,
        path: str | Path,
        program: Program,
        params: Params,
        data: Data | None,
        plan: Plan,
        state: State,
        is_prior: bool = False,
    ) -> None:
        super().__init__(program, params, data, plan, state, is_prior)
        self.path = Path(path)
        self._made = 0
        self._new: tuple[Arrays, Arrays] | None = None
        self._places: dict[str, dict[str, tuple[str, str]]] = {}  # of every array: in the file, and its dtype
        self._saved_at = -float("inf")

    @property
    def n_draws(self) -> int:
        """Draws of each chain that are in the file."""
        return self._made

    @property
    def latents(self) -> Any:
        """Draws by site in the coordinates of the program, unconstrained, as they lie in the file."""
        return self._in_file("latents")

    @property
    def values(self) -> Any:
        """Draws by site, in the supports of the sites, as they lie in the file."""
        return self._in_file("values")

    @property
    def stats(self) -> Any:
        """Figures of the kernel, by name, as they lie in the file."""
        return self._in_file("stats")

    def _in_file(self, kind: str) -> dict[str, OnDisk]:
        places = self._places.get(kind, {})
        return {name: OnDisk(self.path, place, dtype, self._made) for name, (place, dtype) in places.items()}

    def add(self, latents: Arrays, stats: Arrays) -> None:
        """Draws that the next checkpoint puts into the file."""
        self._new = latents, stats

    def checkpoint(self, at_once: bool = True) -> None:
        """Put a block of draws into the file, and the state beside it; warm-up's state not oftener than is of use.

        Raises:
            PplebmError: if the disk is full; what was in the file still is.
        """
        if self._new is None and not at_once and time.monotonic() - self._saved_at < SECONDS_BETWEEN_STATES:
            return
        made, places = self._made, self._places
        try:
            if self._new is not None:
                written, n = self._append(*self._new)
                self._made += n
                note(self.path, written, self._made)
            self._write(state_path(self.path), {}, {"n_made": self._made, "places": self._places})
        except (OSError, RuntimeError) as error:
            self._made, self._places = made, places
            raise PplebmError(
                f"'{self.path}' could not be written ({error}); it holds the {made} draws of each chain that were "
                f"complete: make room, and give resume='{self.path}' to go on."
            ) from error
        settle(self.path, self._made)
        self._new, self._saved_at = None, time.monotonic()

    def _append(self, latents: Arrays, stats: Arrays) -> tuple[Any, int]:
        block = Draws(self.program, self.params, self.data, self.plan, self.state, self.is_prior)
        block.add(latents, stats)
        groups, places = streamed_groups(block)
        arrays = {f"{group}/{name}": np.asarray(a) for group, found in groups.items()
                  for name, a in found.data_vars.items() if "draw" in found[name].dims}  # fmt: skip
        self._check_room(sum(a.nbytes for a in arrays.values()) // block.n_draws)
        if not self._made:
            create(self.path, groups, "draw")
            self._places = {kind: {name: (place, str(arrays[place].dtype)) for name, place in found.items()}
                            for kind, found in places.items()}  # fmt: skip
        for group in {place.split("/")[0] for place in arrays}:
            arrays[f"{group}/draw"] = np.arange(self._made, self._made + block.n_draws)
        facts = {f"{'prior' if self.is_prior else 'posterior'}/sampling_time": self.facts["seconds"]}
        return append(self.path, arrays, self._made, facts), block.n_draws

    def _check_room(self, bytes_per_draw: int) -> None:
        """Refuse to begin what the disk cannot take."""
        left = self.plan.n_draws - self._made
        free, needed = shutil.disk_usage(self.path.absolute().parent).free, left * bytes_per_draw
        if needed > free:
            raise PplebmError(
                f"{left} more draws of each chain take {needed / 1e9:.3g} GB, and the disk of '{self.path}' has "
                f"{free / 1e9:.3g} GB free; make room, or keep fewer (thin=), and give resume='{self.path}' to go on."
            )

    def load(self, path: str | Path, started: Callable[[int], State]) -> None:
        """Go on from what is in the file.

        Args:
            path: of the netCDF file.
            started: as in `Draws.load`.

        Raises:
            PplebmError: if the file, or its state beside it, is not there, or belongs to another call or version.
        """
        state = state_path(path)
        if not state.is_file():
            raise PplebmError(f"'{state}' is not there, which sample(out='{path}') writes and needs to go on.")
        meta, arrays = read_draws(state)
        check_plan(plan_of(path, meta), self.plan, meta["n_made"])
        if meta["n_made"] and not Path(path).is_file():
            raise PplebmError(f"'{path}', which '{state}' goes with, is not there.")
        self._go_on_from(meta, arrays, started)
        self._made, self._places = meta["n_made"], meta["places"]
        settle(self.path, self._made)


def state_path(path: str | Path) -> Path:
    """Where what a run needs to go on stands."""
    return Path(f"{path}.state")


def check_new(path: str | Path) -> None:
    """Refuse a file that cannot be begun.

    Raises:
        PplebmError: if its name has another ending, it is there, or its folder is not.
    """
    if Path(path).suffix != SUFFIX:
        raise PplebmError(f"out is a netCDF file, its name ends in {SUFFIX}; got '{path}'.")
    for there in (Path(path), state_path(path)):
        if there.exists():
            raise PplebmError(f"'{there}' is there already; give resume='{path}' to go on with it, or another name.")
    if not Path(path).absolute().parent.is_dir():
        raise PplebmError(f"the folder of '{path}' is not there; make it first.")


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Surroundings of what must not be cut in two: a Ctrl-C that comes meanwhile is heard at the end."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is None:  # None: set by another language, and not to be restored
        yield
        return
    heard: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *given: heard.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard and callable(before):
        before(*heard[0])
