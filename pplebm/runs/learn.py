"""A run as it happens: updates, progress bar, held-out figures, checkpoints, and what Ctrl-C does."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tqdm import tqdm

from pplebm.data import Dataset
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning import loop as train
from pplebm.learning.algorithm import Phases
from pplebm.ppl.parallel import Parallel
from pplebm.ppl.trees import take_rows
from pplebm.program import Program
from pplebm.runs import files

LOG_EVERY, EVALUATE_EVERY, CHECKPOINT_EVERY = 10, 100, 100  # updates
EVALUATE_ON = 256  # held-out data per evaluation


class Job(NamedTuple):
    """All that one run needs."""

    folder: Path
    manifest: dict[str, Any]
    program: Program
    page: ModuleType
    hyper: Any
    data: Dataset
    group: Parallel  # processes that learn together


def learn(job: Job, progress: train.Progress, show: bool | None) -> None:
    """Run the loop, log, evaluate and save; on Ctrl-C save and say how to go on."""
    rows: list[dict[str, Any]] = []
    total, first = job.hyper.updates, True
    phases = Phases(job.program.with_chains(compiled=False), job.page, job.hyper)  # seldom run, and of another shape
    began, before = time.perf_counter(), _seconds_so_far(job.folder)
    hidden = True if job.group.rank else None if show is None else not show
    bar = tqdm(total=total, initial=progress.update, unit="update", disable=hidden)
    seed, progress = job.manifest["seed"], job.group.same(progress)
    loop = train.updates(
        job.page, job.program, job.data.train, job.hyper, seed, progress, job.group, job.manifest["ema"]
    )
    try:
        while progress.update < total:
            bar.set_description("compiling" if first else None)
            with job.group.around(), job.program.ppl.threads_for(job.program.work(job.hyper.batch_size)):
                progress, event = next(loop)
            bar.update(1)
            if first:
                job.manifest["first_update_seconds"], first = round(time.perf_counter() - began, 2), False
            if event.rolled_back_to is not None:
                note = {"update": progress.update, "to": event.rolled_back_to, "reason": event.reason, "metrics": {}}
                note["metrics"] = {k: str(v) for k, v in event.metrics.items()}
                job.manifest["rollbacks"].append(note)
                sentence = f"update {progress.update}: {event.reason}; went back to update {event.rolled_back_to}."
                warnings.warn(sentence, PplebmWarning, stacklevel=3)
                continue
            last = progress.update == total
            if progress.update % LOG_EVERY == 0 or last:
                seconds = round(before + time.perf_counter() - began, 2)
                row = {"update": progress.update, "seconds": seconds, **event.metrics}
                if progress.update % EVALUATE_EVERY == 0 or last:
                    row |= _held_out_error(job, phases, progress)
                rows.append(row)
                if "tilt_gap" in event.metrics:
                    bar.set_postfix(gap=f"{event.metrics['tilt_gap']:.2f}", refresh=False)
            if progress.update % CHECKPOINT_EVERY == 0 or last:
                rows = _save(job, progress, rows)
                if not last and _has_stalled(job):
                    job.manifest["stopped_early"] = progress.update
                    files.write_manifest(job.folder, job.manifest)
                    return
    except KeyboardInterrupt:
        _save(job, progress, rows)
        bar.close()
        print(
            f"\nstopped at update {progress.update} and saved; go on with: --resume --out {job.folder} "
            f"(in Python: resume=True)."
        )
        raise
    finally:
        bar.close()


def _save(job: Job, progress: train.Progress, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checkpoint first, then metrics: after a kill in between, rows are missing, never ahead of the state."""
    if job.group.rank:
        return []  # one process writes
    files.write_checkpoint(job.folder, job.program.ppl, progress)
    files.append_metrics(job.folder, rows)
    if job.manifest.get("tensorboard", False):
        files.write_tensorboard(job.folder, rows)
    files.write_csv(job.folder)
    files.write_manifest(job.folder, job.manifest)
    return []


def _has_stalled(job: Job) -> bool:
    """Whether the held-out error has not improved for `patience` evaluations."""
    errors = [row["held_out_error"] for row in files.read_metrics(job.folder) if "held_out_error" in row]
    patience = job.manifest["patience"]
    return 0 < patience < len(errors) and min(errors[-patience:]) >= min(errors[:-patience])


def _seconds_so_far(folder: Path) -> float:
    rows = files.read_metrics(folder)
    return rows[-1]["seconds"] if rows else 0.0


def _held_out_error(job: Job, phases: Phases, progress: train.Progress) -> dict[str, float]:
    """Mean squared error of posterior-draw reconstructions of held-out data, in model units, where there is one."""
    if job.group.rank:
        return {}
    ppl, params = job.program.ppl, job.group.local(progress.average or progress.state.params)
    x = job.program.data(take_rows(job.data.held_out, slice(0, EVALUATE_ON)))
    z = phases.posterior(ppl.key(progress.update), params, x)
    if len(job.program.observed) != 1 or job.program.reads.fed:
        return {}  # several observed sites
    try:
        (name, mean), *_ = job.program.predict(params, z, data=x).items()
    except PplebmError:  # the observed distribution has no mean
        return {}
    value = job.program.observed_data(x)[name]
    if tuple(value.shape) != tuple(mean.shape):
        return {}
    return {"held_out_error": float(((mean - value) ** 2).mean())}
