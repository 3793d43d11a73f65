"""Evidence of a run, kept in its folder: computed once, and gone on with after an interruption."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pplebm import __version__
from pplebm.errors import PplebmError
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.estimators import (
    OF_PRIOR,
    Settings,
    by_batch,
    checked,
    prior_constants,
)
from pplebm.ppl.trees import n_rows, tree_leaves
from pplebm.runs import files
from pplebm.sampling.blocks import batch_seed

if TYPE_CHECKING:
    from pplebm.runs.run import Run

FOLDER = "evidence"
ARRAYS = ("value", "error", "ess", "k_hat", "freedom")


def log_z(
    run: Run,
    given: Any = None,
    *,
    method: str = "auto",
    n_particles: int | None = None,
    seed: int = 0,
    rows_at_once: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Evidence:
    """What `pplebm.log_z` gives for the learned parameters, estimated once and kept in the run's folder.

    Args:
        run: any.
        given: data in the user's units with the covariates that the prior reads.
        method, n_particles, seed, rows_at_once, progress, settings: as in `pplebm.log_z`.
    """
    program = run.program
    rows = None if given is None else run.data(given)
    how = Settings(method, n_particles, seed, rows_at_once, progress, settings, of_prior=True)
    reads = program.prior_reads or program.has_global_latents
    file = _file(run, "log_z", rows if reads else None, how)
    if (kept := _read(file)) is None:
        kept = prior_constants(program, rows, run.params, how)
        _write(file, kept)
    return kept


def log_evidence(
    run: Run,
    x: Any,
    *,
    method: str = "auto",
    n_particles: int | None = None,
    base: bool = False,
    seed: int = 0,
    rows_at_once: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Evidence:
    """What `pplebm.log_evidence` gives for the learned parameters and data in the user's units, in model units.

    `run.log_jacobian` is what to add for the user's. Every batch of data is kept in the run's folder as soon as it is
    done: the same call goes on after an interruption, and later gives the same numbers at once.

    Args:
        run: any.
        x: data, one row for every number wanted.
        method, n_particles, base, seed, rows_at_once, progress, settings: as in `pplebm.log_evidence`.
    """
    program, data = run.program, run.data(x)
    program.check_data(data, run.params)
    tilted = bool(program.tilts) and not base
    how = Settings(method, n_particles, seed, rows_at_once, progress, {"tilted": tilted, **settings})
    file = _file(run, "log_joint", data, how)
    n = 1 if program.has_global_latents else n_rows(data)
    found = _read(file)
    done = [] if found is None else [found]
    if (had := sum(map(len, done))) < n:
        for part in by_batch(program, run.params, data, True, how, "log p(x)", had):
            done.append(part)
            _write(file, Evidence.concatenate(done))
    joint = Evidence.concatenate(done)
    if not tilted:
        return checked(joint, "log p(x)")
    theirs = {"method": method, "seed": seed, "rows_at_once": rows_at_once, "progress": progress, **settings}
    return checked(joint.minus(constants_of(run, x, **theirs)), "log p(x)")


def constants_of(run: Run, x: Any, **settings: Any) -> Evidence:
    """The log Z that `log_evidence` with these settings subtracts."""
    reads = run.program.prior_reads or run.program.has_global_latents
    settings = {k: v for k, v in settings.items() if k not in ("n_particles", "base")}
    return log_z(run, x if reads else None, **settings | {"seed": batch_seed(settings.get("seed", 0), OF_PRIOR)})


def bits_per_dimension(run: Run, log_p: float) -> float:
    r"""Bits of an observed number of a datum, in the user's units.

    .. math:: -\frac{\log p(x_{model}) + \log |\partial x_{model} / \partial x_{user}|}{D \log 2}

    The density is that of real numbers. Of data that were rounded, such as grey levels, it is comparable to published
    bits per dimension only if they were given as levels 0 to 255 with uniform noise added.

    Args:
        run: any.
        log_p: mean log density of a datum in model units, nats.
    """
    names = [run.program.reads.whole.get(site.name) for site in run.program.observed]
    shapes = {path: tuple(shape) for path, shape in run.manifest.data.shapes.items()}
    width = sum(int(np.prod(shapes[path])) for path in names if path in shapes)
    if not width:
        raise PplebmError("bits per dimension need observed sites that are arrays of the data.")
    return -(log_p + run.log_jacobian) / (width * float(np.log(2.0)))


def _file(run: Run, name: str, data: Any, how: Settings) -> Path:
    """The file of an estimate, named for everything that it depends on."""
    told = (__version__, name, how.method, how.n_particles, how.seed, how.rows_at_once, sorted(how.further.items()))
    found = hashlib.sha256(f"{told} {run.program!r}".encode())
    leaves = [*tree_leaves(run.params), *tree_leaves(data)]
    for path, a in leaves:
        array = np.ascontiguousarray(run.program.ppl.to_numpy(a))
        found.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
    return run.path / FOLDER / f"{name}-{how.method}-{found.hexdigest()[:16]}.npz"


def _read(file: Path) -> Evidence | None:
    """An estimate that was kept; one that is damaged counts as not there."""
    if not file.is_file():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
            reasons = tuple(str(reason) for reason in kept["reasons"])
            return Evidence(str(kept["method"]), **arrays, reasons=reasons, common_error=float(kept["common_error"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, found: Evidence) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    arrays = {name: getattr(found, name) for name in (*ARRAYS, "method", "common_error")}
    np.savez(content, **arrays, reasons=np.array(found.reasons))
    files.write_whole(file, content.getvalue())
