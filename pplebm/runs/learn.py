"""A run as it happens: updates, progress bar, held-out figures, checkpoints, and what signals do."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.learning import loop
from pplebm.runs import checkpoints, files
from pplebm.runs.held_out import HeldOut, updates_between
from pplebm.runs.job import Job
from pplebm.runs.manifest import RollBack, write_manifest
from pplebm.runs.signals import Stop

LOG_EVERY, CHECKPOINT_EVERY = 10, 100  # updates
CHECKPOINT_SECONDS = 5.0  # at least, between two checkpoints of quick updates
CHECKPOINT_SHARE = 0.02  # of the time, at most, for checkpoints of large states


def learn(job: Job, progress: loop.Progress, show: bool | None, stop: Stop) -> None:
    """Run the loop, log, evaluate and save; on Ctrl-C and the signals of `stop` save and say how to go on."""
    recorder = Recorder(job, job.group.same(progress), show, stop)
    try:
        recorder.run()
    except KeyboardInterrupt:
        recorder.save(is_last=True)
        recorder.bar.close()
        print(
            f"\nstopped at update {recorder.progress.update} and saved; go on with: --resume --out {job.folder} "
            f"(in Python: resume=True).",
            flush=True,
        )
        raise
    finally:
        recorder.bar.close()


class Recorder:
    """One run of the loop: what it has shown and not saved yet, and what is written when."""

    def __init__(self, job: Job, progress: loop.Progress, show: bool | None, stop: Stop) -> None:
        self.job, self.manifest, self.progress, self.stop = job, job.manifest, progress, stop
        self.saved: int | None = None  # update of the last checkpoint that this process wrote
        self.total, self.rows = job.algorithm.hyper.updates, list[dict[str, Any]]()
        self.saved_at, self.seconds_to_save = time.perf_counter(), 0.0  # of the last checkpoint
        self.began, self.before = time.perf_counter(), _seconds_so_far(job.folder)
        self.evaluated, self.evaluate_every = HeldOut(job), updates_between(job.algorithm, job.data.n_held_out)
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
            job.algorithm, job.data.train, settings.seed, self.progress, job.group, settings.ema, self.total,
            CHECKPOINT_EVERY,
        )  # fmt: skip
        is_first = True
        while self.progress.update < self.total and not self._has_arrived():
            self.bar.set_description("compiling" if is_first else None)
            with job.group.around(), program.ppl.threads_for(program.work(size)):
                self.progress, events = next(updates)
            self.bar.update(len(events))
            if is_first:
                seconds = round(time.perf_counter() - self.began, 2)
                self.manifest, is_first = self.manifest._replace(first_update_seconds=seconds), False
            for event in events:
                self._tell(event) if event.rolled_back_to is not None else self._log(event)
            is_last = self.progress.update == self.total or self._has_arrived()
            is_good = events[-1].rolled_back_to is None
            if is_last or (is_good and self.progress.update % CHECKPOINT_EVERY == 0 and self._is_due()):
                has_stalled = not is_last and self._has_stalled()
                if has_stalled or (is_last and self.progress.update < self.total):
                    self.manifest = self.manifest._replace(stopped_early=self.progress.update)
                self.save(is_last or has_stalled)
                if has_stalled:
                    return
            self.stop.check()
            yield self.progress.update

    def _has_arrived(self) -> bool:
        return self.job.algorithm.has_arrived(self.progress.state)

    def _is_due(self) -> bool:
        """Whether a checkpoint is worth its time; one is always where patience may end the run."""
        seconds = max(CHECKPOINT_SECONDS, self.seconds_to_save / CHECKPOINT_SHARE)
        is_old = time.perf_counter() - self.saved_at > seconds
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
        """Keep the figures of every tenth update, held-out ones about every hundredth."""
        update, is_last = event.update, event.update == self.total
        if update % LOG_EVERY and not is_last:
            return
        seconds = round(self.before + time.perf_counter() - self.began, 2)
        row = {"update": update, "seconds": seconds, **event.metrics}
        is_due = (update % self.evaluate_every == 0 or is_last) and not self.job.group.rank
        self.rows.append(row | (self._held_out_error() if is_due else {}))
        if "tilt_gap" in event.metrics:
            self.bar.set_postfix(gap=f"{event.metrics['tilt_gap']:.2f}", refresh=False)

    def save(self, is_last: bool = False) -> None:
        """Write all that there is; a disk that is full keeps what it has, and the next save tries again.

        Raises:
            PplebmError: if the last save fails.
        """
        began = time.perf_counter()
        if self.job.group.rank:
            self.rows = []  # one process writes
        elif self.saved != self.progress.update or self.rows:
            self._save(is_last)
        self.saved_at = time.perf_counter()
        self.seconds_to_save = self.saved_at - began

    def _save(self, is_last: bool) -> None:
        try:
            with self.stop.held():
                self._write()
        except OSError as error:
            folder, kept = self.job.folder, checkpoints.has_checkpoint(self.job.folder)
            what = f"'{folder}' keeps the checkpoint before it" if kept else f"'{folder}' holds no checkpoint yet"
            sentence = f"update {self.progress.update} could not be saved ({error.strerror or error}); {what}"
            if is_last:
                raise PplebmError(f"{sentence}; make room, and go on with --resume (resume=True).") from error
            warnings.warn(f"{sentence}, and learning goes on.", PplebmWarning, stacklevel=3)

    def _write(self) -> None:
        """The checkpoint last: after a kill in between, metrics are ahead, and going on writes them anew."""
        folder, ppl = self.job.folder, self.job.algorithm.ppl
        files.append_metrics(folder, self.rows)
        files.write_csv(folder)
        write_manifest(folder, self.manifest)
        checkpoints.write_checkpoint(folder, ppl, self.progress)
        rows, self.rows, self.saved = self.rows, [], self.progress.update
        if self.manifest.settings.tensorboard:
            files.write_tensorboard(folder, rows)

    def _has_stalled(self) -> bool:
        """Whether the held-out error has not improved for `patience` evaluations."""
        rows = [*files.read_metrics(self.job.folder), *self.rows]
        errors = [row["held_out_error"] for row in rows if "held_out_error" in row]
        patience = self.manifest.settings.patience
        return 0 < patience < len(errors) and min(errors[-patience:]) >= min(errors[:-patience])

    def _held_out_error(self) -> dict[str, float]:
        params = self.job.group.local(self.progress.average or self.progress.state.params)
        error = self.evaluated.error(self.progress.update, params)
        return {} if error is None else {"held_out_error": error}


def _seconds_so_far(folder: Path) -> float:
    rows = files.read_metrics(folder)
    return rows[-1]["seconds"] if rows else 0.0
