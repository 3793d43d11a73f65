"""A run as it happens: updates, progress bar, held-out figures, checkpoints, and what Ctrl-C does."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning import loop
from pplebm.ppl.trees import take_rows
from pplebm.runs import files
from pplebm.runs.job import Job
from pplebm.runs.manifest import RollBack, write_manifest

LOG_EVERY, EVALUATE_EVERY, CHECKPOINT_EVERY = 10, 100, 100  # updates
CHECKPOINT_SECONDS = 5.0  # at least, between two checkpoints of quick updates
EVALUATE_ON = 256  # held-out data per evaluation


def learn(job: Job, progress: loop.Progress, show: bool | None) -> None:
    """Run the loop, log, evaluate and save; on Ctrl-C save and say how to go on."""
    recorder = Recorder(job, job.group.same(progress), show)
    try:
        recorder.run()
    except KeyboardInterrupt:
        recorder.save()
        recorder.bar.close()
        print(
            f"\nstopped at update {recorder.progress.update} and saved; go on with: --resume --out {job.folder} "
            f"(in Python: resume=True)."
        )
        raise
    finally:
        recorder.bar.close()


class Recorder:
    """One run of the loop: what it has shown and not saved yet, and what is written when."""

    def __init__(self, job: Job, progress: loop.Progress, show: bool | None) -> None:
        self.job, self.manifest, self.progress = job, job.manifest, progress
        self.total, self.rows = job.algorithm.hyper.updates, list[dict[str, Any]]()
        self.saved = time.perf_counter()
        self.began, self.before = time.perf_counter(), _seconds_so_far(job.folder)
        program = job.algorithm.program.with_chains(compiled=False)  # seldom run, and of another shape
        self.evaluated = job.algorithm.with_changes(program)
        hidden = True if job.group.rank else None if show is None else not show
        self.bar = tqdm(total=self.total, initial=progress.update, unit="update", disable=hidden)

    def run(self) -> None:
        """Update until all is done or patience ends."""
        for _ in self.blocks():
            pass

    def blocks(self) -> Iterator[int]:
        """The same, block by block; yields the number of updates done."""
        job, settings = self.job, self.manifest.settings
        program, size = job.algorithm.program, job.algorithm.hyper.batch_size
        updates = loop.updates(
            job.algorithm, job.data.train, settings.seed, self.progress, job.group, settings.ema, self.total
        )
        is_first = True
        while self.progress.update < self.total:
            self.bar.set_description("compiling" if is_first else None)
            with job.group.around(), program.ppl.threads_for(program.work(size)):
                self.progress, events = next(updates)
            self.bar.update(len(events))
            if is_first:
                seconds = round(time.perf_counter() - self.began, 2)
                self.manifest, is_first = self.manifest._replace(first_update_seconds=seconds), False
            for event in events:
                self._tell(event) if event.rolled_back_to is not None else self._log(event)
            if events[-1].rolled_back_to is not None:
                continue
            is_last = self.progress.update == self.total
            if is_last or (self.progress.update % CHECKPOINT_EVERY == 0 and self._is_due()):
                self.save()
                if not is_last and self._has_stalled():
                    self.manifest = self.manifest._replace(stopped_early=self.progress.update)
                    write_manifest(job.folder, self.manifest)
                    return
            yield self.progress.update

    def _is_due(self) -> bool:
        """Whether a checkpoint is worth its time; one is always where patience may end the run."""
        is_old = time.perf_counter() - self.saved > CHECKPOINT_SECONDS
        return is_old or self.manifest.settings.patience > 0 or self.progress.update == CHECKPOINT_EVERY

    def _tell(self, event: loop.Event) -> None:
        """Note an update that was undone."""
        assert event.rolled_back_to is not None
        update, metrics = event.update, {k: str(v) for k, v in event.metrics.items()}
        note = RollBack(update, event.rolled_back_to, event.reason, metrics)
        self.manifest = self.manifest._replace(rollbacks=[*self.manifest.rollbacks, note])
        sentence = f"update {update}: {event.reason}; went back to update {event.rolled_back_to}."
        warnings.warn(sentence, PplebmWarning, stacklevel=5)

    def _log(self, event: loop.Event) -> None:
        """Keep the figures of every tenth update, held-out ones every hundredth."""
        update, is_last = event.update, event.update == self.total
        if update % LOG_EVERY and not is_last:
            return
        seconds = round(self.before + time.perf_counter() - self.began, 2)
        row = {"update": update, "seconds": seconds, **event.metrics}
        self.rows.append(row | (self._held_out_error() if update % EVALUATE_EVERY == 0 or is_last else {}))
        if "tilt_gap" in event.metrics:
            self.bar.set_postfix(gap=f"{event.metrics['tilt_gap']:.2f}", refresh=False)

    def save(self) -> None:
        """Checkpoint first, then metrics: after a kill in between, rows are missing, never ahead of the state."""
        rows, self.rows, folder, self.saved = self.rows, [], self.job.folder, time.perf_counter()
        if self.job.group.rank:
            return  # one process writes
        files.write_checkpoint(folder, self.job.algorithm.ppl, self.progress)
        files.append_metrics(folder, rows)
        if self.manifest.settings.tensorboard:
            files.write_tensorboard(folder, rows)
        files.write_csv(folder)
        write_manifest(folder, self.manifest)

    def _has_stalled(self) -> bool:
        """Whether the held-out error has not improved for `patience` evaluations."""
        errors = [row["held_out_error"] for row in files.read_metrics(self.job.folder) if "held_out_error" in row]
        patience = self.manifest.settings.patience
        return 0 < patience < len(errors) and min(errors[-patience:]) >= min(errors[:-patience])

    def _held_out_error(self) -> dict[str, float]:
        """Mean squared error of posterior-draw reconstructions of held-out data, in model units, where there is one."""
        job, program = self.job, self.job.algorithm.program
        if job.group.rank or len(program.observed) != 1 or program.reads.fed:
            return {}
        params = job.group.local(self.progress.average or self.progress.state.params)
        x = program.data(take_rows(job.data.held_out, slice(0, EVALUATE_ON)))
        z = self.evaluated.posterior_latents(program.ppl.key(self.progress.update), params, x)
        try:
            (name, mean), *_ = program.predict(params, z, data=x).items()
        except PplebmError:  # the observed distribution has no mean
            return {}
        value = program.observed_data(x)[name]
        if tuple(value.shape) != tuple(mean.shape):
            return {}
        return {"held_out_error": float(((mean - value) ** 2).mean())}


def _seconds_so_far(folder: Path) -> float:
    rows = files.read_metrics(folder)
    return rows[-1]["seconds"] if rows else 0.0
