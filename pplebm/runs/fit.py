"""`pplebm.fit`: from a model, data and an algorithm to a run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pplebm.errors import PplebmError
from pplebm.ppl.language import load_backend
from pplebm.ppl.parallel import Parallel, check_batch
from pplebm.runs import files
from pplebm.runs.job import Wish, new_job, old_job
from pplebm.runs.job import start as start_of
from pplebm.runs.learn import learn
from pplebm.runs.run import Run, open_run

ALONE = {"devices": 1, "nodes": 1, "strategy": "auto"}


def fit(
    model: str | Path | Callable[..., Any],
    data: Any = "digits",
    inference: str | Path = "short_run_mle",
    out: str | Path | None = None,
    seed: int = 0,
    steps: int | None = None,
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
) -> Run:
    """Learn a model from data and keep everything in a run folder.

    Args:
        model: name of a page, path of a file, or any Pyro callable of a batch.
        data: name of a data set, path of a .npy, .npz or .csv file, or an array (N, *event).
        inference: name or path of an algorithm page.
        out: run folder; by default runs/<model>-<inference>-seed<seed>.
        seed: of data split, initial weights, batches and noise.
        steps: number of updates; by default the algorithm page's own.
        hyper: changes to the hyperparameters of either page; "model.sigma" names the page where both have a field.
        data_dir: where named data sets lie.
        backend: "pyro" or "numpyro"; for a callable or a file of your own, the language it is written in.
        compiled: on the Pyro side, compile the steps of the chains, which takes seconds and pays for itself in a long
            run; by default runs of 200 updates and more are compiled. NumPyro compiles in any case.
        precision: "full" or, on the Pyro side, "bf16"; see `Program.with_chains`.
        devices: of each machine, that share every batch: GPUs where there are any, otherwise parts of the CPU. On the
            Pyro side a process each, started by running the script again (Lightning Fabric); the others end here.
        nodes: machines, each of which runs this command; see docs/clusters.md.
        strategy: of Lightning Fabric: "ddp", or "ddp_spawn", which also works without a script.
        ema: decay per update of a running average of the parameters, which the run then uses: 0.999 averages over
            about a thousand updates. 0: the last parameters.
        patience: stop when the held-out reconstruction error has not improved for so many of its evaluations, one per
            hundred updates. 0: never.
        guide: a Pyro or NumPyro function of a batch, for algorithms that learn a guide; by default the `guide` of the
            model's page or file, or one that they derive. Its own modules hold the learned weights afterwards.
        start: run folder whose learned parameters this run begins with, by name, wherever both have them: that of the
            untilted twin, for instance, fitted with hyper={"tilted": False}.
        tensorboard: write the metrics for TensorBoard as well, `pip install "pplebm[tensorboard]"`.
        resume: go on from the last checkpoint in `out`; equals an uninterrupted run bit for bit.
        progress: show a progress bar; by default only in a terminal.
        scaling: "none", which is the default for a model of your own; "unit", to [-1, 1]; "standard", to mean 0 and
            standard deviation 1; "auto", "unit" for images and "standard" for tables. Pages of the gallery say what
            they expect. Only real numbers that an observed site takes whole are ever scaled.

    Returns:
        The run. A callable's own modules hold the learned weights afterwards.

    Raises:
        PplebmError: for bad input of any kind, and for an existing run unless `resume`.
        KeyboardInterrupt: on Ctrl-C, after saving.

    Example:
        >>> import tempfile, pplebm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("latent_ebm", out=f"{folder}/run", steps=2, hyper={"n_steps_prior": 2})
        ...     run.sample_data(3).shape
        (3, 8, 8)
    """
    folder = Path(out) if out is not None else _default_folder(model, inference, seed)
    if steps is not None and steps < 1:
        raise PplebmError(f"steps must be positive, got {steps}.")
    if not 0 <= ema < 1 or patience < 0:
        raise PplebmError(f"ema must lie in [0, 1) and patience must not be negative, got {ema} and {patience}.")
    course = {"ema": float(ema), "patience": int(patience), "tensorboard": bool(tensorboard)}
    if tensorboard:
        files.tensorboard()  # tells now if it is not there
    wish = Wish(
        model, data, inference, seed, steps, dict(hyper or {}), data_dir, backend, compiled, precision, course, guide,
        start, resume, scaling,
    )  # fmt: skip
    if resume:
        manifest = files.read_manifest(folder)
        backend, together = manifest["backend"], manifest.get("parallel", ALONE)
    else:
        together = {"devices": devices, "nodes": nodes, "strategy": strategy}
    group = load_backend(backend).parallel(**together)
    group.launch(_in_process, folder, wish, together, progress)
    if group.rank:
        raise SystemExit(0)
    return open_run(folder, model if callable(model) else None, guide=guide)


def _in_process(group: Parallel, folder: Path, wish: Wish, together: dict[str, Any], progress: bool | None) -> None:
    """The whole run, in each of the processes; the first one alone writes into the folder."""
    with tempfile.TemporaryDirectory() as elsewhere:
        own = folder if group.rank == 0 else Path(elsewhere) / "run"
        job = old_job(folder, wish, group) if wish.resume else new_job(own, wish, together, group)
        check_batch(job.hyper.batch_size, group.size)
        if wish.steps is not None:
            job.manifest["inference"]["hyper"]["updates"] = wish.steps
            job = job._replace(hyper=job.hyper._replace(updates=wish.steps))
        job = job._replace(program=job.program.with_chains(**job.manifest["chains"]))
        begin = start_of(job, wish)
        own.mkdir(parents=True, exist_ok=True)
        files.write_manifest(own, job.manifest)
        learn(job._replace(folder=own), begin, progress)


def _default_folder(model: Any, inference: Any, seed: int) -> Path:
    name = getattr(model, "__name__", None) or Path(str(model)).stem
    return Path("runs") / f"{name}-{Path(str(inference)).stem}-seed{seed}"
