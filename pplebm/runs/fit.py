"""`pplebm.fit`: from a model, data and an algorithm to a run folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pplebm.errors import PplebmError
from pplebm.gallery.pages import DEFAULT
from pplebm.ppl.language import load_backend
from pplebm.ppl.parallel import Parallel, check_batch
from pplebm.runs import files
from pplebm.runs.config import RunConfig
from pplebm.runs.folders import check_new, folder_for, moved_in
from pplebm.runs.job import new_job, old_job
from pplebm.runs.learn import learn
from pplebm.runs.lock import locked
from pplebm.runs.manifest import read_manifest, write_manifest
from pplebm.runs.run import Run, open_run
from pplebm.runs.signals import stopping
from pplebm.runs.trust import remember


def fit(
    model: str | Path | Callable[..., Any],
    data: Any = "digits",
    inference: str | Path = DEFAULT,
    out: str | Path | None = None,
    seed: int = 0,
    updates: int | None = None,
    hyper: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    backend: str = "pyro",
    compiled: bool | None = None,
    precision: str = "full",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    ema: float = 0.0,
    patience: int = 0,
    guide: Callable[..., Any] | None = None,
    start: str | Path | None = None,
    tensorboard: bool = False,
    resume: bool = False,
    progress: bool | None = None,
    scaling: str | None = None,
    held_out_fraction: float = 0.2,
    trust: bool = False,
    steps: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    time: str | None = None,
    columns: Sequence[str] | None = None,
) -> Run:
    """Learn a model from data and keep everything in a run folder.

    Args:
        model: name of a page, path of a file, or any Pyro or NumPyro callable of a batch.
        data: name of a data set, path of a .npy, .npz or .csv file, or an array (N, *event).
        inference: name or path of an algorithm page.
        out: run folder; by default runs/<model>-<inference>-seed<seed>, or the first of ...-2, ...-3 that is new. A fit
            that fails before its first checkpoint leaves it as it was.
        seed: of data split, initial weights, batches and noise.
        updates: of the parameters; by default the algorithm page's own number.
        hyper: changes to the hyperparameters of either page, such as {"prior.n_steps": 60, "sigma": 0.3}; "model.sigma"
            names the page where both have a field. {"optimizer.rule": "adamw"} takes another rule of torch.optim or
            optax than Adam.
        data_dir: where named data sets lie.
        backend: "pyro" or "numpyro"; for a callable or a file of your own, the one it is written for.
        compiled: with Pyro, compile the steps of the chains, which takes seconds and pays for itself in a long run; by
            default runs of 200 updates and more are compiled. NumPyro compiles in any case.
        precision: "full" or, with Pyro, "bf16"; see `Program.with_chains`.
        devices: of each machine, that share every batch: GPUs where there are any, otherwise parts of the CPU. With
            Pyro a process each, started by running the script again (Lightning Fabric); the others end here.
        nodes: machines, each of which runs this command; see docs/clusters.md.
        strategy: of Lightning Fabric: "ddp", or "ddp_spawn", which also works without a script.
        ema: decay per update of a running average of the parameters, which the run then uses: 0.999 averages over
            about a thousand updates. 0: the last parameters.
        patience: stop when the held-out reconstruction error has not improved for so many of its evaluations, one per
            hundred updates, or per several hundred where draws of new data take long. 0: never.
        guide: a Pyro or NumPyro function of a batch, for algorithms that learn a guide; by default the `guide` of the
            model's page or file, or one that they derive. Its own modules hold the learned weights afterwards.
        start: run folder whose learned parameters this run begins with, by name, wherever both have them: that of the
            untilted twin, for instance, fitted with hyper={"tilted": False}.
        tensorboard: write the metrics for TensorBoard as well, `pip install "pplebm[tensorboard]"`.
        resume: go on from the last checkpoint in `out`, by default the latest folder of that name; equals an
            uninterrupted run bit for bit.
        progress: show a progress bar; by default only in a terminal.
        scaling: "none", which is the default for a model of your own; "unit", to [-1, 1]; "standard", to mean 0 and
            standard deviation 1; "auto", "unit" for images and "standard" for tables. Pages of the gallery say what
            they expect. Only real numbers that an observed site takes whole are ever scaled.
        held_out_fraction: of the rows, for sources without a held-out part; 0 learns from all, and then nothing is told
            of data that learning did not see.
        trust: with `resume`, run the page copies in the folder, whoever wrote them; see `pplebm.open_run`.
        steps: an older word for `updates`.
        window: points of a window, for data that are one series: see `pplebm.data.read_series`. Its last part is held
            out, and it is scaled by its first part.
        stride: points between the starts of windows; a quarter of a window by default.
        time, columns: of a series, names of the column that tells the time and of those to learn.

    Returns:
        The run. A callable's own modules hold the learned weights afterwards.

    Raises:
        PplebmError: for bad input of any kind, for an existing run unless `resume`, for a folder in which another
            process learns, and for a disk that is full at the end.
        KeyboardInterrupt: on Ctrl-C, SIGTERM and SIGUSR1, after saving; a second one ends at once.

    Example:
        >>> import tempfile, pplebm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("latent_ebm", out=f"{folder}/run", updates=2, hyper={"prior.n_steps": 2})
        ...     run.sample_data(3).shape
        (3, 8, 8)
    """
    if updates is not None and steps is not None:
        raise PplebmError("steps is an older word for updates; give updates alone.")
    config = RunConfig(
        model, data, inference, seed, steps if updates is None else updates, dict(hyper or {}), data_dir, backend,
        compiled, precision, devices, nodes, strategy, ema, patience, guide, start, tensorboard, scaling,
        held_out_fraction, window, stride, time, columns,
    ).checked()  # fmt: skip
    folder = folder_for(out, model, inference, seed, resume)
    if tensorboard:
        files.tensorboard()  # tells now if it is not there
    if resume:
        kept = read_manifest(folder).settings
        config = config._replace(backend=kept.backend, devices=kept.devices, nodes=kept.nodes, strategy=kept.strategy)
    group = load_backend(config.backend).parallel(config.devices, config.nodes, config.strategy)
    group.launch(_in_process, folder, config, resume, progress, trust)
    if group.rank:
        raise SystemExit(0)
    return open_run(folder, model if callable(model) else None, guide=guide, trust=True)  # it was run just now


def _in_process(
    group: Parallel, folder: Path, config: RunConfig, resume: bool, progress: bool | None, trust: bool
) -> None:
    """The whole run, in each of the processes; the first one alone writes into the folder."""
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stopping(group.rank))
        stage = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        if group.rank == 0:
            if not resume:
                check_new(folder)
            stack.enter_context(locked(folder))
            if not resume:
                check_new(folder)  # another process may have been quicker
        job, begin = old_job(folder, config, group, trust) if resume else new_job(stage, config, group)
        check_batch(job.algorithm.hyper.batch_size, group.size)
        if group.rank == 0:
            remember([job.manifest.model, job.manifest.inference])
            if resume:
                write_manifest(folder, job.manifest)
            else:
                stack.enter_context(moved_in(stage, folder))
        learn(job._replace(folder=stage if group.rank else folder), begin, progress, stop)
